package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
)

// connectLimit bounds the first contact with Kafka or ClickHouse, so that a
// failure is told well within 15 s.
const connectLimit = 10 * time.Second

// unreachableError says that something outside did not answer.
type unreachableError struct{ err error }

func (e unreachableError) Error() string { return e.err.Error() }
func (e unreachableError) Unwrap() error { return e.err }

func unreachable(err error) bool {
	_, ok := errors.AsType[unreachableError](err)
	return ok
}

// connect makes sure that a broker answers and makes a Kafka client.
func connect(ctx context.Context, cfg *configs.Config, opts ...kgo.Opt) (*kgo.Client, error) {
	// kgo's own lines about what is then reported here would say it twice.
	base, err := cfg.Kafka.ClientOpts(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, usage(err)
	}
	if err := ping(ctx, base, strings.Join(cfg.Kafka.Brokers, ",")); err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(slices.Concat(base, opts)...)
	if err != nil {
		return nil, fmt.Errorf("making the Kafka client: %w", err)
	}
	return client, nil
}

// clusterID is the id of the cluster that client talks to.
func clusterID(ctx context.Context, client *kgo.Client) (string, error) {
	meta, err := kadm.NewClient(client).BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for the cluster's id: %w", err)
	}
	return meta.Cluster, nil
}

// ping asks any broker for its metadata, by a client of its own: kgo tries a
// silent address several times whatever the context says, so that each try gets
// a part of the time.
func ping(ctx context.Context, base []kgo.Opt, brokers string) error {
	client, err := kgo.NewClient(slices.Concat(base, []kgo.Opt{
		kgo.DialTimeout(connectLimit / 4), kgo.RequestTimeoutOverhead(connectLimit / 4), kgo.RequestRetries(0),
	})...)
	if err != nil {
		return fmt.Errorf("making the Kafka client: %w", err)
	}
	defer client.Close()
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	switch err := client.Ping(limited); {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("connecting: %s: interrupted", brokers)
	default:
		return unreachableError{kafkaError(err, brokers)}
	}
}

// kafkaError names the cause of a failed contact and what to do about it.
func kafkaError(err error, brokers string) error {
	why, remedy := cause(err), "is Kafka running? set HOOKLINE_KAFKA_BROKERS"
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		why, remedy = "the brokers refused the login", "set HOOKLINE_KAFKA_SASL_USER, _PASSWORD and _MECHANISM"
	case badCert:
		remedy = "set HOOKLINE_KAFKA_TLS_CA_FILE or _SERVER_NAME"
	case notTLS:
		why, remedy = "the port does not speak TLS", "unset HOOKLINE_KAFKA_TLS_ENABLED, or use the TLS port"
	case strings.Contains(err.Error(), "broker closed the connection"), strings.Contains(err.Error(), "EOF"):
		why, remedy = "the broker closed the connection", "does it want TLS or a login? set HOOKLINE_KAFKA_TLS_ENABLED or HOOKLINE_KAFKA_SASL_MECHANISM"
	}
	return fmt.Errorf("connecting: %s: %s (%s)", brokers, why, remedy)
}

// cause is the innermost reason in plain words.
func cause(err error) string {
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return "no such host " + dns.Name
	}
	if no, ok := errors.AsType[syscall.Errno](err); ok {
		return no.Error()
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert.Err.Error()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return "no answer in time"
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
