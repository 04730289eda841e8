package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

func engineConfig(t *testing.T) (Config, *testkit.EngineProc) {
	t.Helper()
	e := testkit.Engine(t)
	cfg := testConfig()
	cfg.Addr, cfg.TTLDays = e.URL(), 0 // the samples' times stand still
	return cfg, e
}

func benchEngine(b *testing.B) (Config, *Reader) {
	b.Helper()
	cfg := testConfig()
	cfg.Addr, cfg.TTLDays = testkit.Engine(b).URL(), 0
	r, err := OpenReader(cfg)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { r.Close() })
	return cfg, r
}

func openReader(t *testing.T, cfg Config) *Reader {
	t.Helper()
	r, err := OpenReader(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// ask gives the result of a statement, TabSeparated.
func ask(t *testing.T, r *Reader, sql string) string {
	t.Helper()
	out, err := r.Execute(t.Context(), sql, "TabSeparated")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	text, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

func expect(t *testing.T, r *Reader, sql, want string) {
	t.Helper()
	if got := ask(t, r, sql); got != want {
		t.Errorf("%s\ngot  %q\nwant %q", sql, got, want)
	}
}

func TestEngineMigrate(t *testing.T) {
	cfg, _ := engineConfig(t)
	cfg.TTLDays, cfg.SkipMigrations = 90, true
	if err := Migrate(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "schema_migrations") {
		t.Errorf("skipped migrations of nothing: %v", err)
	}
	cfg.SkipMigrations = false
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := Migrate(t.Context(), cfg); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r := openReader(t, cfg)
	steps, err := migrations()
	if err != nil {
		t.Fatal(err)
	}
	expect(t, r, "SELECT count(), max(version) FROM schema_migrations", fmt.Sprintf("%d\t%d", len(steps), len(steps)))
	ask(t, r, "INSERT INTO schema_migrations VALUES (9000, 'newer', now())") // a rollback finds it
	ttl := "SELECT arraySort(groupArray(extract(engine_full, 'toIntervalDay\\\\((\\\\d+)\\\\)'))) FROM system.tables WHERE database = currentDatabase() AND engine_full LIKE '%MergeTree%' AND name != 'schema_migrations'"
	expect(t, r, ttl, "['90','90','90','97']")
	cfg.SkipMigrations = true
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Error(err)
	}
	cfg.SkipMigrations = false
	for days, want := range map[int]string{30: "['30','30','30','37']", 0: "['','','','']"} {
		cfg.TTLDays = days
		for range 2 {
			if err := Migrate(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
		}
		expect(t, r, ttl, want)
	}
	expect(t, r, "SELECT countIf(engine_full LIKE '% min_bytes_for_wide_part = 67108864%') FROM system.tables WHERE database = currentDatabase()", "2")
	_, err = r.Query(t.Context(), "SELECT * FROM nowhere", "JSON")
	if err == nil || Unreachable(err) || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("unknown table: %v", err)
	}
	// What the sink sends must be what the tables have.
	for table, f := range map[string]fill{tableAttempts: newAttemptRows(), tableEvents: newEventRows(nil, nil)} {
		var names []string
		for _, c := range f.columns() {
			names = append(names, c.name)
		}
		got := strings.Split(ask(t, r, "SELECT name FROM system.columns WHERE database = currentDatabase() AND table = '"+table+"' AND default_kind = '' ORDER BY position"), "\n")
		if !reflect.DeepEqual(got, names) {
			t.Errorf("columns of %s:\n%s\nthe sink's:\n%s", table, got, names)
		}
	}
}

// TestEngineRepeatedBlock: over three table partitions, in the rollup too, by
// either way of inserting.
func TestEngineRepeatedBlock(t *testing.T) {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(&cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	list := sampleAttempts(300)
	for i := range list {
		list[i].StartedAt = list[i].StartedAt.AddDate(0, 0, -7*(i%3))
	}
	rec := &kgo.Record{Topic: attemptsTopic, Value: attemptlog.AppendBatch(nil, list, attemptlog.Options{})}
	b := newBlock(tableAttempts, newAttemptRows())
	b.build([]*kgo.Record{rec}, origin{storedAt: time.Now()}, 1<<30)
	if err := b.encode(); err != nil {
		t.Fatal(err)
	}
	for _, token := range []string{"x", "y", "x", "x", "y"} {
		if err := s.insert(t.Context(), b, token); err != nil {
			t.Fatal(err)
		}
	}
	r := openReader(t, cfg)
	expect(t, r, "SELECT count(), uniqExact(toMonday(started_at)) FROM attempts", "600\t3")
	expect(t, r, "SELECT sum(attempts), sum(successes) FROM subscription_stats_1m", "600\t600")
	expect(t, r, "SELECT round(quantilesTDigestMerge(0.5, 0.9, 0.99)(latency)[1], 4) FROM subscription_stats_1m", "0.001")
	for range 2 {
		sql := "INSERT INTO " + cfg.Database + ".attempts " + b.names + " SETTINGS " + insertSettings + ", insert_deduplication_token = 'z'"
		if err := insertRows(t.Context(), s.conn, b, sql); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, r, "SELECT count() FROM attempts", "900")
	expect(t, r, "SELECT count() FROM (SELECT DISTINCT * FROM attempts)", "300") // both ways store the same values
}

// TestEngineRollupHeals: a process or a server that ends between the table and
// its rollup leaves the rollup behind; the repeated block mends it.
func TestEngineRollupHeals(t *testing.T) {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(&cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	r := openReader(t, cfg)
	b := newBlock(tableAttempts, newAttemptRows())
	b.build(benchRecords(100), origin{storedAt: time.Now()}, 1<<30) // some 30 MB, many frames
	if err := b.encode(); err != nil {
		t.Fatal(err)
	}
	ask(t, r, "DETACH TABLE subscription_stats_1m_mv")
	if err := s.insert(t.Context(), b, "x"); err != nil {
		t.Fatal(err)
	}
	expect(t, r, "SELECT (SELECT count() FROM attempts), (SELECT sum(attempts) FROM subscription_stats_1m)", "25600\t0")
	ask(t, r, "ATTACH TABLE subscription_stats_1m_mv")
	for range 2 {
		if err := s.insert(t.Context(), b, "x"); err != nil {
			t.Fatal(err)
		}
		expect(t, r, "SELECT (SELECT count() FROM attempts), (SELECT sum(attempts) FROM subscription_stats_1m)", "25600\t25600")
	}
}

// TestEngineNativeQuery: the server formats rows for a protocol without formats.
// The engine has HTTP only; the statement is the same.
func TestEngineNativeQuery(t *testing.T) {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, cfg)
	r.target.http = false
	for format, want := range map[string]string{
		"JSONEachRow":  "{\"a\":0,\"b\":\"x\\ty\"}\n{\"a\":1,\"b\":\"x\\ty\"}\n",
		"CSV":          "0,\"x\ty\"\n1,\"x\ty\"\n",
		"TabSeparated": "0\tx\\ty\n1\tx\\ty\n",
	} {
		out, err := r.Query(t.Context(), "SELECT toUInt8(number) AS a, 'x\ty' AS b FROM numbers(2) ORDER BY a -- why\n;", format)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(iotest.OneByteReader(out))
		if err != nil || string(text) != want {
			t.Errorf("%s: %q, %v; want %q", format, text, err, want)
		}
		out.Close()
	}
	if _, err := r.Query(t.Context(), "SELECT 1", "PrettyCompact"); err == nil || !strings.Contains(err.Error(), "http://") {
		t.Errorf("PrettyCompact over tcp: %v", err)
	}
}

// TestEngineQueryOnlyReads: what would change anything is refused, and nothing
// has changed; Execute does it.
func TestEngineQueryOnlyReads(t *testing.T) {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, cfg)
	ask(t, r, "CREATE TABLE mine (n UInt8) ENGINE = MergeTree ORDER BY n")
	for _, sql := range []string{
		"INSERT INTO mine VALUES (1)", "INSERT INTO mine SELECT 1", "insert into mine format TSV\n1\n", "ALTER TABLE mine DELETE WHERE 1",
		"ALTER TABLE mine ADD COLUMN m UInt8", "DELETE FROM mine WHERE 1", "DROP TABLE mine", "TRUNCATE TABLE mine", "RENAME TABLE mine TO yours",
		"CREATE TABLE yours (n UInt8) ENGINE = Memory", "CREATE VIEW yours AS SELECT 1", "CREATE DATABASE yours", "DROP DATABASE " + cfg.Database,
		"OPTIMIZE TABLE mine FINAL", "SYSTEM STOP MERGES", "SYSTEM FLUSH LOGS", "DETACH TABLE mine", "CREATE USER you", "KILL QUERY WHERE 1", "( /* */ -- x\n system reload config",
		"BACKUP TABLE mine TO Null",
		"SELECT 1 SETTINGS readonly = 0", "SET readonly = 0", "/* a remark */ DROP TABLE mine", "WITH 1 AS one INSERT INTO mine SELECT one",
	} {
		out, err := r.Query(t.Context(), sql, "TabSeparated")
		if err == nil {
			out.Close()
		}
		if !errors.Is(err, ErrReadOnly) {
			t.Errorf("%s: %v", sql, err)
		}
	}
	expect(t, r, "SELECT count() FROM mine", "0")
	expect(t, r, "SELECT groupArray(name) FROM system.columns WHERE database = currentDatabase() AND table = 'mine'", "['n']")
	expect(t, r, "SELECT count() FROM system.tables WHERE name = 'yours'", "0")
	for _, sql := range []string{
		"SELECT count() FROM attempts SETTINGS max_threads = 1", "SHOW TABLES", "DESCRIBE TABLE events", "EXPLAIN SELECT 1", "EXISTS TABLE mine",
		"WITH 1 AS one SELECT one FORMAT CSV", "(SELECT 1) UNION ALL (SELECT 2)",
		"-- DROP\n/* ALTER\n */ select 'INSERT'", "FROM numbers(1) SELECT number",
	} {
		out, err := r.Query(t.Context(), sql, "PrettyCompactNoEscapes")
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		out.Close()
	}
	ask(t, r, "INSERT INTO mine VALUES (1)")
	expect(t, r, "SELECT count() FROM mine", "1")
	ask(t, r, "DROP TABLE mine")
	r.target.http = false
	if _, err := r.Execute(t.Context(), "SELECT 1", "CSV"); err == nil || !strings.Contains(err.Error(), "http://") {
		t.Errorf("over tcp: %v", err)
	}
}

// TestEngineChain goes from Kafka to questions, with the engine killed in between.
func TestEngineChain(t *testing.T) {
	w := newWorld(t)
	cfg, engine := engineConfig(t)
	here := func(c *Config, _ *Deps) { c.Addr, c.TTLDays = cfg.Addr, 0 }
	s := w.start(here)
	r := openReader(t, cfg)
	for i := range 20 {
		w.attempts(50)
		w.produce(eventsTopic, fmt.Appendf(nil, "t:{\"n\":%d}", i))
		if i == 10 {
			w.committedPast(0)
			engine.Kill9()
			engine.Start()
		}
	}
	w.committed(20)
	w.waitCommitted(eventsTopic, 20)
	expect(t, r, "SELECT count(), uniqExact(log_offset, log_index) FROM attempts", "1000\t1000")
	expect(t, r, "SELECT count(), uniqExact(source_offset), any(headers['h']) FROM events", "20\t20\tv")
	expect(t, r, "SELECT sum(attempts) FROM subscription_stats_1m", "1000")
	expect(t, r, "SELECT count(), sum(attempts) FROM deliveries", "50\t1000")
	expect(t, r, "SELECT payload FROM events WHERE source_offset = 7", `{"n":7}`)
	s.stop()

	var at []pipeline.Position
	n := 0
	for row, err := range r.Attempts(t.Context(), Filter{Delivery: "d7"}) {
		if err != nil {
			t.Fatal(err)
		}
		n++
		at = append(at, row.Envelope.Source)
	}
	if n != 20 {
		t.Errorf("%d attempts of d7, want 20", n)
	}
	if events, err := r.Events(t.Context(), at); err != nil || len(events) != 0 {
		t.Errorf("events of another topic id: %d, %v", len(events), err)
	}
	md, err := w.adm.Metadata(t.Context(), eventsTopic)
	if err != nil {
		t.Fatal(err)
	}
	real := pipeline.Position{Cluster: md.Cluster, TopicID: md.Topics[eventsTopic].ID, Topic: eventsTopic, Offset: 3}
	events, err := r.Events(t.Context(), []pipeline.Position{real, {Topic: "'); DROP", Offset: 1}, real})
	if err != nil || len(events) != 1 || string(events[real].Payload) != `{"n":3}` || string(events[real].Key) != "k" || string(events[real].Raw) != `t:{"n":3}` {
		t.Errorf("event at %v: %+v, %v", real, events[real], err)
	}
}

// variedAttempts differ in what filters ask for, and have every field set.
func variedAttempts() []pipeline.Attempt {
	start := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	var list []pipeline.Attempt
	for i := range 40 {
		env := &pipeline.Envelope{
			Source: pipeline.Position{Cluster: "c", TopicID: [16]byte{1, 2, 15: 3}, Topic: "t", Partition: 2, Offset: int64(i)}, Format: pipeline.FormatTask,
			EventID: fmt.Sprint("e", i), Tenant: fmt.Sprint("tenant", i%2), EventType: "T", Entity: "en", Correlation: fmt.Sprint("it's ", i%4),
			ContentType: "x/y", Time: start.Add(-time.Hour), ProducedAt: start.Truncate(time.Millisecond), RegistryVersion: 5, Replay: "r",
		}
		a := pipeline.Attempt{
			AttemptID: fmt.Sprint("a", i), DeliveryID: fmt.Sprint("d", i), SubscriptionID: fmt.Sprint("s", i%5), URL: "https://x/", Envelope: env, Attempt: 1 + i%4, Round: 2,
			Outcome: pipeline.Outcomes[i%len(pipeline.Outcomes)], StatusCode: 503, Error: "no\tway\n", StartedAt: start.Add(time.Duration(i) * time.Second), Elapsed: 5 * time.Microsecond, DNS: time.Microsecond,
			Connect: 2 * time.Microsecond, TLS: 3 * time.Microsecond, TTFB: 4 * time.Microsecond, RequestHeaders: []byte("A: b"), RequestBytes: 9, RequestWritten: true,
			ResponseHeaders: []byte("C: d"), ResponseBody: []byte{0, 255, '\''}, ResponseTruncated: true, Resends: 1, AckID: "ack", Final: i%2 == 0, NextAttemptAt: start.Add(time.Minute), Node: "n",
		}
		list = append(list, a)
	}
	return list
}

// TestEngineReader: what was encoded is what is read, and filters filter.
func TestEngineReader(t *testing.T) {
	w := newWorld(t)
	cfg, _ := engineConfig(t)
	list := variedAttempts()
	list[3].NextAttemptAt, list[3].Envelope.Time = time.Time{}, time.Time{}
	w.produce(attemptsTopic, attemptlog.AppendBatch(nil, list, attemptlog.Options{}))
	w.start(attemptsOnly, func(c *Config, _ *Deps) { c.Addr, c.TTLDays = cfg.Addr, 0 })
	w.committed(1)
	r := openReader(t, cfg)

	read := func(f Filter) (got []pipeline.Attempt) {
		t.Helper()
		for row, err := range r.Attempts(t.Context(), f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, row.Attempt)
		}
		return got
	}
	if got := read(Filter{}); !reflect.DeepEqual(got, list) {
		t.Fatalf("read %d attempts that differ, e.g.\n%+v %+v\n%+v %+v", len(got), got[3], got[3].Envelope, list[3], list[3].Envelope)
	}
	for _, c := range []struct {
		name string
		f    Filter
		keep func(i int) bool
	}{
		{"subscription", Filter{Subscription: "s3"}, func(i int) bool { return i%5 == 3 }},
		{"tenant", Filter{Tenant: "tenant1"}, func(i int) bool { return i%2 == 1 }},
		{"event", Filter{Event: "e9"}, func(i int) bool { return i == 9 }},
		{"correlation", Filter{Correlation: "it's 2"}, func(i int) bool { return i%4 == 2 }},
		{"delivery", Filter{Delivery: "d0"}, func(i int) bool { return i == 0 }},
		{"failed", Filter{Status: StatusFailed}, func(i int) bool { return i%11 != 0 }},
		{"success", Filter{Status: StatusSuccess}, func(i int) bool { return i%11 == 0 }},
		{"since", Filter{Since: list[7].StartedAt}, func(i int) bool { return i >= 7 }},
		{"until", Filter{Until: list[7].StartedAt}, func(i int) bool { return i < 7 }},
		{"final", Filter{Final: true}, func(i int) bool { return i%2 == 0 }},
		{"limit", Filter{Limit: 4}, func(i int) bool { return i < 4 }},
		{"spent", Filter{Spent: true}, func(i int) bool { return list[i].Outcome.SpendsAttempt() }},
		{"format", Filter{Format: pipeline.FormatTask, TypePrefix: "T"}, func(int) bool { return true }},
		{"no such type", Filter{TypePrefix: "U"}, func(int) bool { return false }},
		{"no such thing", Filter{Event: "' OR 1 --"}, func(int) bool { return false }},
	} {
		var want []pipeline.Attempt
		for i := range list {
			if c.keep(i) {
				want = append(want, list[i])
			}
		}
		if got := read(c.f); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %d attempts, want %d", c.name, len(got), len(want))
		}
	}
	if got := read(Filter{NewestFirst: true, Limit: 1}); len(got) != 1 || got[0].AttemptID != "a39" {
		t.Errorf("newest: %+v", got)
	}
	followed(t, w, r, read)
}

