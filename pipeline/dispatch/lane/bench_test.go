package lane

import (
	"strconv"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// BenchmarkHealthy is what one delivery costs while nothing fails: Deliver,
// Next, Done, and its share of a Cut and Committed for every 256 records. Each
// record goes to as many subscriptions as the case says.
func BenchmarkHealthy(b *testing.B) {
	for _, ordering := range []pipeline.Ordering{pipeline.OrderingSubscription, pipeline.OrderingEntity, pipeline.OrderingNone} {
		for _, fanout := range []int{1, 10} {
			b.Run(string(ordering)+"/fanout="+strconv.Itoa(fanout), func(b *testing.B) { benchHealthy(b, ordering, fanout) })
		}
	}
}

func benchHealthy(b *testing.B, ordering pipeline.Ordering, fanout int) {
	const batch, subscriptions, entities = 256, 1000, 500
	view := &simRegistry{subs: map[string]*pipeline.Subscription{}}
	lists := make([][]string, subscriptions)
	for i := range subscriptions {
		id := "subscription-" + strconv.Itoa(i)
		view.subs[id] = newSubscription(id)
		view.subs[id].Ordering = ordering
		for j := range fanout {
			lists[i] = append(lists[i], "subscription-"+strconv.Itoa((i+j)%subscriptions))
		}
	}
	envelopes := make([]pipeline.Envelope, entities)
	for i := range envelopes {
		envelopes[i].Entity = "entity-" + strconv.Itoa(i)
	}
	cfg := DefaultConfig()
	sched := &Scheduler{}
	now := time.Now()
	task := NewRecovery(0, &cfg).Task(now, Start{Subs: view, Scheduler: sched})
	payload, res := make([]byte, 1000), &pipeline.Result{Outcome: pipeline.OutcomeSuccess}
	works := make([]*Work, 0, batch*fanout)
	records := make([]Record, batch)
	off := 0
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; {
		clear(records)
		for i := range records {
			r := &records[i]
			r.Offset, r.Subs, r.Envelope, r.Payload = int64(off), lists[off%subscriptions], &envelopes[off%entities], payload
			off++
			task.Deliver(now, r)
		}
		for {
			works = works[:0]
			for w := sched.Next(now, anyShare); w != nil; w = sched.Next(now, anyShare) {
				works = append(works, w)
			}
			if len(works) == 0 {
				break
			}
			for _, w := range works {
				task.Done(now, w, res)
				sched.Recycle(w)
			}
			done += len(works)
		}
		task.Committed(now, task.Cut(), nil)
	}
	if st := task.Stats(); st != (Stats{}) {
		b.Fatalf("left: %+v", st)
	}
}

// TestHealthyAllocations holds what BenchmarkHealthy showed: the lane, and what
// keys and the shares of maps and a Cut take.
func TestHealthyAllocations(t *testing.T) {
	r := newRig(t, nil)
	record, res := Record{Subs: []string{"s"}, Envelope: &pipeline.Envelope{}}, &pipeline.Result{Outcome: pipeline.OutcomeSuccess}
	off := int64(0)
	got := testing.AllocsPerRun(1000, func() {
		c := record
		c.Offset, off = off, off+1
		r.task.Deliver(r.now, &c)
		w := r.sched.Next(r.now, anyShare)
		r.task.Done(r.now, w, res)
		r.sched.Recycle(w)
	})
	if got > 3 {
		t.Errorf("%v allocations per delivery, at most 3", got)
	}
}

// BenchmarkUpdate is what a note of one subscription's failures costs a task in
// which the lanes of 10,000 wait for their retries: with the ids of what has
// changed, and without.
func BenchmarkUpdate(b *testing.B) {
	for _, name := range []string{"one", "unknown"} {
		b.Run(name, func(b *testing.B) {
			view, task := crowdWaits(b)
			now := time.Now()
			changed := []string{"subscription-77"}
			b.ResetTimer()
			for b.Loop() {
				s := *view.subs[changed[0]]
				s.FailingSince = s.FailingSince.Add(time.Millisecond)
				view.subs[changed[0]] = &s
				if name == "one" {
					task.UpdateOnly(now, view, changed)
				} else {
					task.Update(now, view)
				}
			}
		})
	}
}

// crowdWaits is a task in which 10,000 subscriptions wait for their first retry.
func crowdWaits(b *testing.B) (*simRegistry, *Task) {
	b.Helper()
	view := &simRegistry{subs: map[string]*pipeline.Subscription{}}
	cfg := DefaultConfig()
	sched := &Scheduler{}
	now := time.Now()
	task := NewRecovery(0, &cfg).Task(now, Start{Subs: view, Scheduler: sched})
	for i := range 10_000 {
		id := "subscription-" + strconv.Itoa(i)
		view.subs[id] = newSubscription(id)
		task.Deliver(now, &Record{Offset: int64(i), Subs: []string{id}, Envelope: &pipeline.Envelope{}, Payload: []byte("x")})
	}
	for w := sched.Next(now, anyShare); w != nil; w = sched.Next(now, anyShare) {
		task.Done(now, w, &pipeline.Result{Outcome: pipeline.OutcomeTimeout, StartedAt: now})
	}
	batch := task.Cut()
	task.Committed(now, batch, make([]int64, len(batch.Outs)))
	if st := task.Stats(); st.Waiting != 10_000 {
		b.Fatalf("%+v", st)
	}
	return view, task
}
