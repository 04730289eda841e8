package sink

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/ch-go/proto"
)

// fakeServer speaks as much of ClickHouse's HTTP interface as the sink needs
// and keeps rows by their keys, with deduplication by token.
type fakeServer struct {
	*httptest.Server

	mu      sync.Mutex
	changed chan struct{} // closed and made anew at each change
	tokens  map[string]bool
	rows    map[string]int // key -> how often it is stored
	stored  int            // inserts that came to their end
	inserts []fakeInsert   // every block that came, stored or not
	// fault may hold, refuse or break off the n-th insert (from 0); nil: none.
	fault func(n int, in fakeInsert) fault
	down  bool // every request is answered with 500
}

type fakeInsert struct {
	table, token string
	keys         []string
	payloads     []string // of events
}

type fault struct {
	hold   <-chan struct{} // before the block is stored, the client's patience regardless
	refuse bool            // 500, nothing stored
	mute   bool            // stored, but the reply is lost
}

func newFakeServer(t *testing.T) *fakeServer {
	f := &fakeServer{changed: make(chan struct{}), tokens: map[string]bool{}, rows: map[string]int{}}
	f.Server = httptest.NewServer(f)
	t.Cleanup(f.Close)
	return f
}

func (f *fakeServer) config() Config {
	c := testConfig()
	c.Addr = f.URL
	return c
}

func testConfig() Config {
	return Config{
		Database: "hookline", User: "default", TTLDays: 90, BlockRows: 1000, BlockBytes: 1 << 20, BufferBytes: 4 << 20,
		FlushInterval: 20 * time.Millisecond, Inserts: 2, InsertTimeout: 30 * time.Second,
	}
}

var tokenIn = regexp.MustCompile(`insert_deduplication_token = '([^']*)'`)

func (f *fakeServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	down := f.down
	f.mu.Unlock()
	if down {
		http.Error(w, "Code: 210. DB::NetException: away", http.StatusInternalServerError)
		return
	}
	if sql := r.URL.Query().Get("query"); strings.HasPrefix(sql, "INSERT INTO") {
		f.insert(w, r, sql)
		return
	}
	var body strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Body.Read(buf)
		body.Write(buf[:n])
		if err != nil {
			break
		}
	}
	switch sql := body.String(); {
	case strings.HasPrefix(sql, "SELECT displayName()"):
		f.reply(w, r, []proto.InputColumn{str("displayName()", "fake"), str("version()", "26.7.1"), {Name: "revision()", Data: proto.ColUInt32{54483}}, str("timezone()", "UTC")})
	case strings.HasPrefix(sql, "SELECT version"):
		f.reply(w, r, []proto.InputColumn{{Name: "version", Data: proto.ColUInt32{1}}})
	case strings.HasPrefix(sql, "SELECT arrayStringConcat(groupArray(name)"):
		steps, _ := migrations() // the program's own
		f.reply(w, r, []proto.InputColumn{str("names", strings.Join(objects(steps), " "))})
	case strings.HasPrefix(sql, "SELECT engine_full"):
		f.reply(w, r, []proto.InputColumn{str("engine_full", "MergeTree TTL toDateTime(started_at) + toIntervalDay(90) TTL toDateTime(stored_at) + toIntervalDay(97) TTL toDateTime(minute) + toIntervalDay(90)")})
	}
}

func str(name, v string) proto.InputColumn {
	c := new(proto.ColStr)
	c.Append(v)
	return proto.InputColumn{Name: name, Data: c}
}

