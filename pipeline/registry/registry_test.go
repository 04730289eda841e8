package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a broker with an empty registry topic.
type world struct {
	*testing.T
	ctx    context.Context
	cfg    Config
	deps   Deps
	writer *Writer
}

func newWorld(t *testing.T, client ...kgo.Opt) *world {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	w := &world{T: t, ctx: ctx, cfg: Config{Topic: "hookline.subscriptions"}}
	w.deps = Deps{Client: client, Policy: *testPolicy(), Log: slog.New(slog.DiscardHandler)}
	w.writer = NewWriter(w.cfg, w.deps)
	return w
}

func fakeWorld(t *testing.T) (*world, *kfake.Cluster) {
	t.Helper()
	c := testkit.KFake(t, kfake.SeedTopics(1, "hookline.subscriptions"))
	return newWorld(t, kgo.SeedBrokers(c.ListenAddrs()...), kgo.MetadataMinAge(20*time.Millisecond)), c
}

// follow runs a registry until the test ends.
func (w *world) follow() *Registry {
	w.Helper()
	r := New(w.cfg, w.deps)
	ctx, cancel := context.WithCancel(w.ctx)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	w.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	return r
}

func (w *world) await(r *Registry, version int64) *Snapshot {
	w.Helper()
	s, err := r.Await(w.ctx, version)
	if err != nil {
		w.Fatal(err)
	}
	return s
}

// end is the offset behind the topic's last record.
func (w *world) end() int64 {
	w.Helper()
	client := w.client()
	defer client.Close()
	end, err := (&tail{client: client, topic: w.cfg.Topic}).end(w.ctx)
	if err != nil {
		w.Fatal(err)
	}
	return end
}

// settledEnd is the end when no transaction is open: the marker of one whose end
// was answered may come a moment later.
func (w *world) settledEnd() int64 {
	w.Helper()
	client := w.client()
	defer client.Close()
	t := &tail{client: client, topic: w.cfg.Topic, next: w.end()}
	for {
		end := w.end()
		if _, err := t.fetch(w.ctx, time.Millisecond); err != nil {
			w.Fatal(err)
		}
		if t.stable >= end {
			return end
		}
	}
}

func (w *world) client(opts ...kgo.Opt) *kgo.Client {
	w.Helper()
	client, err := kgo.NewClient(append(slices.Clone(w.deps.Client), opts...)...)
	if err != nil {
		w.Fatal(err)
	}
	return client
}

// transaction writes records as another producer does.
func (w *world) transaction(try kgo.TransactionEndTry, kvs ...string) {
	w.Helper()
	client := w.client(kgo.TransactionalID("someone"))
	defer client.Close()
	w.must(client.BeginTransaction())
	w.produce(client, kvs...)
	w.must(client.EndTransaction(w.ctx, try))
}

func (w *world) produce(client *kgo.Client, kvs ...string) {
	w.Helper()
	for i := 0; i < len(kvs); i += 2 {
		rec := &kgo.Record{Topic: w.cfg.Topic, Key: []byte(kvs[i]), Value: []byte(kvs[i+1])}
		w.must(client.ProduceSync(w.ctx, rec).FirstErr())
	}
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func doc(id string) Document {
	return Document{ID: id, Tenant: "t", URL: "https://" + id + ".example.com/"}
}

func (w *world) apply(prune bool, docs ...Document) string {
	w.Helper()
	changes, err := w.writer.Apply(w.ctx, docs, prune)
	w.must(err)
	return summary(changes)
}

func summary(changes []Change) string {
	var words []string
	for _, c := range changes {
		words = append(words, c.ID+" "+string(c.Action))
	}
	return strings.Join(words, ", ")
}

func same[T comparable](t *testing.T, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestOnKFake(t *testing.T) {
	for _, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			w, _ := fakeWorld(t)
			s.run(w)
		})
	}
}

func TestOnKafka(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a broker")
	}
	cluster := testkit.Kafka(t, 1)
	for i, s := range suite {
		t.Run(s.name, func(t *testing.T) {
			w := newWorld(t, kgo.SeedBrokers(cluster.Addrs()...), kgo.MetadataMinAge(20*time.Millisecond))
			w.cfg.Topic = fmt.Sprintf("s%d.subscriptions", i)
			w.writer = NewWriter(w.cfg, w.deps)
			w.create(1)
			s.run(w)
		})
	}
}

