package sink

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/caarlos0/env/v11"
)

// What is said of ClickHouse's errors: nothing twice, and no advice about a pool
// where nobody answered.
func TestWordsOfErrors(t *testing.T) {
	answer := func(status int, text string) error {
		return &clickhouse.HTTPError{StatusCode: status, Err: errors.New(text)}
	}
	refused := "Code: 516. DB::Exception: x: Authentication failed. (AUTHENTICATION_FAILED) (version 26.7.2.1 (official build))"
	for _, tt := range []struct {
		err     error
		want    string
		refused bool
	}{
		{clickhouse.ErrAcquireConnTimeout, "no answer in 5s", false},
		{answer(404, "Code: 47. DB::Exception: Unknown identifier `a` in SELECT (a). (UNKNOWN_IDENTIFIER) (version 26.7.2.1)\n"), "Code: 47. DB::Exception: Unknown identifier `a` in SELECT (a). (UNKNOWN_IDENTIFIER)", false},
		{
			answer(404, "Code: 73. DB::Exception: Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT) (version 26.7.2.1). (UNKNOWN_FORMAT) (version 26.7.2.1). (UNKNOWN_FORMAT)"),
			"Code: 73. DB::Exception: Unknown format X. (UNKNOWN_FORMAT)", false,
		},
		{answer(403, refused), "Code: 516. DB::Exception: x: Authentication failed. (AUTHENTICATION_FAILED)", true},
		{&clickhouse.Exception{Code: 516, Message: "x"}, "code: 516, message: x", true},
		{answer(405, "Method Not Allowed\n"), "[HTTP 405] Method Not Allowed", false},
	} {
		err := fmt.Errorf("asking: %w", briefly(tt.err))
		if err.Error() != "asking: "+tt.want || Refused(err) != tt.refused {
			t.Errorf("%v, refused %v; want %s", err, Refused(err), tt.want)
		}
	}
}

// Who follows the log asks again where a restart of ClickHouse is behind the error,
// however it shows, and where it is not ends.
func TestAway(t *testing.T) {
	cut := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write([]byte{1}) // the rest does not come
	}))
	t.Cleanup(cut.Close)
	cfg := testConfig()
	cfg.Addr = cut.URL
	for what, err := range openReader(t, cfg).Attempts(t.Context(), Filter{}) {
		if what != nil || !Away(err) {
			t.Errorf("an answer that was cut: %v", err)
		}
	}
	status := func(code int, err error) error { return &clickhouse.HTTPError{StatusCode: code, Err: err} }
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{nil, false},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		{&net.DNSError{Err: "no such host"}, true},
		{io.ErrUnexpectedEOF, true},
		{clickhouse.ErrAcquireConnTimeout, true},
		{status(502, errors.New("Bad Gateway")), true},
		{status(503, errors.New("no server")), true},
		{status(504, errors.New("too late")), true},
		{status(500, errors.New("?")), false},
		{status(500, &clickhouse.Exception{Code: 394}), true},
		{&clickhouse.Exception{Code: 236}, true},
		{&clickhouse.Exception{Code: 210}, true},
		{status(404, &clickhouse.Exception{Code: 47}), false},
		{status(403, &clickhouse.Exception{Code: 516}), false},
		{errors.New("converting UInt64 to *string is unsupported"), false},
	} {
		if got := Away(fmt.Errorf("asking: %w", briefly(tt.err))); got != tt.want {
			t.Errorf("%v: away %v, want %v", tt.err, got, tt.want)
		}
	}
}