func (f *fakeServer) reply(w http.ResponseWriter, r *http.Request, cols []proto.InputColumn) {
	revision, err := strconv.Atoi(r.URL.Query().Get("client_protocol_version"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	var b proto.Buffer
	if err := (proto.Block{Columns: len(cols), Rows: 1, Info: proto.BlockInfo{BucketNum: -1}}).EncodeBlock(&b, revision, cols); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(b.Buf)
}

func (f *fakeServer) insert(w http.ResponseWriter, r *http.Request, sql string) {
	in, err := parseInsert(r, sql)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	f.mu.Lock()
	n := len(f.inserts)
	f.inserts = append(f.inserts, in)
	var fl fault
	if f.fault != nil {
		fl = f.fault(n, in)
	}
	f.notify()
	f.mu.Unlock()
	if fl.hold != nil {
		<-fl.hold
	}
	if fl.refuse {
		http.Error(w, "Code: 241. DB::Exception: Memory limit exceeded", http.StatusInternalServerError)
		return
	}
	f.store(in)
	if fl.mute {
		panic(http.ErrAbortHandler)
	}
}

func (f *fakeServer) store(in fakeInsert) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stored++
	if !f.tokens[in.token] {
		f.tokens[in.token] = true
		for _, k := range in.keys {
			f.rows[k]++
		}
	}
	f.notify()
}

func (f *fakeServer) insertsStored() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stored
}

func (f *fakeServer) setDown(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

// notify needs mu.
func (f *fakeServer) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

func parseInsert(r *http.Request, sql string) (fakeInsert, error) {
	in := fakeInsert{table: strings.Fields(sql)[2]}
	m := tokenIn.FindStringSubmatch(sql)
	if m == nil || !strings.Contains(sql, "SETTINGS async_insert = 0") || !strings.HasSuffix(sql, " FORMAT Native") || r.URL.Query().Get("decompress") != "1" {
		return in, fmt.Errorf("not an insert of the sink: %s", sql)
	}
	in.token = m[1]
	rd := proto.NewReader(r.Body)
	rd.EnableCompression()
	var block proto.Block
	var cols proto.Results
	if err := block.DecodeBlock(rd, 0, cols.Auto()); err != nil {
		return in, err
	}
	by := map[string]any{}
	for _, c := range cols {
		data := c.Data
		if a, ok := data.(*proto.ColAuto); ok {
			by[c.Name] = a.Data
			continue
		}
		by[c.Name] = data
	}
	for i := range block.Rows {
		if in.table == "hookline.attempts" {
			in.keys = append(in.keys, fmt.Sprintf("a/%d/%d/%d", by["log_partition"].(*proto.ColInt32).Row(i), by["log_offset"].(*proto.ColInt64).Row(i), by["log_index"].(*proto.ColUInt32).Row(i)))
			continue
		}
		in.keys = append(in.keys, fmt.Sprintf("e/%d/%d", by["source_partition"].(*proto.ColInt32).Row(i), by["source_offset"].(*proto.ColInt64).Row(i)))
		raw, from, length := by["raw"].(*proto.ColStr).Row(i), by["payload_from"].(*proto.ColUInt32).Row(i), by["payload_length"].(*proto.ColUInt32).Row(i)
		payload := by["payload_apart"].(*proto.ColStr).Row(i) // as the column payload does
		if payload == "" {
			payload = raw[from : from+length]
		}
		in.payloads = append(in.payloads, payload)
	}
	return in, nil
}

// until waits for ok to hold, which is asked with mu held, at each change.
func (f *fakeServer) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for {
		f.mu.Lock()
		done, changed := ok(), f.changed
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: %d rows, %d inserts", what, len(f.rows), len(f.inserts))
		}
	}
}

// once fails where a row is missing or stored more than once.
func (f *fakeServer) once(t *testing.T, want int) {
	t.Helper()
	f.until(t, fmt.Sprint(want, " rows"), func() bool { return len(f.rows) >= want })
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.rows) != want {
		t.Errorf("%d rows, want %d", len(f.rows), want)
	}
	for k, n := range f.rows {
		if n != 1 {
			t.Errorf("row %s is stored %d times", k, n)
		}
	}
	blocks := map[string]string{}
	for _, in := range f.inserts {
		keys := fmt.Sprint(in.keys)
		if before, seen := blocks[in.token]; seen && before != keys {
			t.Errorf("token %s was used for two blocks:\n%s\n%s", in.token, before, keys)
		}
		blocks[in.token] = keys
	}
}
