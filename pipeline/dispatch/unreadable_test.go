package dispatch

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// put writes one record as it is, outside of transactions.
func (b *bench) put(topic, key, value string, headers ...string) {
	b.t.Helper()
	r := &kgo.Record{Topic: topic, Partition: 0, Key: []byte(key), Value: []byte(value)}
	for i := 0; i < len(headers); i += 2 {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: headers[i], Value: []byte(headers[i+1])})
	}
	if err := b.cl.ProduceSync(b.t.Context(), r).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// settled has one event delivered, so that deliveries/0 is settled up to it.
func (b *bench) settled(ids ...string) {
	b.t.Helper()
	r := b.start(nil)
	b.event(ids...)
	b.ledger.await(b.t, "the first event", func() bool { return b.ledger.successes() == len(ids) })
	r.stop(b.t)
}

// Copies that cannot be read are made again of their origin, in their turn and
// with the attempts that they had made.
func TestUnreadableCopiesAreSentFromTheirOrigin(t *testing.T) {
	b := kfakeBench(t, 1, sub("head", nil), sub("parked", nil))
	b.settled("head", "parked")
	topics := b.kafka.Topics()
	b.put(topics.Lanes(), "head", `{"v":1,"next":0,"head":{"o":0,"k":1}}`)
	b.put(topics.Retry(1), "head", "who knows")
	b.put(topics.Lanes(), "parked", `{"v":1,"next":0,"from":0}`)
	b.put(topics.Parked(), "parked", "0", kafkax.HeaderOrigin, "0", kafkax.HeaderLane, "parked", kafkax.HeaderAttempts, "not a number")
	b.start(nil)
	b.ledger.await(t, "both again", func() bool { return len(b.ledger.of("head")) == 2 && len(b.ledger.of("parked")) == 2 })
	if again := b.ledger.of("head")[1]; again.attempt != 2 || again.seq != 0 {
		t.Errorf("the head: %+v", again)
	}
	if again := b.ledger.of("parked")[1]; again.attempt != 1 || again.seq != 0 {
		t.Errorf("the parked one: %+v", again)
	}
	b.event("head", "parked")
	b.ledger.await(t, "the next event", func() bool { return len(b.ledger.of("head")) == 3 && len(b.ledger.of("parked")) == 3 })
	if dead := b.read(topics.Dead()); len(dead) != 0 {
		t.Errorf("dead: %v", dead)
	}
}

// What neither copy nor origin tells goes to dead with the bytes as they are,
// and the lane goes on.
func TestUnreadableForGood(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	topics := b.kafka.Topics()
	b.put(topics.Deliveries(), "", "not of hookline", "x", "y")
	b.put(topics.Lanes(), "s", `{"v":1,"next":0,"from":0}`)
	b.put(topics.Parked(), "s", "copy", kafkax.HeaderOrigin, "0", kafkax.HeaderLane, "s", kafkax.HeaderEnvelope, "?")
	b.put(topics.Parked(), "s", "nobody's")
	r := b.start(nil)
	b.event("s")
	b.ledger.await(t, "the event", func() bool { return b.ledger.successes() == 1 })
	r.stop(t)
	got := map[string]string{} // value -> source
	for _, d := range b.read(topics.Dead()) {
		got[string(d.Value)] = string(header(d, headerRecord))
		if reason := string(header(d, kafkax.HeaderReason)); reason != string(pipeline.DeadUnreadable) || len(header(d, kafkax.HeaderError)) == 0 {
			t.Errorf("%q: reason %q, error %q", d.Value, reason, header(d, kafkax.HeaderError))
		}
		if string(d.Value) == "not of hookline" && string(header(d, headerRaw+"x")) != "y" {
			t.Errorf("headers: %v", d.Headers)
		}
	}
	for value, at := range map[string]string{"not of hookline": "deliveries/0/0", "copy": "parked/0/0", "nobody's": "parked/0/1"} {
		if !strings.HasSuffix(got[value], at) {
			t.Errorf("%q is said to be from %q, want %s", value, got[value], at)
		}
	}
	n := len(b.read(topics.Dead()))
	r = b.start(nil)
	b.event("s")
	b.ledger.await(t, "the next event", func() bool { return b.ledger.successes() == 2 })
	r.stop(t)
	if again := len(b.read(topics.Dead())); n != 3 || again != n {
		t.Errorf("%d dead records, want 3, and as many after another start: %d", n, again)
	}
}

// The last records of a retry topic may not be there to be read at all.
func TestHeadsOfWhichThereIsNoRecord(t *testing.T) {
	b := kfakeBench(t, 1, sub("s", nil))
	b.settled("s")
	b.put(b.kafka.Topics().Lanes(), "s", `{"v":1,"next":0,"head":{"o":0,"k":2}}`)
	begun := time.Now()
	b.start(nil)
	b.ledger.await(t, "the third attempt", func() bool { return len(b.ledger.of("s")) == 2 })
	if again := b.ledger.of("s")[1]; again.attempt != 3 || again.begun.Sub(begun) < testDelay {
		t.Errorf("%+v, %v after the start", again, again.begun.Sub(begun))
	}
}