// A word that is misspelt is no reason to allow changes.
func TestStatementsByTheirFirstWord(t *testing.T) {
	for sql, want := range map[string]error{
		"select 1": nil, "(-- x\n WITH 1 AS a SELECT a)": nil, "": nil, "insert into t select 1": ErrReadOnly, "/* */ DROP TABLE t": ErrReadOnly, "SELEC 1": ErrNoStatement, "SHWO TABLES": ErrNoStatement,
	} {
		if err := reads(sql); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", sql, err, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	cfg, err := env.ParseAsWithOptions[Config](env.Options{Prefix: "HOOKLINE_", Environment: map[string]string{"HOOKLINE_CLICKHOUSE_PASSWORD": "pw"}})
	if err != nil {
		t.Fatal(err)
	}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	if cfg.Addr != "http://127.0.0.1:8123" || cfg.Database != "hookline" || cfg.BlockRows != 50000 || cfg.Password != "pw" {
		t.Errorf("defaults %+v", cfg)
	}
}

func TestValidateJoinsAll(t *testing.T) {
	cfg := Config{Addr: "ftp://user:canary@h", Database: "a b", Cluster: "x'", TTLDays: -1}
	err := cfg.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, name := range []string{"ADDR", "DATABASE", "CLUSTER", "TTL_DAYS", "BLOCK_ROWS", "BLOCK_BYTES", "FLUSH_INTERVAL", "INSERT_TIMEOUT", "INSERTS"} {
		if !strings.Contains(err.Error(), "HOOKLINE_CLICKHOUSE_"+name) {
			t.Errorf("nothing about %s in %v", name, err)
		}
	}
	if strings.Contains(err.Error(), "canary") {
		t.Errorf("a password in %v", err)
	}
}

func TestTarget(t *testing.T) {
	for addr, want := range map[string]target{
		"http://h:8123":      {host: "h:8123", http: true},
		"http://h":           {host: "h:8123", http: true},
		"https://h/ch":       {host: "h:8443", path: "/ch", http: true, tls: true},
		"tcp://[::1]:9000":   {host: "[::1]:9000"},
		"tcps://h":           {host: "h:9440", tls: true},
		"http://127.0.0.1/":  {host: "127.0.0.1:8123", http: true},
		"":                   {},
		"h:8123":             {},
		"http://u:canary@h":  {},
		"http://h?x=1":       {},
		"http://canary\x00h": {},
	} {
		got, err := (&Config{Addr: addr}).target()
		if got != want || (want == target{}) != (err != nil) {
			t.Errorf("%q: %+v, %v", addr, got, err)
		}
		if err != nil && strings.Contains(err.Error(), "canary") {
			t.Errorf("%q is quoted in %v", addr, err)
		}
	}
}

func TestDeclarations(t *testing.T) {
	one := declaration{spans: []span{{3, 7, 9}}, storedAt: time.UnixMilli(1234).UTC()}
	several := declaration{spans: []span{{0, 0, 0}, {3, 7, 9}, {12, 5, 1 << 40}}, storedAt: one.storedAt}
	for text, d := range map[string]declaration{"b1 7 9 1234": one, "b2 1234 0:0-0 3:7-9 12:5-1099511627776": several} {
		if d.String() != text {
			t.Errorf("%q, want %q", d.String(), text)
		}
		back, err := parseDeclaration(3, 7, text)
		if err != nil || !reflect.DeepEqual(*back, d) {
			t.Fatalf("%v, %v", back, err)
		}
	}
	if d, err := parseDeclaration(3, 8, several.String()); err == nil {
		t.Errorf("with another offset: %v", d)
	}
	for _, other := range []string{"", "member-123", "b3 1 2 3"} {
		if d, err := parseDeclaration(3, 7, other); d != nil || err != nil {
			t.Errorf("%q: %v, %v", other, d, err)
		}
	}
	for _, broken := range []string{
		"b1", "b1 7 9", "b1 7 x 3", "b1 8 9 3", "b1 7 6 3", "b1 7 9 3 4", "b1 7 9-9 3", "b2", "b2 1", "b2 x 3:7-9", "b2 1 4:7-9", "b2 1 3:7", "b2 1 3",
		"b2 1 3:7-6", "b2 1 3:7-9 3:7-9", "b2 1 3:7-9 4:-1-2", "b2 1 3:7-9 99999999999:1-2",
	} {
		if d, err := parseDeclaration(3, 7, broken); err == nil {
			t.Errorf("%q: accepted as %v", broken, d)
		}
	}
	if tok := one.token([16]byte{0xab}); tok != "ab000000000000000000000000000000/3/7-9" {
		t.Error(tok)
	}
	if tok := several.token([16]byte{0xab}); !regexp.MustCompile("^ab0{30}/[0-9a-f]{32}$").MatchString(tok) {
		t.Error(tok)
	}
	var longest declaration
	for i := range int32(maxSpans) {
		longest.spans = append(longest.spans, span{math.MaxInt32 - maxSpans + i, math.MaxInt64 - 1, math.MaxInt64})
	}
	longest.storedAt = time.UnixMilli(math.MaxInt64)
	if n := len(longest.String()); n > 4096 {
		t.Errorf("a declaration may have %d bytes, more than Kafka takes", n)
	}
}

func FuzzDeclaration(f *testing.F) {
	f.Add(int32(3), int64(7), "b1 7 9 1234")
	f.Add(int32(3), int64(7), "b2 1234 0:0-0 3:7-9 12:5-1099511627776")
	f.Fuzz(func(t *testing.T, partition int32, offset int64, text string) {
		d, err := parseDeclaration(partition, offset, text)
		if d == nil || err != nil {
			return
		}
		if s := d.of(partition); s.from != offset || s.to < offset {
			t.Fatalf("%q of offset %d: %v", text, offset, d)
		}
		back, err := parseDeclaration(partition, offset, d.String())
		if err != nil || !reflect.DeepEqual(back, d) {
			t.Fatalf("%q: %v, read again: %v, %v", text, d, back, err)
		}
	})
}

func TestClusterDDL(t *testing.T) {
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range steps {
		list, err := newDDL(&Config{Database: "db", Cluster: "c1", TTLDays: 3}).statements(m)
		if err != nil {
			t.Fatal(err)
		}
		for _, sql := range list {
			if !strings.Contains(sql, "ON CLUSTER 'c1'") || strings.Contains(sql, "non_replicated") {
				t.Errorf("not for a cluster: %s", sql)
			}
			if strings.Contains(sql, "ENGINE = ") && !strings.Contains(sql, "ENGINE = Replicated") {
				t.Errorf("not replicated: %s", sql)
			}
		}
	}
}

func TestPartOf(t *testing.T) {
	whole := []byte("0123456789")
	for _, c := range []struct {
		part   []byte
		at     int
		within bool
	}{
		{whole, 0, true}, {whole[3:5], 3, true}, {whole[9:10:10], 9, true}, {nil, 0, true}, {[]byte("34"), 0, false},
	} {
		if at, within := partOf(whole, c.part); at != c.at || within != c.within {
			t.Errorf("%q: %d, %v", c.part, at, within)
		}
	}
}