func (w *world) create(partitions int32) {
	w.Helper()
	client := w.client()
	defer client.Close()
	testkit.CreateTopics(w.T, client, partitions, 1, w.cfg.Topic)
}

func (w *world) remove() {
	w.Helper()
	client := w.client()
	defer client.Close()
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 10_000
	req.TopicNames = []string{w.cfg.Topic}
	topic := kmsg.NewDeleteTopicsRequestTopic()
	topic.Topic = &w.cfg.Topic
	req.Topics = append(req.Topics, topic)
	resp, err := req.RequestWith(w.ctx, client)
	w.must(err)
	w.must(kerr.ErrorForCode(resp.Topics[0].ErrorCode))
}

// suite is what must hold on any broker.
var suite = []struct {
	name string
	run  func(*world)
}{
	{"life of a subscription", lifeOfASubscription},
	{"versions over transactions", versionsOverTransactions},
	{"one of two writers", oneOfTwoWriters},
	{"writer waits for open transactions", writerWaitsForOpenTransactions},
	{"foreign and newer records", foreignRecords},
	{"a preview changes nothing", previewChangesNothing},
}

func previewChangesNothing(w *world) {
	w.apply(false, doc("a"), doc("b"), doc("same"))
	before := w.settledEnd()
	moved := doc("b")
	moved.URL = "https://elsewhere.example.com/"
	changes, err := w.writer.Preview(w.ctx, []Document{moved, doc("c"), doc("same")}, true)
	w.must(err)
	const want = "b updated, c created, same unchanged, a deleted"
	same(w.T, "preview", summary(changes), want)
	same(w.T, "the end after a preview", w.end(), before)
	same(w.T, "what was announced", w.apply(true, moved, doc("c"), doc("same")), want)
}

func lifeOfASubscription(w *world) {
	r := w.follow()
	<-r.Ready()
	same(w.T, "version of an empty topic", r.Snapshot().Version(), -1)

	a, b := doc("a"), doc("b")
	same(w.T, "first apply", w.apply(false, a, b), "a created, b created")
	snap := w.await(r, w.end()-1)
	same(w.T, "subscriptions", snap.Len(), 2)
	first := snap.Get("a")
	same(w.T, "URL", first.URL, a.URL)
	generation := snap.Generation()

	before := w.end()
	same(w.T, "the same again", w.apply(false, a, b), "a unchanged, b unchanged")
	same(w.T, "the end after it", w.end(), before)

	_, err := w.writer.SetState(w.ctx, "a", pipeline.StatePaused, "operator")
	w.must(err)
	snap = w.await(r, w.end()-1)
	same(w.T, "state", snap.Get("a").State, pipeline.StatePaused)
	same(w.T, "reason", snap.Get("a").StateReason, "operator")
	if snap.Generation() <= generation {
		w.Error("a change of state is no new generation")
	}

	a.URL = "https://new.example.com/"
	same(w.T, "a change", w.apply(false, a, b), "a updated, b unchanged")
	snap = w.await(r, w.end()-1)
	same(w.T, "new URL", snap.Get("a").URL, a.URL)
	same(w.T, "state under the new revision", snap.Get("a").State, pipeline.StatePaused)
	if snap.Get("a").Revision <= first.Revision {
		w.Error("the revision has not grown")
	}
	item, err := w.writer.Get(w.ctx, "a")
	w.must(err)
	same(w.T, "effective state", item.Effective, pipeline.StatePaused)

	_, err = w.writer.SetState(w.ctx, "a", pipeline.StateActive, "")
	w.must(err)
	_, err = w.writer.SetState(w.ctx, "b", pipeline.StateDisabled, "gone")
	w.must(err)
	snap = w.await(r, w.end()-1)
	same(w.T, "resumed", snap.Get("a").State, pipeline.StateActive)
	same(w.T, "disabled", snap.Get("b").State, pipeline.StateDisabled)
	b.Description = "mended"
	changes, err := w.writer.Apply(w.ctx, []Document{b}, false)
	w.must(err)
	same(w.T, "a disabled one", fmt.Sprint(summary(changes), ", after ", changes[0].Reactivated), "b updated, after gone")
	snap = w.await(r, w.end()-1)
	same(w.T, "its state", snap.Get("b").State, pipeline.StateActive)
	same(w.T, "what it missed", len(snap.State("b").Missed), 1)
	same(w.T, "why", snap.State("b").Missed[0].Reason, "gone")
	missedSpans(w, r)

	same(w.T, "prune", w.apply(true, b), "b unchanged, a deleted")
	snap = w.await(r, w.end()-1)
	if snap.Get("a") != nil || snap.Len() != 1 || snap.State("a") != nil {
		w.Error("pruned, but there")
	}
	_, err = w.writer.Delete(w.ctx, "b", "a")
	if !errors.Is(err, ErrNotFound) || w.await(r, w.end()-1).Get("b") == nil {
		w.Errorf("deleting what there is not: %v", err)
	}
	same(w.T, "a again", w.apply(false, a), "a created")
	same(w.T, "its state", w.await(r, w.end()-1).Get("a").State, pipeline.StateActive)
	items, err := w.writer.List(w.ctx)
	w.must(err)
	same(w.T, "listed", len(items), 2)
}

