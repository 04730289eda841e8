package chhttp

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/sink/embedded"
	"github.com/hookline/hookline/sink/embedded/chdb"
)

// The engine of this process: there can be only one. Nil without a library.
var (
	engine   *Server
	engineIs error // why it is nil
)

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "chhttp-")
	if err != nil {
		panic(err)
	}
	engine, engineIs = startEngine(dir)
	code := m.Run()
	if engine != nil {
		engine.Close()
	}
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

func startEngine(dir string) (*Server, error) {
	path, err := embedded.FindLibrary("")
	if err != nil {
		return nil, err
	}
	lib, err := chdb.Open(path)
	if err != nil {
		return nil, err
	}
	return New(lib, Config{DataDir: filepath.Join(dir, "data"), SpoolDir: dir, MaxHeldBytes: 1 << 20, MaxInsertBytes: 64 << 20})
}

// client talks to the engine over HTTP, in a database of its own.
type client struct {
	t      *testing.T
	url    string
	db     string
	server *httptest.Server
}

func newClient(t *testing.T) *client {
	t.Helper()
	if engine == nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the ClickHouse engine is needed under CI=true: %v", engineIs)
		}
		t.Skipf("no ClickHouse engine: %v", engineIs)
	}
	c := &client{t: t, db: "t" + strings.ToLower(strings.NewReplacer("/", "_", " ", "_").Replace(t.Name()))}
	c.listen()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		c.server.Close()
	})
	c.must("CREATE DATABASE `" + c.db + "`")
	return c
}

func (c *client) listen() {
	c.server = httptest.NewServer(engine)
	c.url = c.server.URL
}

// finish waits until the requests whose client has left are done with.
func (c *client) finish() {
	http.DefaultClient.CloseIdleConnections()
	c.server.Close()
	c.listen()
}

