package replay

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/kafkax"
)

var missed = Selection{Subscription: "erp", Missed: true, CatchUp: true}

// routed commits the router's offsets at the ends of events.
func (w *world) routed() {
	w.Helper()
	adm := kadm.NewClient(w.cl)
	ends, err := adm.ListEndOffsets(w.Context(), w.topic)
	if err != nil {
		w.Fatal(err)
	}
	if err := adm.CommitAllOffsets(w.Context(), w.kafka.RouterGroup(), ends.Offsets()); err != nil {
		w.Fatal(err)
	}
}

func (w *world) state(s pipeline.State, reason string) {
	w.Helper()
	if _, err := w.writer.SetState(w.Context(), "erp", s, reason); err != nil {
		w.Fatal(err)
	}
}

// envelope of the first event.
func (w *world) envelope() *pipeline.Envelope {
	w.Helper()
	id, err := w.r.fetcher.TopicID(w.Context(), w.topic)
	if err != nil {
		w.Fatal(err)
	}
	return &pipeline.Envelope{Source: pipeline.Position{Cluster: "c", TopicID: id, Topic: w.topic}, Format: "json", EventID: "e", ProducedAt: time.Now()}
}

// cancelled puts a delivery into dead, as of a dispatcher's clock.
func (w *world) cancelled(env *pipeline.Envelope, at time.Time) {
	w.Helper()
	rec := kafkax.DeadRecord(w.kafka.Topics().Dead(), kafkax.Partition("erp", w.kafka.Partitions), &kafkax.Dead{
		Subscription: "erp", Reason: pipeline.DeadCancelled, Error: "subscription disabled: gone", Envelope: *env, Payload: []byte(`{"kind":"k","n":0}`),
	})
	rec.Timestamp = at
	if err := w.cl.ProduceSync(w.Context(), rec).FirstErr(); err != nil {
		w.Fatal(err)
	}
}

// The router was hours behind when the subscription was disabled, and went on
// afterwards: what it had not routed until then is part of what was missed.
func TestRouterWasBehindWhenItWasDisabled(t *testing.T) {
	w := newWorld(t)
	w.produce(4, time.Now().Add(-6*time.Hour))
	w.routed()
	w.produce(10, time.Now().Add(-5*time.Hour))
	w.state(pipeline.StateDisabled, "gone")
	w.routed()
	w.produce(2, time.Now())
	w.routed()
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	for i, want := range []int{12, 0} {
		if _, p, err := w.r.Run(t.Context(), missed, Options{}); err != nil || p.Enqueued != want {
			t.Errorf("run %d enqueued %d deliveries, want %d (%v)", i, p.Enqueued, want, err)
		}
	}
	got, _ := w.enqueued()
	for i := range got {
		if n := i % 10; got[i] != fmt.Sprintf(`{"kind":"k","n":%d}`, n) {
			t.Errorf("number %d is %s", i, got[i])
		}
	}
}

// The clock of the machine that replays is behind that of the dispatcher: what it
// enqueues looks older than the dead letter. It is enqueued once all the same; and
// again where it ends untried once more.
func TestClockOfTheReplayerIsBehind(t *testing.T) {
	w := newWorld(t)
	w.produce(1, time.Now())
	w.routed()
	w.state(pipeline.StateDisabled, "gone")
	env := w.envelope()
	w.cancelled(env, time.Now().Add(8*time.Second))
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	for i, want := range []int{1, 0, 1, 0} {
		if i == 2 { // the second last one ended untried, too
			_, replays := w.enqueued()
			env.Replay = replays[0]
			w.cancelled(env, time.Now().Add(9*time.Second))
		}
		if _, p, err := w.r.Run(t.Context(), missed, Options{}); err != nil || p.Enqueued != want {
			t.Errorf("run %d enqueued %d deliveries, want %d (%v)", i, p.Enqueued, want, err)
		}
	}
}

