package sink

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/logshape"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/format"
	"github.com/hookline/hookline/pipeline/format/task"
)

// log inserts rows directly, as the sink would.
type viewLog struct {
	t      *testing.T
	cfg    Config
	r      *Reader
	server *server
	clock  time.Time // of the next attempt
	offset int64     // of the next event
	list   []pipeline.Attempt
	raw    map[int64][]byte // events by offset, stored or not
}

var viewStart = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

func newViewLog(t *testing.T) *viewLog {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(&cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return &viewLog{t: t, cfg: cfg, r: openReader(t, cfg), server: s, clock: viewStart, raw: map[int64][]byte{}}
}

func parseAny(rec *kgo.Record, src *pipeline.Position) (*pipeline.Event, error) {
	r := format.Record{Value: rec.Value, Key: rec.Key, Timestamp: rec.Timestamp}
	for _, h := range rec.Headers {
		r.Headers = append(r.Headers, format.Header{Key: h.Key, Value: h.Value})
	}
	ev := new(pipeline.Event)
	return ev, format.Parse(&r, &format.TopicOptions{DefaultTenant: "acme"}, src, ev)
}

// event parses a record's value; store keeps it in the table events.
func (l *viewLog) event(value string, store bool) *pipeline.Event {
	l.t.Helper()
	rec := &kgo.Record{Topic: "in", Offset: l.offset, Value: []byte(value), Timestamp: viewStart}
	l.offset++
	src := pipeline.Position{Cluster: "c", TopicID: [16]byte{7}, Topic: "in", Offset: rec.Offset}
	ev, err := parseAny(rec, &src)
	if err != nil {
		l.t.Fatal(err)
	}
	l.raw[rec.Offset] = ev.Payload
	if store {
		b := newBlock(tableEvents, newEventRows(parseAny, func(*pipeline.Event) bool { return true }))
		l.insert(b, rec, origin{cluster: src.Cluster, topicID: src.TopicID, storedAt: viewStart})
	}
	return ev
}

// result is how one attempt ends.
type result struct {
	outcome pipeline.Outcome
	status  int
	err     string
	body    string
	change  func(*pipeline.Attempt)
}

// deliver logs one delivery, half a minute between its attempts.
func (l *viewLog) deliver(ev *pipeline.Event, subscription string, results ...result) {
	l.t.Helper()
	env := &pipeline.Envelope{
		Source: ev.Source, Format: ev.Format, EventID: ev.ID, Tenant: ev.Tenant, EventType: ev.Type, Entity: ev.Entity,
		Correlation: ev.Correlation, Time: ev.Time, ProducedAt: ev.ProducedAt,
	}
	var list []pipeline.Attempt
	for i, res := range results {
		a := pipeline.Attempt{
			DeliveryID: pipeline.DeliveryID(&ev.Source, subscription), SubscriptionID: subscription, URL: "https://x.example/hooks?key=[redacted]",
			Envelope: env, Attempt: i + 1, Outcome: res.outcome, StatusCode: res.status, Error: res.err, StartedAt: l.clock, Elapsed: 1234567 * time.Microsecond,
			RequestHeaders: []byte("Host: x.example\r\nAuthorization: [redacted]\r\n"), RequestBytes: len(ev.Payload), RequestWritten: true,
			ResponseBody: []byte(res.body), Final: i == len(results)-1,
		}
		if res.status != 0 {
			a.ResponseHeaders = []byte("Content-Type: text/plain\r\n")
		}
		a.AttemptID = fmt.Sprint(a.DeliveryID, "/", a.Attempt)
		if res.change != nil {
			res.change(&a)
		}
		if !a.Final {
			a.NextAttemptAt = l.clock.Add(30 * time.Second)
		}
		l.clock = l.clock.Add(30 * time.Second)
		list = append(list, a)
	}
	l.list = append(l.list, list...)
	rec := &kgo.Record{Topic: attemptsTopic, Value: attemptlog.AppendBatch(nil, list, attemptlog.Options{})}
	l.insert(newBlock(tableAttempts, newAttemptRows()), rec, origin{storedAt: viewStart})
}

func (l *viewLog) insert(b *block, rec *kgo.Record, from origin) {
	l.t.Helper()
	if _, bad := b.build([]*kgo.Record{rec}, from, 1<<30); len(bad) > 0 {
		l.t.Fatal(bad[0].why)
	}
	if b.rows == 0 {
		l.t.Fatal("no row")
	}
	if err := b.encode(); err != nil {
		l.t.Fatal(err)
	}
	if err := l.server.insert(l.t.Context(), b, fmt.Sprint(l.t.Name(), b.table, len(l.list), l.offset)); err != nil {
		l.t.Fatal(err)
	}
}

// rows gives a view's rows as JSON objects.
func (l *viewLog) rows(sql string) []map[string]any {
	l.t.Helper()
	var out []map[string]any
	text := ask(l.t, l.r, sql+" SETTINGS date_time_output_format = 'iso', output_format_json_quote_64bit_integers = 0 FORMAT JSONEachRow")
	for line := range strings.Lines(text) {
		out = append(out, object(l.t, line))
	}
	return out
}

func object(t *testing.T, line string) map[string]any {
	t.Helper()
	var row map[string]any
	if err := json.Unmarshal([]byte(line), &row); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return row
}

const cotEvent = `{ "company": "625bcbdcc9a8e3a86dbf041c", "type": "COTTask", "extraData": null, "createdAt": "2026-03-01T11:59:59.924Z",
  "data": { "name": " Grüße \"x\"", "weight": 1.50, "_id": "62742b7562f37034d9399914", "company": "625bcbdcc9a8e3a86dbf041c" },
  "event": "create" }`

// TestEngineCotalkerView: the published fields, the same as logshape gives.
func TestEngineCotalkerView(t *testing.T) {
	l := newViewLog(t)
	timeout := result{outcome: pipeline.OutcomeTimeout, err: "connect ETIMEDOUT 67.225.146.248:443"}
	ev := l.event(cotEvent, true)
	l.deliver(ev, "s1", timeout, timeout, timeout, timeout)
	l.deliver(ev, "s2", result{outcome: pipeline.OutcomeLocalError, err: "connect EMFILE"}, result{outcome: pipeline.OutcomeResponseError, status: 500, body: "no\x00\xff"})
	late := l.event(strings.Replace(cotEvent, `"create"`, `"update"`, 1), false)
	l.deliver(late, "s1", result{outcome: pipeline.OutcomeSuccess, status: 200, body: "ok"})
	l.deliver(late, "gone", result{outcome: pipeline.OutcomeCancelled, change: func(a *pipeline.Attempt) { a.Attempt = 0 }})
	l.deliver(l.event(taskEvent, true), "s1", result{outcome: pipeline.OutcomeSuccess, status: 200})

	expect(t, l.r, "SELECT groupArray(name) FROM (SELECT name FROM system.columns WHERE database = currentDatabase() AND table = 'cot_webhook_log' ORDER BY position)",
		"['_id','company','createdAt','status','retry','response','event','subscription','__v']")
	got := l.rows("SELECT * FROM cot_webhook_log ORDER BY createdAt")
	var want []map[string]any
	for i := range l.list {
		if a := &l.list[i]; a.Envelope.Format == pipeline.FormatCotalker && logshape.Logged(a) {
			var event []byte
			if a.Envelope.EventType == "COTTask.create" {
				event = l.raw[a.Envelope.Source.Offset]
			}
			want = append(want, object(t, string(logshape.AppendCOTWebhookLog(nil, a, event))))
		}
	}
	if len(got) != 6 || len(want) != 6 {
		t.Fatalf("%d rows, %d wanted", len(got), len(want))
	}
	for i := range got {
		event := got[i]["event"].(string)
		if i < 5 && event != cotEvent {
			t.Errorf("event %q", event)
		}
		got[i]["event"] = object(t, event)
		if !reflect.DeepEqual(got[i], want[i]) {
			t.Errorf("row %d\n%v\nlogshape\n%v", i, got[i], want[i])
		}
	}
	if r := got[3]; r["status"] != 409.0 || r["retry"] != 3.0 || r["response"] != "connect ETIMEDOUT 67.225.146.248:443" || r["company"] != "625bcbdcc9a8e3a86dbf041c" {
		t.Errorf("last of four: %v", r)
	}
	// A filter by subscription reaches the key of attempts.
	plan := ask(t, l.r, "EXPLAIN indexes = 1 SELECT * FROM cot_webhook_log WHERE subscription = 's1'")
	if !strings.Contains(plan, `(subscription_id in [\'s1\', \'s1\'])`) {
		t.Errorf("the key is not used:\n%s", plan)
	}
}

const taskEvent = `{"entityId":"t1","type":"TASK_EDITED","createdAt":"2026-03-01T09:50:29.775Z","data":{"operation":"UPDATE",
"current":{"id":"t1","organizationId":"org","locationId":"loc","startAt":"2026-03-01T09:00:00.000Z","endAt":"2026-03-01T13:00:00.000Z","name":"Task \"2\"","assigneeIds":["b","c","c"],"recurrenceRule":null,"n":1.50,"o":{ "a": 1 },"tags":["x","y"]},
"previous":{"id":"t1","organizationId":"org","locationId":"loc","startAt":"2026-03-01T09:00:00.000Z","endAt":"2026-03-01T11:15:00.000Z","name":"Task \u0022\u0032\u0022","assigneeIds":["a","b","c"],"n":1.5,"o":{"a":1},"tags":["y","x"],"old":7}}}`

// TestEngineTaskView: one row per changed field, the fields that package task
// finds too.
func TestEngineTaskView(t *testing.T) {
	l := newViewLog(t)
	l.event(taskEvent, true)
	l.event(`{"entityId":"t2","type":"TASK_CREATED","createdAt":"2026-03-02T00:00:00Z","data":{"operation":"CREATE","current":{"id":"t2","organizationId":"org","name":"N","assigneeIds":["a"],"recurrenceRule":null}}}`, true)
	l.event(`{"entityId":"t3","type":"TASK_DELETED","createdAt":"2026-03-03T00:00:00Z","data":{"operation":"DELETE","previous":{"id":"t3","organizationId":"org3","locationId":"l3","assigneeIds":["a"]}}}`, true)
	l.event(cotEvent, true)
	got := ask(t, l.r, "SELECT entity_id, organization_id, location_id, field, before, after, added, removed, changed_at FROM task_changes ORDER BY changed_at, field")
	want := strings.Join([]string{
		`t1	org	loc	assigneeIds	["a","b","c"]	["b","c","c"]	['c']	['a']	2026-03-01 09:50:29.775000`,
		`t1	org	loc	endAt	2026-03-01T11:15:00.000Z	2026-03-01T13:00:00.000Z	[]	[]	2026-03-01 09:50:29.775000`,
		`t1	org	loc	old	7	\N	[]	[]	2026-03-01 09:50:29.775000`,
		`t2	org		assigneeIds	\N	["a"]	['a']	[]	2026-03-02 00:00:00.000000`,
		`t2	org		id	\N	t2	[]	[]	2026-03-02 00:00:00.000000`,
		`t2	org		name	\N	N	[]	[]	2026-03-02 00:00:00.000000`,
		`t2	org		organizationId	\N	org	[]	[]	2026-03-02 00:00:00.000000`,
		`t3	org3	l3	assigneeIds	["a"]	\N	[]	['a']	2026-03-03 00:00:00.000000`,
		`t3	org3	l3	id	t3	\N	[]	[]	2026-03-03 00:00:00.000000`,
		`t3	org3	l3	locationId	l3	\N	[]	[]	2026-03-03 00:00:00.000000`,
		`t3	org3	l3	organizationId	org3	\N	[]	[]	2026-03-03 00:00:00.000000`,
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for offset, raw := range l.raw {
		if offset == 3 {
			continue
		}
		changes, err := task.Changed(raw)
		if err != nil {
			t.Fatal(err)
		}
		var fields []string
		for _, c := range changes {
			fields = append(fields, c.Field)
		}
		slices.Sort(fields)
		list := ask(t, l.r, fmt.Sprintf("SELECT arrayStringConcat(arraySort(groupArray(field)), ',') FROM task_changes WHERE event_id IN (SELECT event_id FROM events WHERE source_offset = %d)", offset))
		if list != strings.Join(fields, ",") {
			t.Errorf("event %d: view %s, package task %s", offset, list, fields)
		}
	}
}

func signl(id, raised, kind, more string) string {
	return `{"eventType":` + kind + `,"eventRaisedUtc":"` + raised + `","subscription":{"id":"s4"},"alert":{"eventId":"2518_ev","externalEventId":"INC 7","id":"2518_al"` + more + `,"id":"` + id + `"}`
}

// TestEngineSignl4View: an alert's time line, with an event that has not arrived.
func TestEngineSignl4View(t *testing.T) {
	l := newViewLog(t)
	ok := result{outcome: pipeline.OutcomeSuccess, status: 200}
	bad := result{outcome: pipeline.OutcomeResponseError, status: 500}
	pending := bad
	pending.change = func(a *pipeline.Attempt) { a.Final, a.NextAttemptAt = false, a.StartedAt.Add(30*time.Second) }
	l.deliver(l.event(signl("n1", "2026-03-01T08:11:37.4815663Z", "200", `,"statusCode":1}`), true), "s4", ok)
	l.deliver(l.event(signl("n2", "2026-03-01T08:12:07.4815663Z", "201", `,"statusCode":2},"user":{"username":"Rene","id":"u"}`), true), "s4", bad, ok)
	l.deliver(l.event(signl("n3", "2026-03-01T08:13:07.9815663Z", "203", `,"statusCode":2},"user":{"mailaddress":"r@x.example","id":"u"},"annotation":{"message":"I'll \"do\" it","id":"a"}`), true), "s4", bad, bad, bad, bad)
	l.deliver(l.event(signl("n4", "2026-03-01T08:13:37Z", "202", `,"statusCode":2},"team":{"id":"team1"}`), true), "s4", pending)
	l.deliver(l.event(signl("n5", "2026-03-01T08:21:37.4815663Z", "201", `,"statusCode":4},"user":{"id":"u"}`), false), "s4", ok)
	l.deliver(l.event(`{"eventType":300,"eventRaisedUtc":"2026-03-01T08:11:37Z","team":{"id":"t"},"id":"n9"}`, true), "s4", ok)
	l.deliver(l.event(strings.ReplaceAll(signl("n6", "2026-03-01T08:11:37Z", "203", `}`), "2518_al", "other"), true), "s4", ok)

	got := ask(t, l.r, "SELECT event_id, alert_event_id, external_id, type, raised_at, user, team, message, seconds_since_created, seconds_since_previous, delivery_state, attempts FROM signl4_timeline WHERE alert_id = '2518_al' ORDER BY raised_at")
	want := strings.Join([]string{
		`n1	2518_ev	INC 7	signl.created	2026-03-01 08:11:37.4815663				0	\N	delivered	1`,
		`n2	2518_ev	INC 7	signl.acknowledged	2026-03-01 08:12:07.4815663	Rene			30	30	delivered	2`,
		`n3	2518_ev	INC 7	signl.annotated	2026-03-01 08:13:07.9815663	r@x.example		I\'ll "do" it	90.5	60.5	failed	4`,
		`n4	2518_ev	INC 7	signl.escalated	2026-03-01 08:13:37.0000000		team1		119.518434	29.018434	retrying	1`,
		`n5		INC 7	signl.resolved	2026-03-01 08:21:37.4815660				600	480.481566	delivered	1`,
	}, "\n")
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	expect(t, l.r, "SELECT event_id, seconds_since_created, delivery_state FROM signl4_timeline WHERE alert_id = 'other'", `n6	\N	delivered`)
	expect(t, l.r, "SELECT count() FROM signl4_timeline WHERE external_id = 'INC 7'", "6")

	var deliveries, order []string
	for i := len(l.list) - 1; i >= 0; i-- {
		deliveries = append(deliveries, l.list[i].DeliveryID)
	}
	rows, err := l.r.Timeline(t.Context(), deliveries)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range rows {
		order = append(order, row.EventID)
	}
	if strings.Join(order, " ") != "n6 n1 n2 n3 n4 n5" || rows[0].SinceCreated != nil || *rows[3].SincePrevious != 60.5 {
		t.Errorf("time lines: %+v", rows)
	}
}

// TestEngineLastAttempts: by delivery, among those that count, before their
// status is asked.
func TestEngineLastAttempts(t *testing.T) {
	l := newViewLog(t)
	bad := result{outcome: pipeline.OutcomeResponseError, status: 500}
	ev := l.event(cotEvent, true)
	l.deliver(ev, "mended", bad, bad, result{outcome: pipeline.OutcomeSuccess, status: 200})
	l.deliver(ev, "failed", bad, bad, bad, bad)
	l.deliver(ev, "deleted", bad, result{outcome: pipeline.OutcomeCancelled, change: func(a *pipeline.Attempt) { a.Attempt = 0 }})
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{Last: true}, "mended/3 failed/4 deleted/0"},
		{Filter{Last: true, Spent: true}, "mended/3 failed/4 deleted/1"},
		{Filter{Last: true, Spent: true, Status: StatusFailed}, "failed/4 deleted/1"},
		{Filter{Last: true, Status: StatusSuccess, Tenant: "625bcbdcc9a8e3a86dbf041c"}, "mended/3"},
		{Filter{Last: true, Subscription: "failed", Until: viewStart.Add(3 * time.Minute)}, ""},
		{Filter{Last: true, Format: pipeline.FormatTask}, ""},
	} {
		var got []string
		for row, err := range l.r.Attempts(t.Context(), c.f) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, fmt.Sprint(row.SubscriptionID, "/", row.Attempt.Attempt))
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v: %s, want %s", c.f, got, c.want)
		}
	}
}

