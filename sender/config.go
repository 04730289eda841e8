package sender

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/sender/netguard"
)

// Config is the sender's configuration. The names of its variables get the
// prefix HOOKLINE_.
type Config struct {
	// RequestTimeout is the time limit of one try, from resolving the name to
	// the last byte of the answer. A subscription may ask for less.
	RequestTimeout time.Duration `env:"REQUEST_TIMEOUT" envDefault:"15s"`
	// ConnectTimeout is the time limit for one TCP connection, within
	// RequestTimeout. Short, so that a dead host does not hold a dial slot.
	ConnectTimeout time.Duration `env:"CONNECT_TIMEOUT" envDefault:"5s"`
	// SuccessStatus is what counts as success: statuses and ranges of them.
	SuccessStatus []string `env:"SUCCESS_STATUS" envDefault:"200-209"`
	// AllowCIDRs are addresses that may be reached besides public ones.
	AllowCIDRs []string `env:"ALLOW_CIDRS"`
	// AllowHTTP accepts URLs without TLS.
	AllowHTTP bool `env:"ALLOW_HTTP" envDefault:"false"`
	// AllowPorts are the ports that a URL may name, and ranges of them.
	AllowPorts []string `env:"ALLOW_PORTS" envDefault:"443,80,8080,8443"`
	// InboundWebhooks are URLs at which a source system takes events in, as
	// [format=]host/path with * for anything and {tenant} for the tenant. Events
	// of that format are not sent there: they would come back as new ones.
	InboundWebhooks []string `env:"INBOUND_WEBHOOKS" envDefault:"signl4=connect.signl4.com/webhook/*"`
	// ResponseBodyBytes is how much of an answer's body the log keeps; 0: none.
	ResponseBodyBytes int `env:"RESPONSE_BODY_BYTES" envDefault:"16384"`
	// ResponseHeaderBytes is how much of an answer's headers the log keeps; 0: none.
	ResponseHeaderBytes int `env:"RESPONSE_HEADER_BYTES" envDefault:"8192"`
	// ShareConnections lets tenants share connections to the same host.
	ShareConnections bool `env:"SHARE_CONNECTIONS" envDefault:"false"`
	// ResendStale sends a request once more, within the same attempt, when a
	// kept-alive connection was closed under it without a byte of an answer.
	ResendStale bool `env:"RESEND_STALE" envDefault:"true"`
	// MaxIdleConnections is how many idle connections are kept over all hosts;
	// the longest idle one goes first. Each costs a file descriptor.
	MaxIdleConnections int `env:"MAX_IDLE_CONNECTIONS" envDefault:"4096"`
	// IdleConnectionTimeout is how long an idle connection is kept.
	IdleConnectionTimeout time.Duration `env:"IDLE_CONNECTION_TIMEOUT" envDefault:"30s"`
	// MaxConnectionsPerHost bounds the connections to one host and port (of one
	// tenant); a try beyond it ends as local_error and spends no attempt.
	MaxConnectionsPerHost int `env:"MAX_CONNECTIONS_PER_HOST" envDefault:"512"`
	// MaxDials is how many connections may be under construction at once.
	MaxDials int `env:"MAX_DIALS" envDefault:"256"`
	// DNSCacheTTL is how long a name's addresses are used before it is looked up
	// again, less where their own TTL is shorter; 0: look it up for each connection.
	DNSCacheTTL time.Duration `env:"DNS_CACHE_TTL" envDefault:"30s"`
}

// DefaultConfig is what an empty environment gives.
func DefaultConfig() Config {
	return Config{
		RequestTimeout: 15 * time.Second, ConnectTimeout: 5 * time.Second, SuccessStatus: []string{"200-209"},
		AllowPorts: []string{"443", "80", "8080", "8443"}, ResponseBodyBytes: 16384, ResponseHeaderBytes: 8192,
		InboundWebhooks: []string{"signl4=connect.signl4.com/webhook/*"},
		ResendStale:     true, MaxIdleConnections: 4096, IdleConnectionTimeout: 30 * time.Second,
		MaxConnectionsPerHost: 512, MaxDials: 256, DNSCacheTTL: 30 * time.Second,
	}
}

// Validate reports everything that is wrong, by variable and with its remedy.
func (c *Config) Validate() error {
	_, err := c.parse()
	return err
}