// The router's clock is ahead of the dispatcher's: a delivery that ended as
// cancelled at once looks as if it had been put into deliveries since.
func TestClockOfTheRouterIsAhead(t *testing.T) {
	w := newWorld(t)
	w.produce(1, time.Now())
	w.routed()
	w.state(pipeline.StateDisabled, "gone")
	env, now := w.envelope(), time.Now()
	routed := &kgo.Record{
		Topic: w.kafka.Topics().Deliveries(), Partition: kafkax.Partition("erp", w.kafka.Partitions), Value: []byte(`{"kind":"k","n":0}`),
		Timestamp: now.Add(40 * time.Millisecond), Headers: []kgo.RecordHeader{
			{Key: kafkax.HeaderEnvelope, Value: kafkax.EncodeEnvelope(nil, env)}, {Key: kafkax.HeaderSubs, Value: kafkax.EncodeSubs(nil, []string{"erp"})},
		},
	}
	if err := w.cl.ProduceSync(t.Context(), routed).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.cancelled(env, now)
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	plan, _, err := w.r.Run(t.Context(), missed, Options{DryRun: true})
	if err != nil || plan.Events != 1 {
		t.Errorf("plan of %d events, want the one that was cancelled (%v)", plan.Events, err)
	}
}

// The same replay is given while the first one asks whether to begin: it runs once.
func TestTheSameReplayTwiceAtOnceRunsOnce(t *testing.T) {
	w := newWorld(t)
	w.produce(10, morning)
	sel := Selection{Subscription: "erp", Since: morning}
	_, _, err := w.r.Run(t.Context(), sel, Options{Who: "ann", Confirm: func(Plan) error {
		_, _, err := w.r.Run(t.Context(), sel, Options{Who: "bob"})
		return err
	}})
	if got, _ := w.enqueued(); len(got) != 10 || !errors.Is(err, ErrElsewhere) {
		t.Errorf("%d deliveries of 10 events (error of the first: %v)", len(got), err)
	}
}

// tells answers questions as a dispatcher does, until ctx ends.
func (w *world) tells(ctx context.Context, st command.Status) {
	topic := w.kafka.Topics().Control()
	st.Node, st.Partition, st.Read, st.Known = "d", kafkax.Partition("erp", w.kafka.Partitions), 1<<40, true
	for from := int64(0); ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
		recs, next, err := w.r.fetcher.At(ctx, topic, 0, from, 1<<20)
		if err != nil {
			continue
		}
		from = next
		for _, rec := range recs {
			c, err := command.Parse(rec.Value)
			if err != nil || c.Kind != command.KindInspect {
				continue
			}
			value, err := command.Encode(&command.Command{
				Kind: command.KindStatus, ID: c.ID, Time: time.Now().UTC(), Actor: "d", Subscription: c.Subscription, Status: &st,
			})
			if err == nil {
				w.cl.ProduceSync(ctx, &kgo.Record{Topic: topic, Key: []byte("erp"), Value: value})
			}
		}
	}
}

// Live deliveries are held behind the catch-up: it does not wait for them.
func TestCatchUpDoesNotWaitForWhatWaitsForIt(t *testing.T) {
	w := newWorld(t)
	w.state(pipeline.StateDisabled, "gone")
	w.produce(10, time.Now())
	w.routed()
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	go func() {
		defer close(told)
		w.tells(ctx, command.Status{Parked: waitingMost, State: pipeline.StatePaused, Reason: pipeline.ReasonCatchUp})
	}()
	_, p, err := w.r.Run(t.Context(), missed, Options{OnProgress: func(_ Progress, wait Waiting) {
		if wait.Deliveries > 0 {
			t.Errorf("it waits for %+v", wait)
			cancel()
		}
	}})
	cancel()
	<-told
	if err != nil || p.Enqueued != 10 {
		t.Errorf("%d of 10 are enqueued (%v)", p.Enqueued, err)
	}
}

