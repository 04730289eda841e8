package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// deadRecords are what the topics of dead letters hold in the test.
func deadRecords() []*kgo.Record {
	now := time.Now().Truncate(time.Millisecond)
	letter := func(sub, event string, partition int32, reason pipeline.DeadReason, attempts int, ago time.Duration) *kgo.Record {
		env := pipeline.Envelope{EventID: event, EventType: "order.placed", Format: pipeline.FormatJSON, Source: pipeline.Position{Cluster: "c", Topic: "orders", Partition: 1, Offset: 42}}
		r := kafkax.DeadRecord("hookline.dead", partition, &kafkax.Dead{
			Subscription: sub, Reason: reason, Attempts: attempts, Error: "status 503\x1b[31m", Envelope: env, Payload: []byte(`{"n":1}` + "\x1b]0;x\a"),
		})
		r.Timestamp = now.Add(-ago)
		return r
	}
	lost := func(topic, source, why string, value []byte) *kgo.Record {
		return &kgo.Record{Topic: topic, Timestamp: now, Value: value, Headers: []kgo.RecordHeader{
			{Key: kafkax.HeaderError, Value: []byte(why)}, {Key: kafkax.HeaderSource, Value: []byte(source)},
		}}
	}
	return []*kgo.Record{
		letter("erp", "ord-1", 1, pipeline.DeadExhausted, 4, time.Hour), letter("crm", "ord-2", 0, pipeline.DeadCancelled, 0, 2*time.Hour),
		letter("erp", "ord-old", 1, pipeline.DeadExhausted, 4, 20*24*time.Hour),
		lost("hookline.events.dead", "orders/0/7", "no field /kind", []byte("{}")), lost("hookline.attempts.dead", "hookline.attempts/0/3", "version 9", []byte{0xff, 0}),
	}
}

// The dead letters of all three topics are told: why, which event, when, from
// where, and how to deliver them again.
func TestDeadLetters(t *testing.T) {
	cluster := testkit.KFake(t, kfake.SeedTopics(2, "hookline.dead"), kfake.SeedTopics(1, "hookline.events.dead", "hookline.attempts.dead"))
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for _, r := range deadRecords() {
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0]}
	delivery := pipeline.DeliveryID(&pipeline.Position{Cluster: "c", Topic: "orders", Partition: 1, Offset: 42}, "erp")
	for _, tt := range []struct {
		args string
		want []string
		not  string
	}{
		{"list", []string{
			"dead/1/0 exhausted erp order.placed ord-1 4 orders/1/42 status 503 [31m", "dead/0/0 cancelled crm order.placed ord-2 0 orders/1/42",
			"events.dead/0/0 no event - - - - orders/0/7 no field /kind", "attempts.dead/0/0 not stored - - - - hookline.attempts/0/3 version 9",
		}, "ord-old"},
		{"list --since 30d --subscription erp", []string{"ord-1", "ord-old"}, "crm"},
		{"list --since 30d --limit 1 --subscription erp", []string{"ord-1", "1 older one left out"}, "ord-old"},
		{"list --reason cancelled", []string{"ord-2"}, "ord-1"},
		{"list --event ord-2", []string{"dead/0/0"}, "erp"},
		{"list --delivery " + delivery, []string{"dead/1/0"}, "crm"},
		{"list --until 90m", []string{"ord-2"}, "ord-1"},
		{"list --topic events.dead", []string{"events.dead/0/0"}, "ord-1"},
		{"list --since 1s --reason skipped", []string{"no dead letters since 20"}, "TIME"},
		{"show dead/1/0", []string{"delivery " + delivery, "again hookline replay --delivery " + delivery + " --yes", "payload 13 bytes", `{"n":1}\u001b]0;x`}, "\x1b"},
		{"show hookline.dead/0/0", []string{"reason cancelled", "hookline replay --subscription crm --missed"}, "--delivery"},
		{"show " + delivery, []string{"at dead/1/"}, "crm"},
		{"show events.dead/0/0", []string{"hookline dead show events.dead/0/0 --payload | hookline produce --topic orders"}, ""},
		{"show attempts.dead/0/0", []string{"not text: --payload writes the bytes", "the deliveries were made"}, ""},
		{"show attempts.dead/0/0 --json", []string{`"payload_base64": "/wA="`}, ""},
	} {
		r := run(t, env, append([]string{"dead"}, strings.Fields(tt.args)...)...)
		text := strings.Join(strings.Fields(r.out), " ")
		for _, want := range tt.want {
			if r.code != exitDone || !strings.Contains(text, want) {
				t.Errorf("dead %s: exit code %d, %q is missing:\n%s%s", tt.args, r.code, want, r.out, r.err)
			}
		}
		if tt.not != "" && strings.Contains(r.out, tt.not) {
			t.Errorf("dead %s: %q is there:\n%s", tt.args, tt.not, r.out)
		}
	}
	var list []deadLetter
	if r := run(t, env, "dead", "list", "--json"); json.Unmarshal([]byte(r.out), &list) != nil || len(list) != 4 || list[0].Event != "ord-2" || *list[0].Attempts != 0 {
		t.Errorf("%d dead letters, in the order of their times: %s%s", len(list), r.out, r.err)
	}
	if r := run(t, env, "dead", "show", "events.dead/0/0", "--payload"); r.out != "{}" {
		t.Errorf("payload %q", r.out)
	}
	for _, at := range []string{"dead/1/99", "dlv_none"} {
		if r := run(t, env, "dead", "show", at); r.code != exitFailed {
			t.Errorf("showing %s: exit code %d: %s", at, r.code, r.err)
		}
	}
}

// Where nothing was dead yet there is no topic, and that is no error.
func TestNoDeadLetters(t *testing.T) {
	cluster := testkit.KFake(t)
	r := run(t, []string{"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0]}, "dead", "list")
	expect(t, r, fmt.Sprintf("no dead letters since %d", time.Now().Add(-7*24*time.Hour).Year()))
}
