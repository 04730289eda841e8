package router

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/match"
)

// realIndex is the Matcher that the service uses, with a version.
type realIndex struct{ *match.Index }

func (realIndex) Version() int64 { return 1 }

// takers are a subscription for everything, and those that some events are
// meant for.
func takers() realIndex {
	all := func(id, resthook string) *pipeline.Subscription {
		return &pipeline.Subscription{ID: id, Tenant: "*", Events: []string{"*"}, Resthook: resthook, State: pipeline.StateActive}
	}
	return realIndex{match.NewIndex(slices.Values([]*pipeline.Subscription{
		all("all", ""), all("hook", "new-survey"), all("5a1c7e0d-9b31-4f0e-8a34-0d2c6f7b1e21", ""),
	}))}
}

// golden is a fixture of package format: a record and what is read from it.
type golden struct {
	name   string
	record *kgo.Record
	want   map[string]string
}

// goldens are the fixtures, and an EVENTS_TOPICS with a topic for each different
// set of options among them.
func goldens(t *testing.T) (out []golden, spec string) {
	t.Helper()
	files, err := filepath.Glob("../format/testdata/*.want")
	if err != nil || len(files) == 0 {
		t.Fatal("no fixtures", err)
	}
	topics := map[string]string{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		g := golden{name: filepath.Base(file), record: &kgo.Record{}, want: map[string]string{}}
		if g.record.Value, err = os.ReadFile(strings.TrimSuffix(file, ".want") + ".json"); err != nil {
			t.Fatal(err)
		}
		g.want["payload"] = string(g.record.Value)
		for line := range strings.Lines(string(text)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			if key, ok := strings.CutPrefix(name, "header:"); ok {
				g.record.Headers = append(g.record.Headers, kgo.RecordHeader{Key: key, Value: []byte(value)})
			}
			g.want[name] = value
		}
		g.record.Key = []byte(g.want["key"])
		options := g.want["options"]
		if topics[options] == "" {
			topics[options] = fmt.Sprintf("events-%d", len(topics))
			spec += topics[options] + "=" + options + ";"
		}
		g.record.Topic = topics[options]
		out = append(out, g)
	}
	return out, spec
}