// versionsOverTransactions: a version is reached over markers and aborted
// records, by who followed and by who starts later.
func versionsOverTransactions(w *world) {
	early := w.follow()
	w.apply(false, doc("a"))
	w.transaction(kgo.TryAbort, "b", "aborted")
	const end = 4 // a, its marker, the aborted record, its marker (written after the answer)
	for _, r := range []*Registry{early, w.follow()} {
		snap := w.await(r, end-1)
		same(w.T, "version", snap.Version(), end-1)
		same(w.T, "subscriptions", snap.Len(), 1)
		same(w.T, "refused", snap.Bad(), 0)
	}
}

// missedSpans: the times in which "b" was disabled are kept until what it missed
// has been delivered.
func missedSpans(w *world, r *Registry) {
	w.Helper()
	spans := func() int { return len(w.await(r, w.end()-1).State("b").Missed) }
	for _, st := range []pipeline.State{pipeline.StateDisabled, pipeline.StatePaused, pipeline.StateActive} {
		_, err := w.writer.SetState(w.ctx, "b", st, "r")
		w.must(err)
	}
	same(w.T, "spans after a second time", spans(), 2)
	_, err := w.writer.CaughtUp(w.ctx, "b")
	if !errors.Is(err, ErrStateChanged) {
		w.Errorf("the end of a catch-up that is not under way: %v", err)
	}
	w.must(w.writer.MissedDelivered(w.ctx, "b", time.Now().Add(-time.Hour)))
	same(w.T, "spans before that time", spans(), 2)
	_, err = w.writer.SetState(w.ctx, "b", pipeline.StatePaused, pipeline.ReasonCatchUp)
	w.must(err)
	_, err = w.writer.SetState(w.ctx, "b", pipeline.StatePaused, "by an operator")
	w.must(err)
	same(w.T, "paused while it catches up", w.await(r, w.end()-1).Get("b").StateReason, "by an operator")
	_, err = w.writer.CaughtUp(w.ctx, "b")
	if !errors.Is(err, ErrStateChanged) {
		w.Errorf("the end of a catch-up that was paused: %v", err)
	}
	_, err = w.writer.SetState(w.ctx, "b", pipeline.StatePaused, pipeline.ReasonCatchUp)
	w.must(err)
	_, err = w.writer.CaughtUp(w.ctx, "b")
	w.must(err)
	same(w.T, "spans after a catch-up", spans(), 0)
	same(w.T, "state after a catch-up", w.await(r, w.end()-1).Get("b").State, pipeline.StateActive)
}

func oneOfTwoWriters(w *world) {
	w.apply(false, doc("a"))
	_, err := w.writer.change(w.ctx, audit.ActionApply, func(s *session) ([]Change, error) {
		same(w.T, "the one in between", w.apply(false, doc("b")), "b created")
		d := doc("c")
		c, err := s.put(&d)
		return []Change{c}, err
	})
	if !errors.Is(err, ErrConflict) {
		w.Errorf("got %v, want ErrConflict", err)
	}
	snap := w.await(w.follow(), w.end()-1)
	if snap.Get("b") == nil || snap.Get("c") != nil {
		w.Error("the fenced writer has written, or the other has not")
	}
	same(w.T, "afterwards", w.apply(false, doc("c")), "c created")
}

