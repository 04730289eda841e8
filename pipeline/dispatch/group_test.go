package dispatch

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

func TestStaticMembersShareAndReturn(t *testing.T) {
	ids, subs := churnSubs()
	b := newBench(t, kafka.Get(t).Addrs(), 6, subs...)
	b.ledger.setAnswer(flaky)
	produced := 0
	produce := func(n int) {
		for range n {
			b.event(ids...)
			produced += len(ids)
		}
	}
	start := func(instance string) *running {
		b.kafka.InstanceID = instance
		return b.start(nil)
	}
	one, two := start("one"), start("two")
	produce(60)
	b.ledger.await(t, "half", func() bool { return b.ledger.successes() > produced/2 })
	one.stop(t)
	produce(40)
	b.ledger.await(t, "everything by the one that stayed", func() bool { return b.ledger.successes() == produced })
	one = start("one")
	produce(40)
	b.ledger.await(t, "everything after the return", func() bool { return b.ledger.successes() == produced })
	one.stop(t)
	two.stop(t)
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	b.checkOnce(t)
}

func TestSecondHolderOfAnInstanceIDIsNamed(t *testing.T) {
	b := newBench(t, kafka.Get(t).Addrs(), 2, sub("s", nil))
	b.kafka.InstanceID = "pod-0"
	first := b.start(nil)
	b.event("s")
	b.ledger.await(t, "the delivery", func() bool { return b.ledger.successes() == 1 })
	second := b.start(nil)
	var err error
	select {
	case err = <-first.done:
		close(first.done)
	case err = <-second.done:
		close(second.done)
	case <-time.After(30 * time.Second):
		t.Fatal("two holders of one instance id lived side by side for 30 s")
	}
	if err == nil {
		t.Fatal("the one that was thrown out ended without an error")
	}
	t.Log(err)
}

// TestWhoIsThrownOutStaysOut: a process whose instance id another one has taken
// ends, however long its requests take, and does not throw the other out in its
// turn: its client would join anew as soon as Kafka does not know the other.
func TestWhoIsThrownOutStaysOut(t *testing.T) {
	b := newBench(t, kafka.Get(t).Addrs(), 2, sub("s", nil))
	b.kafka.InstanceID = "pod-0"
	under, answer := make(chan struct{}, 10), make(chan struct{})
	answers := sync.OnceFunc(func() { close(answer) })
	defer answers()
	b.ledger.setAnswer(func(string, int, int) (pipeline.Outcome, time.Duration) {
		under <- struct{}{}
		<-answer
		return pipeline.OutcomeSuccess, 0
	})
	first := b.start(nil)
	b.event("s")
	<-under
	b.ledger = newLedger()
	second := b.start(nil)
	b.ledger.await(t, "the delivery by the other", func() bool { return b.ledger.successes() == 1 })
	b.ledger.await(t, "the first to know", func() bool {
		stopping := true // or has ended
		first.d.call(func() { stopping = first.d.stopping })
		return stopping
	})
	for range 12 { // the other's membership lapses, as a session does on a busy machine: it joins anew
		if err := kafkax.LeaveGroup(t.Context(), b.cl, b.kafka.DispatcherGroup(), "pod-0"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(250 * time.Millisecond) // that nothing happens is what is looked for
	}
	b.event("s")
	b.ledger.await(t, "one more delivery by the other", func() bool { return b.ledger.successes() == 2 })
	answers()
	err := <-first.done
	close(first.done)
	if !errors.Is(err, kerr.FencedInstanceID) {
		t.Errorf("the first ended with %v", err)
	}
	second.stop(t) // fails if it was thrown out
}

func TestGateFollowsTheSession(t *testing.T) {
	g := NewGate(time.Minute)
	if g.Open() {
		t.Error("a new gate is open")
	}
	g.touch(time.Now())
	if !g.Open() {
		t.Error("the gate is closed right after a heartbeat was accepted")
	}
	g.touch(time.Now().Add(-time.Hour))
	if !g.Open() {
		t.Error("an older answer closed the gate")
	}
	old := NewGate(time.Second)
	old.touch(time.Now().Add(-501 * time.Millisecond))
	if old.Open() {
		t.Error("the gate is open on a heartbeat that was sent more than half a session ago")
	}
}

// TestAnInterruptedSessionRepeatsNothing: the client gives its session up, as it
// does when no broker answers for long, while deliveries are answered and not
// committed. The member is the same afterwards, and has all its partitions: it
// commits what it knows.
func TestAnInterruptedSessionRepeatsNothing(t *testing.T) {
	ids, subs := churnSubs()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 4, subs...)
	r := b.start(func(cfg *Config) {
		cfg.CommitInterval, cfg.SessionTimeout = kafkax.Duration(5*time.Second), kafkax.Duration(10*time.Second)
	})
	var failing atomic.Bool // heartbeats fail until the client joins
	c.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if !failing.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.UnknownServerError.Code
		return resp, nil, true
	})
	c.ControlKey(int16(kmsg.JoinGroup), func(kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		failing.Store(false)
		return nil, nil, false
	})
	b.event(ids...)
	b.ledger.await(t, "the first event", func() bool { return b.ledger.successes() == len(ids) })
	before, _ := r.d.member.Load().GroupMetadata()
	for range 3 {
		for range 10 {
			b.event(ids...)
		}
		want := b.next * len(ids)
		b.ledger.await(t, "the events", func() bool { return b.ledger.successes() == want })
		_, generation := r.d.member.Load().GroupMetadata()
		failing.Store(true)
		b.ledger.await(t, "the interruption's end", func() bool {
			_, now := r.d.member.Load().GroupMetadata()
			return now > generation
		})
	}
	if id, _ := r.d.member.Load().GroupMetadata(); id != before {
		t.Fatalf("the member is another one: %q, was %q", id, before)
	}
	r.stop(t)
	b.start(nil)
	b.event(ids...)
	b.ledger.await(t, "one more event", func() bool { return b.ledger.successes() == b.next*len(ids) })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	b.checkOnce(t)
}

func TestSessionsThatGoOn(t *testing.T) {
	for _, c := range []struct {
		id         string
		generation int32
		want       bool
	}{
		{"a", 7, true},
		{"a", 8, true},
		{"a", 9, false}, // others may have had the partitions in generation 8
		{"a", 1, false}, // a group that was made anew
		{"b", 8, false}, // another member
		{"", -1, false},
	} {
		if got := sessionGoesOn("a", 7, c.id, c.generation); got != c.want {
			t.Errorf("after member a, generation 7: member %q, generation %d: %v, want %v", c.id, c.generation, got, c.want)
		}
	}
	if sessionGoesOn("", 7, "", 8) {
		t.Error("no member goes on")
	}
}
