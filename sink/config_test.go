package sink

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

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
	d := declaration{from: 7, to: 9, storedAt: time.UnixMilli(1234).UTC()}
	back, err := parseDeclaration(7, d.String())
	if err != nil || *back != d {
		t.Fatalf("%v, %v", back, err)
	}
	for _, other := range []string{"", "member-123", "b2 1 2 3"} {
		if d, err := parseDeclaration(7, other); d != nil || err != nil {
			t.Errorf("%q: %v, %v", other, d, err)
		}
	}
	for _, broken := range []string{"b1", "b1 7 9", "b1 7 x 3", "b1 8 9 3", "b1 7 6 3", "b1 7 9 3 4"} {
		if _, err := parseDeclaration(7, broken); err == nil {
			t.Errorf("%q: accepted", broken)
		}
	}
	if tok := d.token([16]byte{0xab}, 3); tok != "ab000000000000000000000000000000/3/7-9" {
		t.Error(tok)
	}
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

// benchRecords are batches of 256 attempts of about 1.2 kB.
func benchRecords(n int) []*kgo.Record {
	list := sampleAttempts(256)
	for i := range list {
		list[i].RequestHeaders = bytes.Repeat([]byte("X-Header-Name: some value\r\n"), 12)
		list[i].ResponseHeaders = bytes.Repeat([]byte("Server: nginx\r\n"), 10)
		list[i].ResponseBody = bytes.Repeat([]byte{byte('a' + i%20)}, 200)
		list[i].Envelope.Time, list[i].Envelope.ProducedAt = time.Now(), time.Now()
	}
	out := make([]*kgo.Record, n)
	for i := range out {
		out[i] = &kgo.Record{Topic: attemptsTopic, Offset: int64(i), Value: attemptlog.AppendBatch(nil, list, attemptlog.Options{})}
	}
	return out
}

func TestBlockAllocs(t *testing.T) {
	recs := benchRecords(8)
	b := newBlock(tableAttempts, newAttemptRows())
	build := func() {
		if used, bad := b.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30); used != len(recs) || bad != nil {
			t.Fatal(used, bad)
		}
		if err := b.encode(); err != nil {
			t.Fatal(err)
		}
	}
	build()
	// EncodeRawBlock converts each column's type to a string, and ch-go's columns
	// allocate a little each: by block, not by row.
	if n := testing.AllocsPerRun(20, build); n > 60 {
		t.Errorf("a block of %d rows allocates %v times", b.rows, n)
	}
	ev := &pipeline.Event{ID: "e", Type: "t", ProducedAt: time.Now()}
	e := newBlock(tableEvents, newEventRows(func(rec *kgo.Record, _ *pipeline.Position) (*pipeline.Event, error) {
		ev.Payload = rec.Value
		return ev, nil
	}, func(*pipeline.Event) bool { return true }))
	add := func() { e.build(recs, origin{}, 1<<30) }
	add()
	if n := testing.AllocsPerRun(20, add); n != 0 {
		t.Errorf("%d events allocate %v times", len(recs), n)
	}
}

func BenchmarkBlock(b *testing.B) {
	recs := benchRecords(196) // 50,176 rows
	for _, c := range []struct {
		name   string
		encode bool
	}{{"append", false}, {"append+native+lz4", true}} {
		b.Run(c.name, func(b *testing.B) {
			blk := newBlock(tableAttempts, newAttemptRows())
			rows := 0
			b.ReportAllocs()
			for b.Loop() {
				blk.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30)
				if c.encode {
					if err := blk.encode(); err != nil {
						b.Fatal(err)
					}
				}
				rows += blk.rows
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
		})
	}
}

// BenchmarkEngine inserts blocks into the embedded engine, one after another.
func BenchmarkEngine(b *testing.B) {
	cfg, r := benchEngine(b)
	if err := Migrate(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	recs := benchRecords(196)
	blk := newBlock(tableAttempts, newAttemptRows())
	rows := 0
	for b.Loop() {
		blk.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30)
		if err := blk.encode(); err != nil {
			b.Fatal(err)
		}
		if err := r.server.insert(b.Context(), blk, time.Now().String()); err != nil {
			b.Fatal(err)
		}
		rows += blk.rows
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