// TestEveryFormatIsRouted sends each fixture through a router whose topics have
// the options that the fixture names.
func TestEveryFormatIsRouted(t *testing.T) {
	events, spec := goldens(t)
	b := newBench(t, spec)
	x := takers()
	b.deps.Matcher = func() Matcher { return x }
	for i := range b.cfg.EventsTopics {
		b.topic(b.cfg.EventsTopics[i].Topic, 1)
	}
	resthooksOfNobody, routed := 0, 0
	for _, g := range events {
		b.produce(g.record)
		if hook := g.want["resthook"]; hook != "" && hook != "new-survey" || g.want["target"] == "s" {
			resthooksOfNobody++
		}
	}
	_, stop := b.start()
	b.eventually("all events are routed", func() bool {
		routed = 0
		for _, f := range []string{"cotalker", "goflow", "signl4", "task", "cloudevents", "json"} {
			routed += b.count.get(f + "/" + ResultRouted)
		}
		return routed >= len(events)-resthooksOfNobody
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if dead := b.all("hookline.events.dead"); len(dead) != 0 {
		t.Fatalf("%d dead letters, the first: %s", len(dead), header(dead[0], "hookline-error"))
	}
	got := map[string][]string{}
	records := map[string]*kgo.Record{}
	for _, r := range b.all("hookline.deliveries") {
		env, ids := decode(t, r)
		got[env.Source.String()] = append(got[env.Source.String()], ids...)
		records[env.Source.String()] = r
	}
	for _, g := range events {
		src := fmt.Sprintf("%s/0/%d", g.record.Topic, g.record.Offset)
		g.check(t, records[src], got[src])
	}
}

func (g *golden) check(t *testing.T, r *kgo.Record, ids []string) {
	t.Helper()
	want := []string{"5a1c7e0d-9b31-4f0e-8a34-0d2c6f7b1e21", "all"}
	switch {
	case g.want["resthook"] == "new-survey":
		want = []string{"hook"}
	case g.want["resthook"] != "", g.want["target"] == "s":
		want = nil
	case g.want["target"] != "":
		want = want[:1]
	}
	slices.Sort(ids)
	if !slices.Equal(ids, want) {
		t.Errorf("%s goes to %q, want %q", g.name, ids, want)
	}
	if r == nil {
		return
	}
	env, _ := decode(t, r)
	if string(r.Value) != g.want["payload"] {
		t.Errorf("%s: payload %q", g.name, r.Value)
	}
	id, listed := g.want["id"]
	if !listed {
		id = pipeline.DerivedID(&env.Source)
	} else if raw, unsafe := strings.CutPrefix(id, "safe:"); unsafe {
		id = pipeline.SafeID(raw)
	}
	have := [...]string{string(env.Format), env.EventID, env.Tenant, env.EventType, env.Entity, env.Correlation, env.ContentType}
	if wanted := [...]string{g.want["format"], id, g.want["tenant"], g.want["type"], g.want["entity"], g.want["correlation"], g.want["contenttype"]}; have != wanted {
		t.Errorf("%s: got %q, want %q", g.name, have, wanted)
	}
	if (env.Splice != nil) != (g.want["splice"] != "") || (len(env.Attributes) > 0) != (g.want["attributes"] != "") {
		t.Errorf("%s: splice %v, attributes %v", g.name, env.Splice, env.Attributes)
	}
}

// TestBadRecordsOfEveryFormat: the letter is the record, and says what is wrong
// and where; the partition goes on.
func TestBadRecordsOfEveryFormat(t *testing.T) {
	const flow, alerts, tasks, ce, cot, mixed = "flow.events", "alerts", "tasks", "ce", "cot", "mixed"
	tests := []struct{ topic, value, header, want string }{
		{cot, `{"company":"x"}`, "", "not an ObjectId at /company: want a string of 24 hex digits"},
		{flow, `{"type":"msg_sent","created_on":"2019-01-02T15:04:05Z"}`, "", "unknown type at /type: want one of goflow's event types (or the topic option unknown-types=allow)"},
		{flow, `{"type":"run_expired","created_on":"2019-01-02T15:04:05Z"}`, "", "missing field at /run_uuid: want a string that is not empty"},
		{alerts, `{"eventType":201,"eventRaisedUtc":"2019-01-02T15:04:05.1234567Z","id":"1","alert":{}}`, "", "missing field at /alert/statusCode: want a number"},
		{tasks, `{"entityId":"1","type":"TASK_EDITED","createdAt":"2019-01-02T15:04:05Z","data":{"operation":"UPDATE","current":{"id":"1"}}}`, "", "missing field at /data/previous: want the task's state"},
		{ce, `{"specversion":"1.0","id":"1","type":"t"}`, "", "missing attribute source at /source: want a URI reference of where the event comes from"},
		{cot, `[{}]`, "content-type=application/cloudevents-batch+json", "CloudEvents batch mode is not supported: want one event per record"},
		{cot, `{}`, "ce_specversion=1.0", "missing attribute id (header ce_id): want the event's id"},
		{cot, `{}`, "hookline-format=nonsense", "unknown format in header hookline-format: want one of "},
		{mixed, `{"eventType":200,"eventRaisedUtc":"x","entityId":"1","data":{"operation":"UPDATE"}}`, "", "ambiguous shape: signl4 or task: want a format named by the topic or by header hookline-format"},
		{mixed, `{"type":"msg_sent","created_on":"2019-01-02T15:04:05Z"}`, "", "unknown shape: want a format named by the topic or by header hookline-format"},
		{mixed, `{"type":"msg_wait","created_on":"2019-01-02T15:04:05Z","type":"error"}`, "", "duplicate name (byte 56) at /type: want each name once in an object"},
		{alerts, "", "", "empty value: want a JSON text"},
	}
	b := newBench(t, "flow.events=goflow:default-tenant=acme;alerts=signl4;tasks=task;ce=cloudevents;cot=cotalker;mixed")
	x := takers()
	b.deps.Matcher = func() Matcher { return x }
	wants := map[string]int{}
	for _, topic := range []string{flow, alerts, tasks, ce, cot, mixed} {
		b.topic(topic, 1)
	}
	for i, tt := range tests {
		rec := &kgo.Record{Topic: tt.topic, Key: []byte("k"), Value: []byte(tt.value)}
		if tt.value == "" {
			rec.Value = nil
		}
		if key, value, ok := strings.Cut(tt.header, "="); ok {
			rec.Headers = []kgo.RecordHeader{{Key: key, Value: []byte(value)}}
		}
		b.produce(rec)
		wants[fmt.Sprintf("%s/0/%d", tt.topic, rec.Offset)] = i
	}
	after := event(mixed, 0, `{"type":"msg_wait","created_on":"2019-01-02T15:04:05Z"}`)
	b.produce(after)
	b.start()
	for _, letter := range b.read("hookline.events.dead", len(tests)) {
		i, ok := wants[header(letter, "hookline-source")]
		if !ok {
			t.Errorf("a letter from %s", header(letter, "hookline-source"))
			continue
		}
		if got := header(letter, "hookline-error"); !strings.HasPrefix(got, tests[i].want) {
			t.Errorf("%s:\ngot  %q\nwant %q", tests[i].value, got, tests[i].want)
		}
		if key, value, _ := strings.Cut(tests[i].header, "="); string(letter.Value) != tests[i].value || string(letter.Key) != "k" || header(letter, key) != value {
			t.Errorf("the letter of %s differs: %q", tests[i].value, letter.Value)
		}
	}
	if env, _ := decode(t, b.read("hookline.deliveries", 1)[0]); env.EventType != "msg_wait" || env.Source.Offset != after.Offset {
		t.Errorf("got %+v", env)
	}
}
