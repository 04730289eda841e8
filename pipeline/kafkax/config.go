package kafkax

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"
)

// Config says how to reach Kafka and what hookline's topics and groups are
// called. The prefix HOOKLINE_ of the environment is added by who parses it.
type Config struct {
	// Brokers are bootstrap addresses, host:port.
	Brokers []string `env:"KAFKA_BROKERS" envDefault:"127.0.0.1:9092"`
	// ClientID names this client in the brokers' logs and quotas.
	ClientID string     `env:"KAFKA_CLIENT_ID" envDefault:"hookline"`
	TLS      TLSConfig  `envPrefix:"KAFKA_TLS_"`
	SASL     SASLConfig `envPrefix:"KAFKA_SASL_"`
	// TopicPrefix stands before the name of every topic of hookline's own.
	TopicPrefix string `env:"TOPIC_PREFIX" envDefault:"hookline."`
	// Group is what the consumer groups' names begin with.
	Group string `env:"GROUP" envDefault:"hookline"`
	// InstanceID makes the group membership static and names the transactional
	// ids; it must be unique among live processes (a StatefulSet's pod name).
	// Empty: dynamic membership.
	InstanceID string `env:"INSTANCE_ID"`
	// StayOnStop leaves a static member in the group at stop, so that its
	// partitions wait for its return instead of moving.
	StayOnStop bool `env:"STAY_ON_STOP" envDefault:"false"`
	// Partitions of deliveries, retry.*, parked, lanes and dead. It never
	// changes after the topics were made.
	Partitions int32 `env:"PARTITIONS" envDefault:"32"`
	// Replication of topics that hookline makes; 0: the brokers' default.
	Replication int16 `env:"REPLICATION" envDefault:"0"`
	// EventMaxBytes is the largest payload of an event that is delivered.
	EventMaxBytes Bytes `env:"EVENT_MAX_BYTES" envDefault:"1MiB"`
	// Compression of what hookline writes to Kafka: snappy, lz4, zstd or none.
	// Snappy costs the least CPU beside none, zstd the fewest bytes.
	Compression string `env:"COMPRESSION" envDefault:"snappy"`
	// DeliveriesRetention is how long settled deliveries are kept for replay.
	DeliveriesRetention Duration `env:"DELIVERIES_RETENTION" envDefault:"7d"`
}

// TLSConfig says how to speak TLS to the brokers.
type TLSConfig struct {
	// Enabled turns TLS on; the other fields are refused without it.
	Enabled bool `env:"ENABLED" envDefault:"false"`
	// CAFile has the PEM certificates to trust; empty: the system's.
	CAFile string `env:"CA_FILE"`
	// CertFile has the client's certificate, PEM; KAFKA_TLS_KEY_FILE has its key, both or none.
	CertFile string `env:"CERT_FILE"`
	// KeyFile has the key of KAFKA_TLS_CERT_FILE, PEM.
	KeyFile string `env:"KEY_FILE"`
	// ServerName is expected in the brokers' certificates; empty: their host.
	ServerName string `env:"SERVER_NAME"`
}

// SASLConfig says how to authenticate to the brokers.
type SASLConfig struct {
	// Mechanism: plain, scram-sha-256, scram-sha-512 or oauthbearer; empty: none.
	Mechanism string `env:"MECHANISM"`
	// User to log in as; with oauthbearer and TOKEN_URL the client's id.
	User string `env:"USER"`
	// Password to log in with, unless KAFKA_SASL_PASSWORD_FILE has it; with oauthbearer and TOKEN_URL the client's secret.
	Password Password `env:"PASSWORD"`
	// PasswordFile has the password alone in it, instead of KAFKA_SASL_PASSWORD.
	PasswordFile string `env:"PASSWORD_FILE"`
	// TokenFile has the token of oauthbearer; it is read at each login, so that it may be replaced.
	TokenFile string `env:"TOKEN_FILE"`
	// TokenURL gives tokens for oauthbearer to USER and PASSWORD (OAuth 2.0 client credentials); https.
	TokenURL string `env:"TOKEN_URL"`
	// Scopes are asked for at TOKEN_URL.
	Scopes []string `env:"SCOPES"`
}

// Limits of the configuration.
const (
	// MaxPartitions keeps the open files and the recovery time of a broker sane.
	MaxPartitions = 10_000
	// MinEventBytes and MaxEventBytes bound EVENT_MAX_BYTES. The upper one keeps
	// a record with its headers under kgo's 100 MB read limit.
	MinEventBytes = 1 << 10
	MaxEventBytes = 64 << 20
	// MessageOverhead is what a record may need besides its payload: headers
	// (envelope, subscription list, lane key, error) and batch framing.
	MessageOverhead = 128 << 10
)

// DefaultConfig has the defaults that the environment has.
func DefaultConfig() Config {
	return Config{
		Brokers: []string{"127.0.0.1:9092"}, ClientID: "hookline", TopicPrefix: "hookline.", Group: "hookline",
		Partitions: 32, EventMaxBytes: 1 << 20, Compression: compressionSnappy, DeliveriesRetention: Duration(7 * day),
	}
}

// MaxMessageBytes is the largest record that hookline writes, and what
// max.message.bytes of its topics must at least be.
func (c *Config) MaxMessageBytes() int { return int(c.EventMaxBytes) + MessageOverhead }

// RouterGroup is the consumer group of the event topics' readers that route.
func (c *Config) RouterGroup() string { return c.Group + ".router" }