// writerWaitsForOpenTransactions: what another producer has not decided yet is
// neither missed nor overtaken.
func writerWaitsForOpenTransactions(w *world) {
	w.apply(false, doc("a"))
	item, err := w.writer.Get(w.ctx, "a")
	w.must(err)
	client := w.client(kgo.TransactionalID("dispatcher"))
	defer client.Close()
	w.must(client.BeginTransaction())
	key, value := StateRecord("a", &StateInfo{Revision: item.Revision, State: pipeline.StatePaused, Reason: "open"})
	w.produce(client, string(key), string(value))
	var committed atomic.Bool
	done := make(chan string, 1)
	go func() {
		changed := doc("a")
		changed.Description = "x"
		changes, err := w.writer.Apply(w.ctx, []Document{changed}, false)
		done <- fmt.Sprintf("%s, %v, %v", summary(changes), err, committed.Load())
	}()
	// The writer can only be waiting: give it the time to do otherwise.
	select {
	case got := <-done:
		w.Errorf("the writer did not wait: %s", got)
	case <-time.After(300 * time.Millisecond):
		committed.Store(true)
		w.must(client.EndTransaction(w.ctx, kgo.TryCommit))
		same(w.T, "apply", <-done, "a updated, <nil>, true")
	}
	snap := w.await(w.follow(), w.end()-1)
	same(w.T, "the state under the new revision", snap.Get("a").State, pipeline.StatePaused)
}

func foreignRecords(w *world) {
	newer := strings.Replace(storedA, `"tenant"`, `"colour":{"x":[1.50]},"tenant"`, 1)
	next := strings.NewReplacer(`"v":1`, `"v":2`, `"a"`, `"n"`).Replace(storedA)
	w.transaction(kgo.TryCommit, "a", newer, "bad key!", "x", "n", next)
	r := w.follow()
	snap := w.await(r, w.end()-1)
	same(w.T, "good ones", snap.Len(), 1)
	same(w.T, "refused", snap.Bad(), 1)

	a := doc("a")
	a.Description = "new"
	same(w.T, "apply", w.apply(false, a), "a updated")
	client := w.client()
	defer client.Close()
	rd := tail{client: client, topic: w.cfg.Topic}
	var last string
	for end := w.end(); rd.next < end; {
		records, err := rd.fetch(w.ctx, fetchWait)
		w.must(err)
		for _, rec := range records {
			last = string(rec.Value)
		}
	}
	if !strings.Contains(last, `"colour":{"x":[1.50]}`) || !strings.Contains(last, `"description":"new"`) {
		w.Errorf("the unknown field is not kept: %s", last)
	}
	if _, err := w.writer.Apply(w.ctx, []Document{doc("n")}, false); err == nil || !strings.Contains(err.Error(), "newer than this program") {
		w.Errorf("a newer record was overwritten: %v", err)
	}
}

func TestNothingBeforeTheEnd(t *testing.T) {
	w, c := fakeWorld(t)
	w.apply(false, doc("a"), doc("b"))
	asked, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.SleepControl(func() {
			once.Do(func() { close(asked) }) // kfake asks again for a request that it holds back
			<-release
		})
		return nil, nil, false
	})
	r := w.follow()
	<-asked
	if r.Snapshot() != nil {
		t.Error("a snapshot before the topic was read")
	}
	select {
	case <-r.Ready():
		t.Error("ready before the topic was read")
	default:
	}
	close(release)
	<-r.Ready()
	same(t, "subscriptions", r.Snapshot().Len(), 2)
}

func TestChangedIsSeenByEveryListener(t *testing.T) {
	w, _ := fakeWorld(t)
	r := w.follow()
	<-r.Ready()
	one, two := r.Changed(), r.Changed()
	w.apply(false, doc("a"))
	<-one
	<-two
	if r.Snapshot().Version() < 0 {
		t.Error("the snapshot is older than its notice")
	}
}