// followed: a cursor yields what is stored after it, once.
func followed(t *testing.T, w *world, r *Reader, read func(Filter) []pipeline.Attempt) {
	t.Helper()
	tail, err := r.Tail(t.Context(), time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	if got := read(Filter{After: tail}); len(got) != 0 {
		t.Errorf("%d attempts after the end", len(got))
	}
	w.attempts(5)
	w.committed(2)
	if got := read(Filter{After: tail, Limit: 3}); len(got) != 3 {
		t.Errorf("%d attempts after the old end, want 3", len(got))
	}
	if got := read(Filter{After: tail}); len(got) != 2 || got[0].AttemptID != "a3" {
		t.Errorf("then %d attempts, want 2", len(got))
	}
	if got := read(Filter{After: &Cursor{}}); len(got) != 45 {
		t.Errorf("%d attempts after nothing, want 45", len(got))
	}
}

func TestUnreachable(t *testing.T) {
	cfg := testConfig()
	cfg.Addr, cfg.Password = fmt.Sprintf("http://127.0.0.1:%d", testkit.FreePort(t)), "canary-secret"
	r := openReader(t, cfg)
	_, err := r.Query(t.Context(), "SELECT 1", "JSON")
	for _, err := range []error{err, r.Ping(t.Context()), Migrate(t.Context(), cfg)} {
		if !Unreachable(err) || !strings.Contains(err.Error(), "connection refused") {
			t.Errorf("no server: %v", err)
		}
		if strings.Contains(fmt.Sprint(err), "canary") {
			t.Errorf("the password is in %q", err)
		}
	}
	for _, err := range r.Attempts(context.Background(), Filter{}) {
		if !Unreachable(err) {
			t.Errorf("reading attempts: %v", err)
		}
	}
	if text := fmt.Sprintf("%v %+v %#v %s", cfg, cfg, cfg, cfg.LogValue()); strings.Contains(text, "canary") {
		t.Errorf("the password is in %q", text)
	}
}
