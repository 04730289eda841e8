package sink

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"regexp"
	"time"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// Config of the sink and the reader. The tags are relative to the prefix
// HOOKLINE_.
type Config struct {
	// Addr is where ClickHouse is: http://host:8123 (the default scheme and the path
	// tested end to end), https://, or tcp://host:9000 and tcps:// for the native
	// protocol.
	Addr string `env:"CLICKHOUSE_ADDR" envDefault:"http://127.0.0.1:8123"`
	// CAFile has the PEM certificates to trust of an https or tcps server; empty: the system's.
	CAFile string `env:"CLICKHOUSE_CA_FILE"`
	// Database is the one with hookline's tables; created where it is missing.
	Database string `env:"CLICKHOUSE_DATABASE" envDefault:"hookline"`
	// User is the ClickHouse user.
	User string `env:"CLICKHOUSE_USER" envDefault:"default"`
	// Password is the ClickHouse user's; never logged.
	Password kafkax.Password `env:"CLICKHOUSE_PASSWORD"`
	// TTLDays is the number of days after which attempts are removed; 0: never. Events stay a week
	// longer, since deliveries may wait.
	TTLDays int `env:"CLICKHOUSE_TTL_DAYS" envDefault:"90"`
	// Cluster is the ClickHouse cluster's name: tables are made ON CLUSTER, with
	// ReplicatedMergeTree; empty: a single server.
	Cluster string `env:"CLICKHOUSE_CLUSTER"`
	// SkipMigrations is for a user who may only insert and read: the schema is
	// then checked and not changed; another user makes it.
	SkipMigrations bool `env:"CLICKHOUSE_SKIP_MIGRATIONS"`
	// BlockRows is the number of rows with which a block is inserted without
	// waiting any longer.
	BlockRows int `env:"CLICKHOUSE_BLOCK_ROWS" envDefault:"50000"`
	// BlockBytes is the size of Kafka records, and of their rows, with which a
	// block is inserted without waiting any longer.
	BlockBytes kafkax.Bytes `env:"CLICKHOUSE_BLOCK_BYTES" envDefault:"16MiB"`
	// FlushInterval is the least time between two inserts of one topic that
	// are not full. It grows with the topics of a process, at most 16 such
	// inserts each interval, and where inserts take more than a fifth of the time: up
	// to five times. Those of all topics are spread over it. Once the buffer fills up,
	// a process without the roles dispatcher and router inserts what has half of its share
	// of it, and is worth an insert, at once.
	FlushInterval time.Duration `env:"CLICKHOUSE_FLUSH_INTERVAL" envDefault:"1s"`
	// Inserts is how many are under way at once. Each may hold about three times
	// CLICKHOUSE_BLOCK_BYTES.
	Inserts int `env:"CLICKHOUSE_INSERTS" envDefault:"2"`
	// BufferBytes is the size of fetched records that may wait to be inserted, for
	// the whole process; beyond it fetching pauses. At least twice
	// CLICKHOUSE_BLOCK_BYTES.
	BufferBytes kafkax.Bytes `env:"CLICKHOUSE_BUFFER_BYTES" envDefault:"64MiB"`
	// InsertTimeout is how long an insert may take before it is given up, and
	// repeated.
	InsertTimeout time.Duration `env:"CLICKHOUSE_INSERT_TIMEOUT" envDefault:"60s"`
	// LogAllEvents stores every event, those without takers too.
	LogAllEvents bool `env:"LOG_ALL_EVENTS"`
	// WebhookCalled produces a webhook_called record to the topic webhook_called
	// for each attempt of a goflow event, keyed by the event's id.
	WebhookCalled bool `env:"WEBHOOK_CALLED"`
}

