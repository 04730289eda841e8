package kafkax

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/hookline/hookline/internal/cafile"
)

const compressionSnappy = "snappy"

// codecs by the values of COMPRESSION.
var codecs = map[string][]kgo.CompressionCodec{
	compressionSnappy: {kgo.SnappyCompression(), kgo.NoCompression()},
	"lz4":             {kgo.Lz4Compression(), kgo.NoCompression()},
	"zstd":            {kgo.ZstdCompression(), kgo.NoCompression()},
	"none":            {kgo.NoCompression()},
}

// ProducerCompression is the option of clients that write payloads.
func (c *Config) ProducerCompression() kgo.Opt {
	// A copy for each client: kgo writes into the slice.
	return kgo.ProducerBatchCompression(slices.Clone(codecs[c.Compression])...)
}

// SessionOpts are the options of a group member whose partitions others take
// over after this long a silence.
func SessionOpts(timeout time.Duration) []kgo.Opt {
	return []kgo.Opt{kgo.SessionTimeout(timeout), kgo.HeartbeatInterval(timeout / heartbeatsPerSession)}
}

// heartbeatsPerSession: two lost ones end no session.
const heartbeatsPerSession = 10

const (
	mechanismPlain    = "plain"
	mechanismSCRAM256 = "scram-sha-256"
	mechanismSCRAM512 = "scram-sha-512"
	mechanismOAuth    = "oauthbearer"
)

const (
	// dialTimeout bounds one dial, the TLS handshake included, so that a wrong
	// address or certificate is named well within 15 s of the start.
	dialTimeout = 5 * time.Second
	// metadataMinAge and txnBackoff: with kgo's defaults (5 s, 20 ms) a
	// transaction that begins while the last one is being finished waits for a
	// metadata refresh, and throughput falls to a tenth (measured on Kafka 4.4).
	metadataMinAge = 20 * time.Millisecond
	txnBackoff     = 4 * time.Millisecond
	// maxReadBytes bounds one response. kgo's default, set explicitly.
	maxReadBytes = 100 << 20
	// requestBytes bounds what a client writes at once, as it is before it is
	// compressed, but for a record that is larger. A client keeps the memory of a
	// request for the next one: with kgo's default (100 MiB) that of the router had
	// room for a whole transaction.
	requestBytes = 2 << 20
	// requestRoom is for what a request has around its largest record: names.
	requestRoom = 64 << 10
)

// ClientOpts gives the options that every client of this process has: where the
// brokers are, how to authenticate, and how to log. It reads the files that the
// configuration names. log may be nil.
func (c *Config) ClientOpts(log *slog.Logger) ([]kgo.Opt, error) {
	brokers := make([]string, len(c.Brokers))
	for i, b := range c.Brokers {
		brokers[i] = strings.TrimSpace(b)
	}
	opts := []kgo.Opt{
		kgo.SeedBrokers(brokers...),
		kgo.ClientID(c.ClientID),
		kgo.MetadataMinAge(metadataMinAge),
		kgo.ConcurrentTransactionsBackoff(txnBackoff),
		kgo.BrokerMaxReadBytes(maxReadBytes),
		kgo.ProducerBatchMaxBytes(int32(c.MaxMessageBytes())),
		kgo.BrokerMaxWriteBytes(int32(max(requestBytes, c.MaxMessageBytes()+requestRoom))),
		kgo.MaxDecompressBatchBytes(max(maxReadBytes, 2*c.MaxMessageBytes())), // a zstd bomb ends here
		kgo.RequiredAcks(kgo.AllISRAcks()),
	}
	if log != nil {
		opts = append(opts, kgo.WithLogger(NewLogger(log)))
	}
	if c.TLS.Enabled {
		t, err := c.TLS.load()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	opts = append(opts, kgo.DialTimeout(dialTimeout))
	if c.SASL.Mechanism != "" {
		m, err := c.SASL.load()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	return opts, nil
}

// CheckFiles reads the files that the configuration names, as clients do when they
// are made, and tells everything that is wrong with them.
func (c *Config) CheckFiles() error {
	var errs []error
	if c.TLS.Enabled {
		_, err := c.TLS.load()
		errs = append(errs, err)
	}
	if c.SASL.Mechanism != "" {
		_, err := c.SASL.load()
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (t *TLSConfig) load() (*tls.Config, error) {
	var errs []error
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		var err error
		out.RootCAs, err = cafile.Read("HOOKLINE_KAFKA_TLS_CA_FILE", t.CAFile)
		errs = append(errs, err)
	}
	if t.CertFile != "" {
		cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			errs = append(errs, fmt.Errorf("loading HOOKLINE_KAFKA_TLS_CERT_FILE: with its key: %w", err))
		}
		out.Certificates = []tls.Certificate{cert}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func (s *SASLConfig) load() (sasl.Mechanism, error) {
	pass, err := s.password()
	if err != nil {
		return nil, err
	}
	switch s.Mechanism {
	case mechanismPlain:
		return plain.Auth{User: s.User, Pass: pass}.AsMechanism(), nil
	case mechanismSCRAM256:
		return scram.Auth{User: s.User, Pass: pass}.AsSha256Mechanism(), nil
	case mechanismSCRAM512:
		return scram.Auth{User: s.User, Pass: pass}.AsSha512Mechanism(), nil
	case mechanismOAuth:
		return s.oauth(pass)
	}
	return nil, errors.New("choosing a SASL mechanism: it is none of plain, scram-sha-256, scram-sha-512, oauthbearer")
}

// password is the configured one, or the one in its file.
func (s *SASLConfig) password() (string, error) {
	pass := string(s.Password)
	if s.PasswordFile != "" {
		b, err := os.ReadFile(s.PasswordFile)
		if err != nil {
			return "", fmt.Errorf("reading HOOKLINE_KAFKA_SASL_PASSWORD_FILE: %w", err)
		}
		if pass = strings.TrimRight(string(b), "\r\n"); pass == "" {
			return "", fmt.Errorf("reading HOOKLINE_KAFKA_SASL_PASSWORD_FILE: %s is empty", s.PasswordFile)
		}
	}
	return pass, nil
}
