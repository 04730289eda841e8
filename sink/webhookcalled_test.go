package sink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

const calledTopic = "hookline.webhook_called"

// calledWorld is a world whose sinks produce webhook_called.
type calledWorld struct {
	*world
	source pipeline.Position // of the event topic's start
	reader *kgo.Client
}

func newCalledWorld(t *testing.T) *calledWorld {
	w := &calledWorld{world: newWorld(t)}
	if _, err := w.adm.CreateTopic(t.Context(), 1, 1, nil, calledTopic); err != nil {
		t.Fatal(err)
	}
	md, err := w.adm.Metadata(t.Context(), eventsTopic)
	if err != nil {
		t.Fatal(err)
	}
	w.source = pipeline.Position{Cluster: md.Cluster, TopicID: md.Topics[eventsTopic].ID, Topic: eventsTopic}
	w.reader, err = kgo.NewClient(kgo.SeedBrokers(w.addrs...), kgo.ConsumeTopics(calledTopic), kgo.FetchMaxWait(20*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.reader.Close)
	return w
}

func withCalled(c *Config, d *Deps) {
	c.WebhookCalled = true
	d.WebhookCalledTopic, d.DumpBodyBytes, d.ParseEvent = calledTopic, 64, parseAny
	d.ClientOpts = append(d.ClientOpts, kgo.InstanceID("i1")) // as what the app may give
}

// goflowAttempt is an attempt of the event at an offset, a resthook's.
func (w *calledWorld) attempt(offset int64, n int, status int) pipeline.Attempt {
	payload := calledPayload(offset)
	src := w.source
	src.Offset = offset
	a := pipeline.Attempt{
		AttemptID: fmt.Sprintf("a%d.%d", offset, n), DeliveryID: fmt.Sprint("d", offset), SubscriptionID: "hook", URL: "https://x.example/h", Attempt: n,
		StatusCode: status, StartedAt: viewStart, Elapsed: time.Millisecond, RequestHeaders: []byte("Host: x.example\r\n"), RequestBytes: len(payload), RequestWritten: true,
		ResponseBody: []byte("answer"), Envelope: &pipeline.Envelope{Source: src, Format: pipeline.FormatGoflow, EventID: fmt.Sprint("e", offset), EventType: "resthook_called"},
	}
	switch status {
	case 0:
		a.Outcome, a.Error = pipeline.OutcomeConnectError, "connect ECONNREFUSED 1.2.3.4:443"
	case 200:
		a.Outcome = pipeline.OutcomeSuccess
	case 410:
		a.Outcome = pipeline.OutcomeGone
	default:
		a.Outcome = pipeline.OutcomeResponseError
	}
	return a
}

func calledPayload(offset int64) string { return fmt.Sprintf(`{"n": %d}`, offset) }

func (w *calledWorld) events(n int) {
	for i := range n {
		w.produce(eventsTopic, fmt.Appendf(nil, `{"type":"resthook_called","created_on":"2026-03-01T15:04:05Z","resthook":"success","payload":%s}`, calledPayload(int64(i))))
	}
}

func (w *calledWorld) log(list ...pipeline.Attempt) {
	w.produce(attemptsTopic, attemptlog.AppendBatch(nil, list, attemptlog.Options{}))
}

// called reads the next n records.
func (w *calledWorld) called(n int) []*kgo.Record {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	var out []*kgo.Record
	for len(out) < n {
		f := w.reader.PollRecords(ctx, n-len(out))
		if err := f.Err0(); err != nil {
			w.t.Fatalf("%d of %d records: %v\n%s", len(out), n, err, w.logs)
		}
		out = append(out, f.Records()...)
	}
	return out
}

// end is how many records the topic has.
func (w *calledWorld) end() int64 {
	w.t.Helper()
	ends, err := kadm.NewClient(w.cl).ListEndOffsets(w.t.Context(), calledTopic)
	if err != nil {
		w.t.Fatal(err)
	}
	o, _ := ends.Lookup(calledTopic, 0)
	return o.Offset
}

func header(rec *kgo.Record, key string) string {
	for _, h := range rec.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// TestWebhookCalledRecords: attempts of goflow events only, with the bodies as
// they were sent, in the order of the log, keyed by event.
func TestWebhookCalledRecords(t *testing.T) {
	w := newCalledWorld(t)
	w.events(4)
	w.attempts(3) // of another format
	cancelled := w.attempt(1, 0, 0)
	cancelled.Outcome = pipeline.OutcomeCancelled
	local := w.attempt(1, 1, 0)
	local.Outcome = pipeline.OutcomeLocalError
	elsewhere := w.attempt(2, 3, 200)
	elsewhere.Envelope.Source.TopicID = [16]byte{9}
	beyond := w.attempt(2, 4, 200)
	beyond.Envelope.Source.Offset = 1000
	w.log(w.attempt(3, 1, 0), w.attempt(0, 1, 200), local, w.attempt(3, 2, 500), cancelled)
	w.log(w.attempt(2, 1, 410), elsewhere, beyond)
	s := w.start(withCalled)
	w.committed(3)
	want := []struct{ attempt, status, body string }{
		{"a3.1", "connection_error", calledPayload(3)},
		{"a0.1", "success", calledPayload(0)},
		{"a3.2", "response_error", calledPayload(3)},
		{"a2.1", "subscriber_gone", calledPayload(2)},
		{"a2.3", "success", ""},
		{"a2.4", "success", ""},
	}
	for i, rec := range w.called(len(want)) {
		var v struct {
			Type, Status, Resthook, Request string
			BodyIgnored                     bool `json:"body_ignored"`
		}
		if err := json.Unmarshal(rec.Value, &v); err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(v.Request, "\r\n\r\n")
		if header(rec, headerAttempt) != want[i].attempt || v.Status != want[i].status || body != want[i].body || v.Type != "webhook_called" || v.BodyIgnored != (body == "") {
			t.Errorf("record %d, %s: %s", i, header(rec, headerAttempt), rec.Value)
		}
		if (v.Resthook == "success") != (body != "") || string(rec.Key) != "e"+want[i].attempt[1:2] || header(rec, headerSubscription) != "hook" || strings.Contains(string(rec.Value), "event_id") {
			t.Errorf("record %d, key %s, headers %v: %s", i, rec.Key, rec.Headers, rec.Value)
		}
	}
	w.log(w.attempt(0, 2, 200))
	w.called(1)
	w.committed(4)
	s.stop()
	w.start(withCalled)
	w.log(w.attempt(1, 1, 200))
	w.committed(5)
	if n := w.end(); n != 8 {
		t.Errorf("%d records, want 8: each attempt once", n)
	}
}

// TestWebhookCalledOff: nothing is produced where it is not asked for.
func TestWebhookCalledOff(t *testing.T) {
	w := newCalledWorld(t)
	w.log(w.attempt(0, 1, 200))
	w.start()
	w.committed(1)
	if n := w.end(); n != 0 {
		t.Errorf("%d records", n)
	}
}

// TestWebhookCalledAfterCrash: a process that ends before the commit leaves the
// block to the next one, which produces its records again, the same; nothing is
// missing and the rows are stored once.
func TestWebhookCalledAfterCrash(t *testing.T) {
	w := newCalledWorld(t)
	w.events(2)
	w.log(w.attempt(0, 1, 500), w.attempt(1, 1, 200))
	var whole atomic.Bool
	refused := make(chan struct{}, 100)
	w.kafka.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		if p := kreq.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0]; whole.Load() || p.Offset == 0 {
			return nil, nil, false
		}
		refused <- struct{}{}
		return nil, errors.New("connection broken"), true
	})
	s := w.start(attemptsOnly, withCalled)
	<-refused
	first := w.called(2)
	s.stop()
	whole.Store(true)
	w.start(attemptsOnly, withCalled)
	w.committed(1)
	again := w.called(2)
	for i := range again {
		if header(again[i], headerAttempt) != header(first[i], headerAttempt) || string(again[i].Value) != string(first[i].Value) {
			t.Errorf("record %d came again as another: %s, %s", i, first[i].Value, again[i].Value)
		}
	}
	w.ch.once(t, 2)
	if n := w.end(); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
}