// What waited when it was disabled, and has not ended yet, is not overtaken: the
// subscription stays disabled until then, or is disabled again where somebody put
// an end to the draining.
func TestResumeWaitsUntilItIsDrained(t *testing.T) {
	for name, since := range map[string]pipeline.State{"": "", "paused meanwhile": pipeline.StatePaused, "resumed meanwhile": pipeline.StateActive} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.state(pipeline.StateDisabled, "gone")
			if since != "" {
				w.state(since, "by ann")
			}
			w.resumeWaits()
		})
	}
}

// resumeWaits checks that a resumption leaves it disabled while 5 deliveries wait.
func (w *world) resumeWaits() {
	t := w.T
	ctx, cancel := context.WithCancel(t.Context())
	told := make(chan struct{})
	go func() { defer close(told); w.tells(ctx, command.Status{Parked: 5, State: pipeline.StateDisabled}) }()
	times := 0
	_, err := w.r.Resume(ctx, "erp", Options{OnProgress: func(_ Progress, wait Waiting) {
		if wait.Deliveries != 5 {
			t.Errorf("it waits for %+v", wait)
		}
		if times++; times == 2 {
			cancel()
		}
	}})
	cancel()
	<-told
	it, getErr := w.writer.Get(t.Context(), "erp")
	if !errors.Is(err, context.Canceled) || getErr != nil || it.Effective != pipeline.StateDisabled {
		t.Errorf("%v; it is %+v (%v)", err, it, getErr)
	}
}

// A catch-up is interrupted, and what it had enqueued ends untried, since the
// subscription was disabled once more: the next one begins with that, and
// enqueues nothing twice.
func TestCatchUpAfterAnInterruptedOneThatWasDisabled(t *testing.T) {
	w := newWorld(t)
	w.state(pipeline.StateDisabled, "gone")
	from := time.Now()
	w.produce(10, from)
	w.routed()
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	ctx, cancel := context.WithCancel(t.Context())
	_, p, err := w.r.Run(ctx, missed, Options{Rate: 20, OnProgress: func(Progress, Waiting) { cancel() }})
	if !errors.Is(err, context.Canceled) || p.Enqueued != 4 {
		t.Fatalf("%d of 10 are enqueued, want 4 (%v)", p.Enqueued, err)
	}
	w.state(pipeline.StateDisabled, "gone")
	for n := range 4 {
		env := w.envelope()
		env.Source.Partition, env.Source.Offset, env.Replay = int32(n%2), int64(n/2), p.ID
		env.ProducedAt = from.Add(time.Duration(n) * time.Second)
		w.cancelled(env, time.Now())
	}
	w.state(pipeline.StatePaused, pipeline.ReasonCatchUp)
	for i, want := range []int{10, 0} {
		if _, p, err := w.r.Run(t.Context(), missed, Options{}); err != nil || p.Enqueued != want {
			t.Errorf("run %d enqueued %d deliveries, want %d (%v)", i, p.Enqueued, want, err)
		}
	}
	got, _ := w.enqueued()
	for i := range got {
		n := i
		if i >= 4 {
			n = i - 4
		}
		if got[i] != fmt.Sprintf(`{"kind":"k","n":%d}`, n) {
			t.Errorf("number %d is %s, want %d", i, got[i], n)
		}
	}
}

// A catch-up whose endpoint is still gone is not told as somebody else's doing.
func TestWhyACatchUpStops(t *testing.T) {
	for want, err := range map[string]error{
		"resuming s: the endpoint answered 410 Gone again, so it is disabled again (mend it, then run the same again: what is left goes first)": stopped("s", pipeline.StateDisabled, "gone"),
		"resuming s: it was disabled again meanwhile: failing (mend it, then run the same again: what is left goes first)":                      stopped("s", pipeline.StateDisabled, "failing"),
		"resuming s: it is paused (by an operator): its state was changed by somebody else meanwhile":                                           stopped("s", pipeline.StatePaused, "by an operator"),
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err, want)
		}
	}
}
