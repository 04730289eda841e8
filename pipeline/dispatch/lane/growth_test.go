package lane

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// BenchmarkAmongWaitingLanes is what one healthy delivery costs in a task in which
// so many lanes wait, each with one parked delivery of a paused subscription: with
// its share of what the loop does every 250 ms and every two seconds, and of a
// transaction, at 2,000 deliveries a second.
func BenchmarkAmongWaitingLanes(b *testing.B) {
	for _, n := range []int{0, 1000, 10_000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) { benchAmongWaitingLanes(b, n) })
	}
}

func benchAmongWaitingLanes(b *testing.B, waiting int) {
	const perSecond, held = 2000, 10
	view := &simRegistry{subs: map[string]*pipeline.Subscription{}}
	lists := make([][]string, 100)
	for i := range lists {
		id := "healthy-" + strconv.Itoa(i)
		view.subs[id], lists[i] = newSubscription(id), []string{id}
	}
	for i := range held {
		id := "held-" + strconv.Itoa(i)
		view.subs[id] = newSubscription(id)
		view.subs[id].Ordering, view.subs[id].State = pipeline.OrderingEntity, pipeline.StatePaused
	}
	cfg := DefaultConfig()
	sched := &Scheduler{}
	now := time.Now()
	task := NewRecovery(0, &cfg).Task(now, Start{Subs: view, Scheduler: sched})
	offset, parked := int64(0), int64(0)
	commit := func() {
		batch := task.Cut()
		offsets := make([]int64, len(batch.Outs))
		for i := range offsets {
			offsets[i] = parked
			parked++
		}
		task.Committed(now, batch, offsets)
	}
	deliver := func(id []string, env *pipeline.Envelope) {
		task.Deliver(now, &Record{Offset: offset, Subs: id, Envelope: env})
		offset++
	}
	for i := range waiting {
		deliver([]string{"held-" + strconv.Itoa(i%held)}, &pipeline.Envelope{Entity: "entity-" + strconv.Itoa(i)})
		if i%1000 == 999 {
			commit()
		}
	}
	if st := task.Stats(); st.Held != waiting || st.Parked != waiting {
		b.Fatalf("%d lanes: %+v", waiting, st)
	}
	env, res := &pipeline.Envelope{}, &pipeline.Result{Outcome: pipeline.OutcomeSuccess}
	b.ReportAllocs()
	done, before := 0, cpuTime()
	for b.Loop() {
		deliver(lists[done%len(lists)], env)
		w := sched.Next(now, anyShare)
		task.Done(now, w, res)
		sched.Recycle(w)
		done++
		if done%(perSecond/4) == 0 {
			now = now.Add(250 * time.Millisecond)
			task.Relieve(now)
			commit()
		}
		if done%(2*perSecond) == 0 {
			task.Stats()
		}
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(done), "cpu-ns/op")
}

// cpuTime of this process: on a machine that others keep busy it says more than
// the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
