package sink

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/doctest"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// systemPages have queries about events of their own; see
// TestEngineSystemDocs.
var systemPages = []string{"docs/cotalker.md", "docs/goflow.md", "docs/signl4.md", "docs/task.md"}

// TestEngineDocs runs every SQL statement of the documentation, each of which
// must give rows, and looks for every column and outcome in docs/schema.md.
func TestEngineDocs(t *testing.T) {
	l := &docLog{viewLog: newViewLog(t), now: time.Now().UTC().Truncate(time.Microsecond)}
	l.fill()
	pages, err := doctest.Load(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	expect(t, l.r, "SELECT delivery_id, next_attempt_at > now() FROM deliveries WHERE next_attempt_at IS NOT NULL", "dlv_waits\t1")
	schema, ran := "", map[string]int{}
	for _, p := range pages {
		if p.Path == "docs/schema.md" {
			text, err := os.ReadFile("../docs/schema.md")
			if err != nil {
				t.Fatal(err)
			}
			schema = string(text)
		}
		if slices.Contains(systemPages, p.Path) {
			continue
		}
		for _, b := range p.Blocks {
			if b.Lang != "sql" {
				continue
			}
			for sql := range strings.SplitSeq(b.Text, ";\n") {
				if strings.TrimSpace(sql) == "" {
					continue
				}
				ran[p.Path]++
				if ask(t, l.r, sql) == "" {
					t.Errorf("%s:%d: no rows for\n%s", p.Path, b.Line, sql)
				}
			}
		}
	}
	if ran["docs/guides/sql.md"] < 20 || ran["docs/schema.md"] < 4 {
		t.Errorf("statements that were run: %v", ran)
	}
	for _, name := range strings.Fields(ask(t, l.r, "SELECT DISTINCT name FROM system.columns WHERE database = currentDatabase() AND table IN ('attempts', 'events', 'subscription_stats_1m')")) {
		if !strings.Contains(schema, "`"+name+"`") {
			t.Errorf("column %s is not in docs/schema.md", name)
		}
	}
	for _, name := range strings.Fields(ask(t, l.r, "SELECT arrayJoin(extractAll(type, '\\'(\\\\w+)\\'')) FROM system.columns WHERE database = currentDatabase() AND table = 'attempts' AND name = 'outcome'")) {
		if !strings.Contains(schema, "| `"+name+"` |") {
			t.Errorf("outcome %s is not in docs/schema.md", name)
		}
	}
}

// docLog is a log of the last two hours in which everything that the queries of
// the documentation look for has happened. Queries name what it has: the events
// ord-1, ord-2 and ord-5; the subscriptions erp, shop, slow and odd; the delivery
// dlv_example; the topic orders.
type docLog struct {
	*viewLog
	now time.Time
}

// event stores an event of the tenant acme at a position of topic orders.
func (l *docLog) event(offset int64, id string, at time.Time) pipeline.Envelope {
	l.t.Helper()
	rec := &kgo.Record{Topic: "orders", Partition: 3, Offset: offset, Value: fmt.Appendf(nil, `{"id":%q,"type":"order.placed"}`, id), Timestamp: at}
	parse := func(r *kgo.Record, src *pipeline.Position) (*pipeline.Event, error) {
		var doc struct{ ID, Type string }
		err := json.Unmarshal(r.Value, &doc)
		return &pipeline.Event{
			Source: *src, Format: pipeline.FormatJSON, ID: doc.ID, Type: doc.Type, Tenant: "acme", Entity: "o-1", Payload: r.Value, ProducedAt: r.Timestamp,
		}, err
	}
	src := pipeline.Position{Cluster: "c", TopicID: [16]byte{7}, Topic: "orders", Partition: 3, Offset: offset}
	l.offset = offset // of the insert's token
	l.insert(newBlock(tableEvents, newEventRows(parse, func(*pipeline.Event) bool { return true })), rec, origin{cluster: "c", topicID: src.TopicID, storedAt: at.Add(time.Second)})
	return pipeline.Envelope{Source: src, Format: pipeline.FormatJSON, EventID: id, Tenant: "acme", EventType: "order.placed", Entity: "o-1", ProducedAt: at}
}

// deliver logs a delivery that begins ago before now.
func (l *docLog) deliver(env *pipeline.Envelope, id, subscription string, ago time.Duration, results ...result) {
	l.t.Helper()
	var list []pipeline.Attempt
	at := l.now.Add(-ago)
	for i, res := range results {
		a := pipeline.Attempt{
			AttemptID: fmt.Sprint(id, "/", i), DeliveryID: id, SubscriptionID: subscription, URL: "https://" + subscription + ".example.com/hooks", Envelope: env,
			Attempt: i + 1, Outcome: res.outcome, StatusCode: res.status, Error: res.err, StartedAt: at, Elapsed: 180 * time.Millisecond, DNS: 2 * time.Millisecond,
			Connect: 20 * time.Millisecond, TLS: 40 * time.Millisecond, TTFB: 100 * time.Millisecond, RequestHeaders: []byte("Host: x\r\ntraceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"), RequestBytes: 40,
			RequestWritten: true, ResponseHeaders: []byte("A: b\r\n"), ResponseBody: []byte(res.body), Final: i == len(results)-1, Node: "n-1",
		}
		if !a.Final {
			a.NextAttemptAt = at.Add(30 * time.Second)
		}
		if res.change != nil {
			res.change(&a)
		}
		list = append(list, a)
		at = at.Add(30 * time.Second)
	}
	l.list = append(l.list, list...) // numbers the insert's token
	rec := &kgo.Record{Topic: attemptsTopic, Value: attemptlog.AppendBatch(nil, list, attemptlog.Options{})}
	l.insert(newBlock(tableAttempts, newAttemptRows()), rec, origin{storedAt: at})
}

func (l *docLog) fill() {
	l.t.Helper()
	ok := result{outcome: pipeline.OutcomeSuccess, status: 200, body: "thanks"}
	bad := result{outcome: pipeline.OutcomeResponseError, status: 500, err: "status 500", body: "error 4711"}
	waits := result{outcome: pipeline.OutcomeTimeout, err: "request timeout 15s", change: func(a *pipeline.Attempt) {
		a.Final, a.NextAttemptAt = false, l.now.Add(time.Hour)
	}}
	first, second := l.event(1207, "ord-1", l.now.Add(-50*time.Minute)), l.event(1208, "ord-2", l.now.Add(-45*time.Minute))
	l.event(1211, "ord-5", l.now.Add(-40*time.Minute)) // not sent, and two offsets are missing before it
	l.deliver(&first, "dlv_example", "erp", 40*time.Minute, bad, ok)
	l.deliver(&first, "dlv_dead", "shop", 39*time.Minute, bad, bad, bad, bad)
	l.deliver(&second, "dlv_waits", "slow", 10*time.Minute, waits)
	// A crash between the answer and the commit: sent again, logged as another try.
	l.deliver(&second, "dlv_twice", "erp", 30*time.Minute, ok)
	l.deliver(&second, "dlv_twice", "erp", 29*time.Minute, result{outcome: ok.outcome, status: 200, change: func(a *pipeline.Attempt) { a.AttemptID = "again" }})
	// What must never be: an older event after a newer one.
	l.deliver(&second, "dlv_newer", "odd", 20*time.Minute, ok)
	l.deliver(&first, "dlv_older", "odd", 19*time.Minute, ok)
}
