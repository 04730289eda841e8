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
	"github.com/hookline/hookline/pipeline/kafkax"
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
	if err := ping(ctx, base, &cfg.Kafka); err != nil {
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
func ping(ctx context.Context, base []kgo.Opt, cfg *kafkax.Config) error {
	brokers := strings.Join(cfg.Brokers, ",")
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
		return unreachableError{kafkaError(err, brokers, cfg)}
	}
}

// kafkaError names the cause of a failed contact and what to do about it.
func kafkaError(err error, brokers string, cfg *kafkax.Config) error {
	why, remedy := cause(err), "is Kafka running? set HOOKLINE_KAFKA_BROKERS"
	_, badCert := errors.AsType[*tls.CertificateVerificationError](err)
	_, notTLS := errors.AsType[tls.RecordHeaderError](err)
	token, noToken := errors.AsType[*kafkax.TokenError](err)
	op, _ := errors.AsType[*net.OpError](err)
	closed := strings.Contains(err.Error(), "broker closed the connection") || strings.Contains(err.Error(), "EOF")
	const login = "set HOOKLINE_KAFKA_SASL_USER, _PASSWORD and _MECHANISM"
	switch {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, kerr.UnsupportedSaslMechanism), errors.Is(err, kerr.IllegalSaslState):
		why, remedy = "the brokers refused the login", login
	case noToken:
		why, remedy = token.Error(), "set HOOKLINE_KAFKA_SASL_TOKEN_URL, _USER and _PASSWORD"
	case badCert:
		remedy = "set HOOKLINE_KAFKA_TLS_CA_FILE or _SERVER_NAME"
	case op != nil && op.Op == "remote error": // a TLS alert of theirs
		why, remedy = "the brokers refused TLS: "+strings.TrimPrefix(op.Err.Error(), "remote error: "), "do they want a client certificate? set HOOKLINE_KAFKA_TLS_CERT_FILE and _KEY_FILE"
	case notTLS:
		why, remedy = "the port does not speak TLS", "unset HOOKLINE_KAFKA_TLS_ENABLED, or use the TLS port"
	case closed && cfg.SASL.Mechanism != "":
		why, remedy = "the broker closed the connection, as some do that refuse the login", login
	case closed && cfg.TLS.Enabled:
		why, remedy = "the broker closed the connection", "does it want a login? set HOOKLINE_KAFKA_SASL_MECHANISM; or has the port no TLS?"
	case closed:
		why, remedy = "the broker closed the connection", "does it want TLS or a login? set HOOKLINE_KAFKA_TLS_ENABLED or HOOKLINE_KAFKA_SASL_MECHANISM"
	case cfg.TLS.Enabled && why == noAnswer:
		remedy = "is Kafka running, and does the port speak TLS? set HOOKLINE_KAFKA_BROKERS"
	}
	return fmt.Errorf("connecting: %s: %s (%s)", brokers, why, remedy)
}

// noAnswer is the cause where there was none.
const noAnswer = "no answer in time"

// denied names what Kafka means by its authorization errors, wherever they came up.
func denied(err error) error {
	for _, e := range []error{
		kerr.TopicAuthorizationFailed, kerr.GroupAuthorizationFailed, kerr.ClusterAuthorizationFailed, kerr.TransactionalIDAuthorizationFailed,
	} {
		if errors.Is(err, e) {
			return unreachableError{fmt.Errorf("%w (the user is not allowed to: grant what docs/security.md lists under Kafka)", err)}
		}
	}
	return err
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
		return noAnswer
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return noAnswer
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