// TestWebhookCalledTooLarge: a record that Kafka refuses goes without its dumps.
func TestWebhookCalledTooLarge(t *testing.T) {
	w := newCalledWorld(t)
	w.events(1)
	md, err := w.adm.Metadata(t.Context(), calledTopic)
	if err != nil {
		t.Fatal(err)
	}
	id := [16]byte(md.Topics[calledTopic].ID)
	w.kafka.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		req := kreq.(*kmsg.ProduceRequest)
		part := req.Topics[0].Partitions[0]
		if req.Topics[0].Topic != calledTopic && req.Topics[0].TopicID != id || len(part.Records) < 3000 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.ProduceResponse)
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
		rp := kmsg.NewProduceResponseTopicPartition()
		rp.Partition, rp.ErrorCode = part.Partition, kerr.MessageTooLarge.Code
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	big := w.attempt(0, 1, 200)
	for i := range 5000 { // does not compress well
		big.ResponseBody = fmt.Appendf(big.ResponseBody, "%x", i*i*i*7919)
	}
	w.log(big)
	w.start(attemptsOnly, withCalled)
	got := w.called(1)[0]
	if v := string(got.Value); !strings.Contains(v, `"request":"POST /h HTTP/1.1\r\n\r\n","body_ignored":true}`) || strings.Contains(v, "response\"") {
		t.Errorf("record %s", v)
	}
}