func TestTroubleWithKafkaPasses(t *testing.T) {
	w, c := fakeWorld(t)
	w.apply(false, doc("a"))
	var faults atomic.Int32
	c.ControlKey(int16(kmsg.Fetch), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		if faults.Add(1) > 3 {
			return nil, nil, false
		}
		c.KeepControl()
		req := kreq.(*kmsg.FetchRequest)
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		topic := kmsg.NewFetchResponseTopic()
		topic.Topic, topic.TopicID = req.Topics[0].Topic, req.Topics[0].TopicID
		p := kmsg.NewFetchResponseTopicPartition()
		p.ErrorCode = kerr.NotLeaderForPartition.Code
		topic.Partitions = append(topic.Partitions, p)
		resp.Topics = append(resp.Topics, topic)
		return resp, nil, true
	})
	same(t, "subscriptions", w.await(w.follow(), w.end()-1).Len(), 1)
	if faults.Load() < 3 {
		t.Errorf("%d faults, want 3", faults.Load())
	}
}

func TestSilenceIsTold(t *testing.T) {
	w, c := fakeWorld(t)
	w.apply(false, doc("a"))
	var away atomic.Bool
	c.ControlKey(int16(kmsg.Fetch), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if away.Load() {
			return nil, errors.New("away"), true
		}
		return nil, nil, false
	})
	r := w.follow()
	w.await(r, w.end()-1)
	await := func(what string, ok func(time.Duration, error) bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for !ok(r.Silent()) {
			if pause(ctx, 5*time.Millisecond) != nil {
				t.Fatalf("waited 20 s until %s", what)
			}
		}
	}
	await("it can be read", func(d time.Duration, err error) bool { return d == 0 && err == nil })
	began := time.Now()
	await("what is known is of now", func(time.Duration, error) bool { return r.ReadAt().After(began) })
	away.Store(true)
	await("the silence grows", func(d time.Duration, err error) bool { return d > 100*time.Millisecond && err != nil })
	if at := r.ReadAt(); time.Since(at) < 50*time.Millisecond {
		t.Errorf("all is said to have been read at %v, while nothing can be", at)
	}
	away.Store(false)
	await("it can be read again", func(d time.Duration, err error) bool { return d == 0 && err == nil })
}

func TestRunRefuses(t *testing.T) {
	w, _ := fakeWorld(t)
	w.cfg.Topic = "two"
	w.create(2)
	if err := New(w.cfg, w.deps).Run(w.ctx); !errors.Is(err, errPartitions) {
		t.Errorf("two partitions: got %v", err)
	}

	w.cfg.Topic = "hookline.subscriptions"
	r := New(w.cfg, w.deps)
	done := make(chan error, 1)
	go func() { done <- r.Run(w.ctx) }()
	<-r.Ready()
	w.remove()
	w.create(1)
	if err := <-done; !errors.Is(err, ErrTopicLost) {
		t.Errorf("made anew: got %v", err)
	}
}

func TestTopicMayComeLater(t *testing.T) {
	w, _ := fakeWorld(t)
	w.cfg.Topic = "later"
	r := w.follow()
	w.create(1)
	<-r.Ready()
	same(t, "version", r.Snapshot().Version(), -1)
}

// TestTailCrossesWhatWasCompactedAway: the end of a topic may have no record.
func TestTailCrossesWhatWasCompactedAway(t *testing.T) {
	rd := tail{next: 7}
	for _, tt := range []struct{ stable, want int64 }{{12, 12}, {12, 12}, {3, 12}} {
		p := kmsg.NewFetchResponseTopicPartition()
		p.LastStableOffset = tt.stable
		if records, err := rd.take(&p); err != nil || records != nil || rd.next != tt.want {
			t.Errorf("got %v, %v, next %d, want %d", records, err, rd.next, tt.want)
		}
	}
}

func TestApplyChecksAgain(t *testing.T) {
	w := NewWriter(Config{Topic: "t"}, Deps{Policy: *testPolicy()})
	_, err := w.Apply(context.Background(), []Document{doc("a"), doc("a"), {ID: "b"}}, false)
	for _, want := range []string{`subscription "a".id: it is there twice`, `subscription "b".url: missing`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}
