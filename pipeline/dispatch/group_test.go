package dispatch

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
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

func TestGateFollowsTheSession(t *testing.T) {
	g := NewGate(time.Second)
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