// Policy is what URLs must satisfy under this configuration.
func (c *Config) Policy() (endpoint.Policy, error) {
	p, err := c.parse()
	if err != nil {
		return endpoint.Policy{}, err
	}
	return p.policy, nil
}

// parsed is a Config in the forms that the hot path uses.
type parsed struct {
	success [600]bool
	guard   *netguard.Guard
	policy  endpoint.Policy
}

func (c *Config) parse() (*parsed, error) {
	var errs []error
	p := &parsed{}
	if err := p.parseStatuses(c.SuccessStatus); err != nil {
		errs = append(errs, err)
	}
	cidrs, err := netguard.ParsePrefixes(trimmed(c.AllowCIDRs))
	if err != nil {
		errs = append(errs, fmt.Errorf("HOOKLINE_ALLOW_CIDRS: %w", err))
	}
	ports, err := endpoint.ParsePorts(trimmed(c.AllowPorts))
	if err != nil {
		errs = append(errs, fmt.Errorf("HOOKLINE_ALLOW_PORTS: %w", err))
	}
	inbound, err := endpoint.ParseInbounds(trimmed(c.InboundWebhooks))
	if err != nil {
		errs = append(errs, fmt.Errorf("HOOKLINE_INBOUND_WEBHOOKS: %w", err))
	}
	errs = append(errs, c.checkRanges())
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	p.setAddresses(cidrs, ports, c.AllowHTTP)
	p.policy.Inbound = inbound
	return p, nil
}

func (p *parsed) setAddresses(cidrs []netip.Prefix, ports endpoint.PortSet, allowHTTP bool) {
	p.guard = netguard.New(cidrs)
	p.policy = endpoint.Policy{
		AllowHTTP: allowHTTP, Ports: ports, LocalNames: len(cidrs) > 0, Addr: p.guard.Check,
	}
}

func (c *Config) checkRanges() error {
	var errs []error
	span := func(name string, d, low, high time.Duration) {
		if d < low || d > high {
			errs = append(errs, fmt.Errorf("HOOKLINE_%s: %s is outside %s to %s", name, d, low, high))
		}
	}
	count := func(name string, n, low, high int) {
		if n < low || n > high {
			errs = append(errs, fmt.Errorf("HOOKLINE_%s: %d is outside %d to %d", name, n, low, high))
		}
	}
	span("REQUEST_TIMEOUT", c.RequestTimeout, 10*time.Millisecond, 5*time.Minute)
	span("CONNECT_TIMEOUT", c.ConnectTimeout, 10*time.Millisecond, 5*time.Minute)
	span("IDLE_CONNECTION_TIMEOUT", c.IdleConnectionTimeout, time.Millisecond, time.Hour)
	span("DNS_CACHE_TTL", c.DNSCacheTTL, 0, time.Minute)
	count("RESPONSE_BODY_BYTES", c.ResponseBodyBytes, 0, maxDrainBytes)
	count("RESPONSE_HEADER_BYTES", c.ResponseHeaderBytes, 0, maxHeaderBytes)
	count("MAX_IDLE_CONNECTIONS", c.MaxIdleConnections, 0, 1<<20)
	count("MAX_CONNECTIONS_PER_HOST", c.MaxConnectionsPerHost, 1, 1<<16)
	count("MAX_DIALS", c.MaxDials, 1, 1<<16)
	return errors.Join(errs...)
}

// parseStatuses reads "200-209,304". 410 cannot be success: it means gone.
func (p *parsed) parseStatuses(entries []string) error {
	entries = trimmed(entries)
	if len(entries) == 0 {
		return errors.New("HOOKLINE_SUCCESS_STATUS: empty: every delivery would fail (write 200-209)")
	}
	for _, entry := range entries {
		from, to, ranged := strings.Cut(entry, "-")
		if !ranged {
			to = from
		}
		a, errA := strconv.Atoi(from)
		b, errB := strconv.Atoi(to)
		if errA != nil || errB != nil || a < 200 || b > 599 || b < a || a <= 410 && 410 <= b {
			return fmt.Errorf("HOOKLINE_SUCCESS_STATUS: %q is not a status or range within 200 to 599 without 410 (write 200-209)", entry)
		}
		for s := a; s <= b; s++ {
			p.success[s] = true
		}
	}
	return nil
}

func trimmed(list []string) []string {
	var out []string
	for _, s := range list {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}