// TestEngineWebhookCalledView: four statuses, dumps, and the same as logshape.
func TestEngineWebhookCalledView(t *testing.T) {
	l := newViewLog(t)
	hook := l.event(`{"type":"resthook_called","created_on":"2026-03-01T15:04:05Z","resthook":"new \"x\"","payload": {"contact": {"name": "Bób"}}}`, true)
	late := l.event(`{"type":"resthook_called","created_on":"2026-03-01T15:04:05Z","resthook":"success","payload":{"a":1}}`, false)
	other := l.event(`{"type":"error","created_on":"2026-03-01T15:04:05Z","text":"`+strings.Repeat("ä", 9000)+`"}`, true)
	l.deliver(hook, "a",
		result{outcome: pipeline.OutcomeConnectError, err: "connect ECONNREFUSED 1.2.3.4:443", change: func(a *pipeline.Attempt) {
			a.RequestHeaders, a.RequestBytes, a.RequestWritten, a.URL = nil, 0, false, "https://x.example?q"
		}},
		result{outcome: pipeline.OutcomeTimeout, err: "request timeout"},
		result{outcome: pipeline.OutcomeResponseError, status: 418, body: "tea\x00"},
		result{outcome: pipeline.OutcomeSuccess, status: 200, body: `{"ok":true}`})
	l.deliver(hook, "b", result{outcome: pipeline.OutcomeGone, status: 410, body: "gone"})
	l.deliver(late, "a", result{outcome: pipeline.OutcomeSuccess, status: 209})
	l.deliver(other, "c",
		result{outcome: pipeline.OutcomeResponseError, status: 500, body: "cut \xc3", change: func(a *pipeline.Attempt) { a.ResponseTruncated = true }},
		result{outcome: pipeline.OutcomeResponseError, status: 599, body: "latin \xe4 1"},
		result{outcome: pipeline.OutcomeResponseError, status: 301, change: func(a *pipeline.Attempt) { a.RequestBytes++; a.URL = "[not a valid URL]" }})

	got := l.rows("SELECT * FROM webhook_called ORDER BY created_on")
	if len(got) != len(l.list) {
		t.Fatalf("%d rows", len(got))
	}
	for i, row := range got {
		a := &l.list[i]
		c := logshape.Called{BodyBytes: 16384, WithIDs: true}
		if a.Envelope.Source != late.Source {
			c.Payload = l.raw[a.Envelope.Source.Offset]
		}
		if a.Envelope.Source == hook.Source {
			c.Resthook = hook.Resthook
		}
		want := object(t, string(logshape.AppendWebhookCalled(nil, a, c)))
		for name, v := range row { // optional members are NULL, or false
			if v == nil || v == false {
				delete(row, name)
			}
		}
		if !reflect.DeepEqual(row, want) {
			t.Errorf("row %d\n%v\nlogshape\n%v", i, row, want)
		}
	}
	expect(t, l.r, "SELECT groupArray(status) FROM (SELECT status FROM webhook_called WHERE resthook != '' ORDER BY created_on)",
		"['connection_error','connection_error','response_error','success','subscriber_gone']")
	if want := "POST /hooks?key=[redacted] HTTP/1.1\r\nHost: x.example\r\nAuthorization: [redacted]\r\n\r\n{\"contact\": {\"name\": \"Bób\"}}"; got[3]["request"] != want {
		t.Errorf("request %q", got[3]["request"])
	}
	if want := "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{\"ok\":true}"; got[3]["response"] != want {
		t.Errorf("response %q", got[3]["response"])
	}
	var ignored []int
	for i, row := range got {
		if row["body_ignored"] == true {
			ignored = append(ignored, i)
		}
	}
	if !slices.Equal(ignored, []int{2, 5, 6, 7, 8}) {
		t.Errorf("bodies ignored in %v", ignored)
	}
}