// post sends query as the body; more holds URL parameters.
func (c *client) post(body string, more ...string) (status int, header http.Header, reply string) {
	c.t.Helper()
	values := url.Values{}
	if !strings.HasPrefix(body, "CREATE DATABASE") {
		values.Set("database", c.db)
	}
	for i := 0; i < len(more); i += 2 {
		values.Set(more[i], more[i+1])
	}
	resp, err := http.Post(c.url+"/?"+values.Encode(), "text/plain", strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (c *client) must(body string, more ...string) string {
	c.t.Helper()
	status, _, reply := c.post(body, more...)
	if status != http.StatusOK {
		c.t.Fatalf("%.200s: status %d: %s", body, status, reply)
	}
	return reply
}

func (c *client) wants(query, want string, more ...string) {
	c.t.Helper()
	if got := c.must(query, more...); got != want {
		c.t.Errorf("%s = %q, want %q", query, got, want)
	}
}

func TestPing(t *testing.T) {
	c := newClient(t)
	for _, path := range []string{"/ping", "/", "/replicas_status"} {
		resp, err := http.Get(c.url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK || string(body) != "Ok.\n" {
			t.Errorf("GET %s = %d %q", path, resp.StatusCode, body)
		}
	}
}

func TestPlainQueries(t *testing.T) {
	c := newClient(t)
	c.wants("SELECT 1", "1\n")
	c.wants("", "1\n", "query", "SELECT 1")
	c.wants("SELECT number FROM numbers(2) FORMAT JSONEachRow", "{\"number\":0}\n{\"number\":1}\n")
	c.wants("SELECT 1 AS a", "\"a\"\n1\n", "default_format", "CSVWithNames")
	c.wants("SELECT {a:UInt8} + 1, {s:String}", "6\ta\\tb\n", "param_a", "5", "param_s", `a\tb`)
	c.wants("SELECT currentDatabase()", c.db+"\n")
	c.wants("SELECT getSetting('max_threads')", "1\n", "max_threads", "1")
	if got := c.must("SELECT getSetting('max_threads')"); got == "1\n" && strings.TrimSpace(c.must("SELECT getSetting('max_block_size')", "max_block_size", "77")) != "77" {
		t.Error("settings of the URL do not arrive")
	}
	c.wants("SELECT getSetting('max_block_size') = 77", "0\n")
	if got := c.must("SELECT number FROM numbers(100000) FORMAT JSON"); strings.Count(got, `"meta"`) != 1 {
		t.Error("JSON of several pieces is not one document")
	}
	if got := c.must("SELECT number FROM numbers(100000) FORMAT TSVWithNames"); strings.Count(got, "number") != 1 {
		t.Error("TSVWithNames has several headers")
	}
}

func TestInsertForms(t *testing.T) {
	c := newClient(t)
	c.must("CREATE TABLE t (a UInt64, s String DEFAULT 'none') ENGINE = MergeTree ORDER BY a")
	c.must("INSERT INTO t FORMAT JSONEachRow\n{\"a\":1,\"s\":\"x\"}\n\n{\"a\":2,\"s\":\"blank line above\"}")
	c.must("{\"a\":3}\n\n{\"a\":4}\n", "query", "INSERT INTO t FORMAT JSONEachRow")
	c.must("INSERT INTO t VALUES (5, 'a;b'), (6, concat('b', 'c'));")
	c.must("(7, 'x')", "query", "INSERT INTO t VALUES")
	c.must("8\n9\n", "query", "INSERT INTO t (a) SETTINGS max_insert_block_size = 1 FORMAT CSV")
	c.must("INSERT INTO {t:Identifier} (a) FORMAT TSV\n10\n", "param_t", "t")
	c.must("INSERT INTO t SELECT number + 11, 's' FROM numbers(2)")
	c.must("INSERT INTO t FORMAT JSONEachRow")
	c.wants("SELECT groupArray(a) FROM (SELECT a FROM t ORDER BY a)", "[1,2,3,4,5,6,7,8,9,10,11,12]\n")
	c.wants("SELECT s FROM t WHERE a IN (3, 5, 6) ORDER BY a", "none\na;b\nbc\n")
	left, _ := filepath.Glob(filepath.Join(engine.cfg.SpoolDir, "insert-*"))
	if len(left) > 0 {
		t.Errorf("files of finished INSERTs are left: %v", left)
	}
}

func TestErrors(t *testing.T) {
	c := newClient(t)
	c.must("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
	for _, tc := range []struct {
		body   string
		more   []string
		status int
		code   string
	}{
		{"SELECT * FROM nope", nil, 404, "60"},
		{"SELECT 1 +", nil, 400, "62"},
		{"SELECT 1; SELECT 2", nil, 400, "62"},
		{"SELECT 1", []string{"nosuchsetting", "1"}, 404, "115"},
		{"SELECT 1", []string{"database", "nope"}, 404, "81"},
		{"SELECT 1", []string{"session_id", "x"}, 501, "48"},
		{"SELECT 1", []string{"a b'", "x"}, 400, "36"},
		{"INSERT INTO nope FORMAT TSV\n1", nil, 404, "60"},
		{"INSERT INTO t FORMAT JSONEachRow {\"a\":\"zz\"}", nil, 400, "27"},
		{"INSERT INTO t FORMAT Nope\n1", nil, 404, "73"},
		{"SELECT number FROM numbers(1000000) FORMAT JSON", nil, 413, "396"},
		{"SELECT number FROM numbers(1000000)", []string{"wait_end_of_query", "1"}, 413, "396"},
		{"SELECT sleepEachRow(1) FROM numbers(100)", []string{"max_execution_time", "0.2", "max_block_size", "1"}, 408, "159"},
		{"SELECT groupArray(number) FROM numbers(100000000)", []string{"max_memory_usage", "100000000"}, 500, "241"},
	} {
		status, header, reply := c.post(tc.body, tc.more...)
		if status != tc.status || header.Get("X-ClickHouse-Exception-Code") != tc.code || !strings.HasPrefix(reply, "Code: "+tc.code+". DB::Exception: ") {
			t.Errorf("%s %v: status %d, code %q, %.200q; want %d and %s", tc.body, tc.more, status, header.Get("X-ClickHouse-Exception-Code"), reply, tc.status, tc.code)
		}
	}
	c.wants("SELECT count() FROM t", "0\n")
}

func TestReadOnlyByGet(t *testing.T) {
	c := newClient(t)
	for _, query := range []string{"CREATE TABLE x (a Int8) ENGINE = Memory", "INSERT INTO t FORMAT TSV"} {
		resp, err := http.Get(c.url + "/?database=" + c.db + "&query=" + url.QueryEscape(query))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("X-ClickHouse-Exception-Code"); got != "164" {
			t.Errorf("GET %s: code %q, want 164", query, got)
		}
	}
}

// A body that ends before its announced length must not be taken for an INSERT.
func TestBrokenBodyInsertsNothing(t *testing.T) {
	c := newClient(t)
	c.must("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	body := io.MultiReader(strings.NewReader("INSERT INTO t FORMAT TSV\n1\n2\n"), brokenReader{})
	resp, err := http.Post(c.url+"/?database="+c.db, "text/plain", body)
	if err == nil {
		_ = resp.Body.Close()
		t.Fatalf("status %d, want the client's own error", resp.StatusCode)
	}
	c.finish()
	c.wants("SELECT count() FROM t", "0\n")
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, fmt.Errorf("broken") }

func TestContentEncodings(t *testing.T) {
	c := newClient(t)
	var zipped bytes.Buffer
	zw := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(zw, "SELECT 42")
	_ = zw.Close()
	for _, encoding := range []string{"gzip", "br", "zstd", "deflate"} {
		req, _ := http.NewRequest(http.MethodPost, c.url, bytes.NewReader(zipped.Bytes()))
		req.Header.Set("Content-Encoding", "gzip")
		req.Header.Set("Accept-Encoding", encoding)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, done, err := decodeBody(resp.Body, resp.Header.Get("Content-Encoding"))
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(body)
		done()
		_ = resp.Body.Close()
		if err != nil || string(text) != "42\n" || resp.Header.Get("Content-Encoding") != encoding {
			t.Errorf("%s: %q, %v, Content-Encoding %q", encoding, text, err, resp.Header.Get("Content-Encoding"))
		}
	}
}

func TestSlowQueryDoesNotBlockInserts(t *testing.T) {
	c := newClient(t)
	c.must("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/?max_block_size=1", strings.NewReader("SELECT sleepEachRow(0.1) FROM numbers(600)"))
	resp, err := http.DefaultClient.Do(req) // its first row is there
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	var inserts sync.WaitGroup
	for i := range 4 {
		inserts.Go(func() {
			for j := range 5 {
				c.must(fmt.Sprintf("INSERT INTO t FORMAT TSV\n%d\n", i*10+j))
			}
		})
	}
	inserts.Wait()
	if engine.UnderWay() == 0 {
		t.Error("the slow query ended before the inserts: nothing is shown")
	}
	c.wants("SELECT count(), uniqExact(a) FROM t", "20\t20\n")
	cancel()
	c.finish()
}

// A query whose client has left must end before its first row.
func TestAbandonedQueryEnds(t *testing.T) {
	c := newClient(t)
	ctx, cancel := context.WithCancel(context.Background())
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader("SELECT count() FROM numbers(1000000000000) WHERE NOT ignore(sipHash64(number))"))
	ended := make(chan error, 1)
	go func() {
		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			_ = resp.Body.Close()
		}
		ended <- err
	}()
	const running = "SELECT count() FROM system.processes WHERE query LIKE 'SELECT count() FROM numbers(1000000000000)%'"
	for c.must(running) != "1\n" { // until it has begun
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("the query has a result")
	}
	began := time.Now()
	c.finish()
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the query went on for %s", took)
	}
	c.wants(running, "0\n")
}

func TestBoundOnRequests(t *testing.T) {
	c := newClient(t)
	small := &Server{
		cfg: engine.cfg, lib: engine.lib, base: engine.base, slots: make(chan struct{}, 1),
		version: engine.version, timezone: engine.timezone, name: engine.name, context: engine.context,
	}
	small.cfg.QueueTimeout = 20 * time.Millisecond
	server := httptest.NewServer(small)
	defer server.Close()
	small.slots <- struct{}{}
	bounded := &client{t: t, url: server.URL, db: c.db}
	status, header, _ := bounded.post("SELECT 1")
	if status != http.StatusServiceUnavailable || header.Get("X-ClickHouse-Exception-Code") != "202" {
		t.Errorf("status %d, code %q, want 503 and 202", status, header.Get("X-ClickHouse-Exception-Code"))
	}
	<-small.slots
	bounded.wants("SELECT 1", "1\n")
}
