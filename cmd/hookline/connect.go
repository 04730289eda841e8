package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
)

// Limits of the first contact with Kafka or ClickHouse: a failure is told well
// within 15 s. kgo dials a silent address up to four times, whatever its context
// says.
const (
	connectLimit = 12 * time.Second
	dialLimit    = connectLimit / 4
)

// unreachableError says that something outside did not answer.
type unreachableError struct{ err error }

func (e unreachableError) Error() string { return e.err.Error() }
func (e unreachableError) Unwrap() error { return e.err }

func unreachable(err error) bool {
	_, ok := errors.AsType[unreachableError](err)
	return ok
}

// connect makes a Kafka client and makes sure that a broker answers it.
func connect(ctx context.Context, cfg *configs.Config, opts ...kgo.Opt) (*kgo.Client, error) {
	// kgo's own lines about what is then reported here would say it twice.
	base, err := cfg.Kafka.ClientOpts(slog.New(slog.DiscardHandler))
	if err != nil {
		return nil, usage(err)
	}
	base = append(base, kgo.DialTimeout(dialLimit))
	client, err := kgo.NewClient(append(base, opts...)...)
	if err != nil {
		return nil, fmt.Errorf("making the Kafka client: %w", err)
	}
	limited, cancel := context.WithTimeout(ctx, connectLimit)
	defer cancel()
	if err := client.Ping(limited); err != nil {
		client.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("connecting: %s: interrupted", strings.Join(cfg.Kafka.Brokers, ","))
		}
		return nil, unreachableError{kafkaError(err, strings.Join(cfg.Kafka.Brokers, ","))}
	}
	return client, nil
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
		return fmt.Sprintf("no answer within %s", connectLimit)
	}
	if ne, ok := errors.AsType[net.Error](err); ok && ne.Timeout() {
		return fmt.Sprintf("no answer within %s", connectLimit)
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}