// DispatcherGroup is the consumer group of deliveries.
func (c *Config) DispatcherGroup() string { return c.Group + ".dispatcher" }

// SinkGroup is the consumer group of the writers to ClickHouse.
func (c *Config) SinkGroup() string { return c.Group + ".sink" }

// Topics names hookline's topics.
func (c *Config) Topics() Topics { return Topics{Prefix: c.TopicPrefix} }

// nameGrammar is Kafka's own for topic names; groups and ids are kept to it.
var nameGrammar = regexp.MustCompile(`^[A-Za-z0-9._-]{1,200}$`)

// Validate reports everything that is wrong, at once, without I/O.
func (c *Config) Validate() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("checking HOOKLINE_"+name+": "+format, args...))
	}
	if len(c.Brokers) == 0 {
		bad("KAFKA_BROKERS", "it is empty (give host:port, comma separated)")
	}
	for _, b := range c.Brokers {
		if host, port, err := net.SplitHostPort(strings.TrimSpace(b)); err != nil || host == "" || port == "" {
			bad("KAFKA_BROKERS", "%q is not host:port", b)
		}
	}
	for _, n := range []struct{ name, value string }{
		{"TOPIC_PREFIX", c.TopicPrefix}, {"GROUP", c.Group}, {"KAFKA_CLIENT_ID", c.ClientID},
	} {
		if !nameGrammar.MatchString(n.value) {
			bad(n.name, "%q is not made of 1 to 200 of A-Z a-z 0-9 . _ -", n.value)
		}
	}
	if c.InstanceID != "" && !nameGrammar.MatchString(c.InstanceID) {
		bad("INSTANCE_ID", "%q is not made of 1 to 200 of A-Z a-z 0-9 . _ -", c.InstanceID)
	}
	if c.Partitions < 1 || c.Partitions > MaxPartitions {
		bad("PARTITIONS", "%d is not within 1 to %d", c.Partitions, MaxPartitions)
	}
	if c.Replication < 0 || c.Replication > math.MaxInt8 {
		bad("REPLICATION", "%d is neither 0 (the brokers' default) nor a number of replicas", c.Replication)
	}
	if c.EventMaxBytes < MinEventBytes || c.EventMaxBytes > MaxEventBytes {
		bad("EVENT_MAX_BYTES", "%v is not within %v to %v", c.EventMaxBytes, Bytes(MinEventBytes), Bytes(MaxEventBytes))
	}
	if _, ok := codecs[c.Compression]; !ok {
		bad("COMPRESSION", "%q is none of snappy, lz4, zstd, none", c.Compression)
	}
	if c.DeliveriesRetention < Duration(time.Minute) {
		bad("DELIVERIES_RETENTION", "%v is less than a minute", c.DeliveriesRetention)
	}
	c.TLS.validate(bad)
	c.SASL.validate(bad)
	return errors.Join(errs...)
}

func (t *TLSConfig) validate(bad func(name, format string, args ...any)) {
	if !t.Enabled && (t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != "") {
		bad("KAFKA_TLS_ENABLED", "it is false although other KAFKA_TLS_* are set (set it to true or remove them)")
	}
	if (t.CertFile == "") != (t.KeyFile == "") {
		bad("KAFKA_TLS_CERT_FILE", "a client certificate needs both CERT_FILE and KEY_FILE")
	}
}

func (s *SASLConfig) validate(bad func(name, format string, args ...any)) {
	switch s.Mechanism {
	case "":
		if s.User != "" || s.Password != "" || s.PasswordFile != "" || s.TokenFile != "" || s.TokenURL != "" {
			bad("KAFKA_SASL_MECHANISM", "it is empty although other KAFKA_SASL_* are set (set it or remove them)")
		}
		return
	case mechanismOAuth:
		s.validateOAuth(bad)
		if s.TokenURL == "" {
			return
		}
	case mechanismPlain, mechanismSCRAM256, mechanismSCRAM512:
		if s.TokenFile != "" || s.TokenURL != "" {
			bad("KAFKA_SASL_MECHANISM", "TOKEN_FILE and TOKEN_URL are for oauthbearer alone")
		}
	default:
		bad("KAFKA_SASL_MECHANISM", "%q is none of plain, scram-sha-256, scram-sha-512, oauthbearer", s.Mechanism)
	}
	if s.User == "" {
		bad("KAFKA_SASL_USER", "it is empty")
	}
	if (s.Password == "") == (s.PasswordFile == "") {
		bad("KAFKA_SASL_PASSWORD", "exactly one of PASSWORD and PASSWORD_FILE is needed")
	}
}

func (s *SASLConfig) validateOAuth(bad func(name, format string, args ...any)) {
	if (s.TokenFile == "") == (s.TokenURL == "") {
		bad("KAFKA_SASL_TOKEN_FILE", "oauthbearer needs exactly one of TOKEN_FILE and TOKEN_URL")
	}
	if s.TokenURL == "" {
		if s.Password != "" || s.PasswordFile != "" {
			bad("KAFKA_SASL_PASSWORD", "it is of no use with TOKEN_FILE")
		}
		return
	}
	u, err := url.Parse(s.TokenURL)
	local := err == nil && u.Scheme == "http" && (u.Hostname() == "127.0.0.1" || u.Hostname() == "localhost")
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && !local {
		bad("KAFKA_SASL_TOKEN_URL", "it is no https URL without user info")
	}
}
