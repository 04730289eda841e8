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

// crowded is a task with many waiting lanes.
type crowded struct {
	task           *Task
	sched          *Scheduler
	view           *simRegistry
	now            time.Time
	offset, parked int64
}

// newCrowded has ten paused subscriptions, with a lane for each of waiting
// entities, and a hundred healthy ones.
func newCrowded(b *testing.B, waiting int) *crowded {
	b.Helper()
	c := &crowded{sched: &Scheduler{}, now: time.Now(), view: &simRegistry{subs: map[string]*pipeline.Subscription{}}}
	for i := range 100 {
		id := "healthy-" + strconv.Itoa(i)
		c.view.subs[id] = newSubscription(id)
	}
	for i := range 10 {
		id := "held-" + strconv.Itoa(i)
		c.view.subs[id] = newSubscription(id)
		c.view.subs[id].Ordering, c.view.subs[id].State = pipeline.OrderingEntity, pipeline.StatePaused
	}
	cfg := DefaultConfig()
	c.task = NewRecovery(0, &cfg).Task(c.now, Start{Subs: c.view, Scheduler: c.sched})
	for i := range waiting {
		c.deliver([]string{"held-" + strconv.Itoa(i%10)}, &pipeline.Envelope{Entity: "entity-" + strconv.Itoa(i)})
		if i%1000 == 999 {
			c.commit()
		}
	}
	if st := c.task.Stats(); st.Held != waiting || st.Parked != waiting {
		b.Fatalf("%d lanes: %+v", waiting, st)
	}
	return c
}

func (c *crowded) deliver(id []string, env *pipeline.Envelope) {
	c.task.Deliver(c.now, &Record{Offset: c.offset, Subs: id, Envelope: env})
	c.offset++
}

func (c *crowded) commit() {
	batch := c.task.Cut()
	offsets := make([]int64, len(batch.Outs))
	for i := range offsets {
		offsets[i] = c.parked
		c.parked++
	}
	c.task.Committed(c.now, batch, offsets)
}

func benchAmongWaitingLanes(b *testing.B, waiting int) {
	const perSecond = 2000
	c := newCrowded(b, waiting)
	lists := make([][]string, 100)
	for i := range lists {
		lists[i] = []string{"healthy-" + strconv.Itoa(i)}
	}
	env, res := &pipeline.Envelope{}, &pipeline.Result{Outcome: pipeline.OutcomeSuccess}
	b.ReportAllocs()
	done, before := 0, cpuTime()
	for b.Loop() {
		c.deliver(lists[done%len(lists)], env)
		w := c.sched.Next(c.now, anyShare)
		c.task.Done(c.now, w, res)
		c.sched.Recycle(w)
		done++
		if done%(perSecond/4) == 0 {
			c.now = c.now.Add(250 * time.Millisecond)
			c.task.Relieve(c.now)
			c.commit()
		}
		if done%(2*perSecond) == 0 {
			c.task.Stats()
		}
	}
	b.ReportMetric(float64(cpuTime()-before)/float64(done), "cpu-ns/op")
}

// BenchmarkUpdateAmongWaitingLanes is what a change of one other subscription
// costs there.
func BenchmarkUpdateAmongWaitingLanes(b *testing.B) {
	for _, n := range []int{1000, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			c := newCrowded(b, n)
			done, before := 0, cpuTime()
			for b.Loop() {
				c.view = c.view.with("healthy-1", func(s *pipeline.Subscription) { s.Concurrency = int32(1 + done%8) })
				c.task.Update(c.now, c.view)
				done++
			}
			b.ReportMetric(float64(cpuTime()-before)/float64(done), "cpu-ns/op")
		})
	}
}

// cpuTime of this process: on a machine that others keep busy it says more than
// the clock.
func cpuTime() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