var identifier = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,63}$`)

// clusterName also allows what operators call their clusters, and macros.
var clusterName = regexp.MustCompile(`^[A-Za-z0-9_.{}-]{1,64}$`)

// Validate returns every error at once, joined; nil where there is none.
func (c *Config) Validate() error {
	var errs []error
	bad := func(name, format string, args ...any) {
		errs = append(errs, fmt.Errorf("reading HOOKLINE_%s: %s", name, fmt.Sprintf(format, args...)))
	}
	if _, err := c.target(); err != nil {
		errs = append(errs, err)
	}
	if t, err := c.target(); err == nil && c.CAFile != "" && !t.tls {
		bad("CLICKHOUSE_CA_FILE", "it is of no use without TLS (write https:// or tcps:// in CLICKHOUSE_ADDR)")
	}
	if !identifier.MatchString(c.Database) {
		bad("CLICKHOUSE_DATABASE", "%q is not a name ([A-Za-z_][A-Za-z0-9_]*, up to 64)", c.Database)
	}
	if c.Cluster != "" && !clusterName.MatchString(c.Cluster) {
		bad("CLICKHOUSE_CLUSTER", "%q is not a cluster's name", c.Cluster)
	}
	if c.TTLDays < 0 || c.TTLDays > 36500 {
		bad("CLICKHOUSE_TTL_DAYS", "%d is not within 0..36500", c.TTLDays)
	}
	if c.BlockRows < 1 || c.BlockRows > 1_000_000 {
		bad("CLICKHOUSE_BLOCK_ROWS", "%d is not within 1..1000000", c.BlockRows)
	}
	if c.BlockBytes < 64<<10 || c.BlockBytes > 256<<20 {
		bad("CLICKHOUSE_BLOCK_BYTES", "%v is not within 64KiB..256MiB", c.BlockBytes)
	}
	if c.BufferBytes < 2*c.BlockBytes {
		bad("CLICKHOUSE_BUFFER_BYTES", "%v is less than twice CLICKHOUSE_BLOCK_BYTES (%v)", c.BufferBytes, c.BlockBytes)
	}
	if c.FlushInterval < time.Millisecond || c.FlushInterval > time.Minute {
		bad("CLICKHOUSE_FLUSH_INTERVAL", "%v is not within 1ms..1m", c.FlushInterval)
	}
	if c.InsertTimeout < time.Second || c.InsertTimeout > 10*time.Minute {
		bad("CLICKHOUSE_INSERT_TIMEOUT", "%v is not within 1s..10m", c.InsertTimeout)
	}
	if c.Inserts < 1 || c.Inserts > 64 {
		bad("CLICKHOUSE_INSERTS", "%d is not within 1..64", c.Inserts)
	}
	return errors.Join(errs...)
}

// LogValue leaves out the password, whoever logs a Config.
func (c Config) LogValue() slog.Value {
	return slog.GroupValue(slog.String("addr", c.Addr), slog.String("database", c.Database), slog.String("user", c.User))
}

// String leaves out the password.
func (c Config) String() string { return c.Addr + " database " + c.Database }

// GoString leaves out the password.
func (c Config) GoString() string { return "sink.Config{" + c.String() + "}" }

// target is where ClickHouse is, taken apart.
type target struct {
	host string // host:port
	path string // of the HTTP interface behind a proxy; empty: /
	http bool   // else native
	tls  bool
}

// url of the HTTP interface.
func (t target) url() *url.URL {
	scheme := "http"
	if t.tls {
		scheme = "https"
	}
	return &url.URL{Scheme: scheme, Host: t.host, Path: t.path + "/"}
}

func (c *Config) target() (target, error) {
	fail := func(why string) (target, error) {
		return target{}, fmt.Errorf("reading HOOKLINE_CLICKHOUSE_ADDR: %s (write http://host:8123 or tcp://host:9000)", why)
	}
	u, err := url.Parse(c.Addr)
	if err != nil {
		return fail("it is not a URL") // the error would quote credentials
	}
	ports := map[string]string{"http": "8123", "https": "8443", "tcp": "9000", "tcps": "9440"}
	port, known := ports[u.Scheme]
	switch {
	case !known:
		return fail(fmt.Sprintf("scheme %q is not known", u.Scheme))
	case u.Hostname() == "":
		return fail("no host")
	case u.User != nil:
		return fail("credentials do not belong here: use CLICKHOUSE_USER and CLICKHOUSE_PASSWORD")
	case u.RawQuery != "" || u.Fragment != "":
		return fail("query and fragment are not allowed")
	}
	if p := u.Port(); p != "" {
		port = p
	}
	t := target{host: net.JoinHostPort(u.Hostname(), port), http: u.Scheme == "http" || u.Scheme == "https", tls: u.Scheme == "https" || u.Scheme == "tcps"}
	if u.Path != "/" {
		t.path = u.Path
	}
	return t, nil
}
