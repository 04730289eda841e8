package dispatch

import (
	"errors"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// TestGapOfWhoeverIsOut: what a process no longer finds that has lost its session,
// or may have, is no reason to end.
func TestGapOfWhoeverIsOut(t *testing.T) {
	gap := fetchedRecords{gaps: []partitionRecord[error]{{partition: 3, record: errors.New("gone")}}}
	cfg := DefaultConfig()
	lanes := cfg.Lane()
	now := time.Now()
	for name, tt := range map[string]struct {
		owns, adrift, open, fatal bool
	}{
		"ours":           {owns: true, open: true, fatal: true},
		"another's":      {open: true},
		"interrupted":    {owns: true, adrift: true, open: true},
		"not heard of":   {owns: true},
		"nothing of all": {},
	} {
		t.Run(name, func(t *testing.T) {
			gate := NewGate(time.Minute)
			if tt.open {
				gate.touch(time.Now())
			}
			d := &Dispatcher{tasks: map[int32]*ownedTask{}, adrift: tt.adrift, now: time.Now, stopRecovering: func() {}}
			d.deps.Gate = gate
			if tt.owns {
				view := newFakeRegistry().View()
				d.tasks[3] = &ownedTask{Task: lane.NewRecovery(3, &lanes).Task(now, lane.Start{Subs: view, Scheduler: &lane.Scheduler{}})}
			}
			if d.accept(gap); (d.fatal != nil) != tt.fatal {
				t.Errorf("ended by it: %v", d.fatal)
			}
		})
	}
}

// TestDrainingTaskIsFedNoMore: what goes on to arrive of a partition that is given
// back would have to be committed, too, before it may be: it would be held back
// until the time for that has run out.
func TestDrainingTaskIsFedNoMore(t *testing.T) {
	cfg := DefaultConfig()
	lanes := cfg.Lane()
	view := newFakeRegistry(sub("a", func(s *pipeline.Subscription) { s.State = pipeline.StatePaused })).View()
	now := time.Now()
	task := &ownedTask{Task: lane.NewRecovery(0, &lanes).Task(now, lane.Start{Subs: view, Scheduler: &lane.Scheduler{}})}
	cl, err := kgo.NewClient(kgo.SeedBrokers("127.0.0.1:1")) // only told what is paused
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	d := &Dispatcher{tasks: map[int32]*ownedTask{0: task}, view: view, fetch: cl}
	arrives := func(offset int64) {
		rec := &lane.Record{Offset: offset, Subs: []string{"a"}, Envelope: &pipeline.Envelope{}}
		retry := &retryRecord{RetryRecord: &lane.RetryRecord{Offset: offset, Lane: "a", Attempts: 1, Envelope: &pipeline.Envelope{}}, offset: offset}
		b := fetchedRecords{deliveries: []partitionRecord[*lane.Record]{{0, offset, rec}}}
		b.retry[0] = []partitionRecord[*retryRecord]{{0, offset, retry}}
		d.accept(b)
		d.feed(now)
	}
	arrives(0)
	commit := func() {
		for task.Touched() {
			b := task.Cut()
			task.Committed(now, b, make([]int64, len(b.Outs)))
		}
	}
	commit()
	if task.ReadPosition() != 1 || task.RetryPosition(1) != 1 {
		t.Fatalf("read to %d and %d, want 1", task.ReadPosition(), task.RetryPosition(1))
	}
	task.Drain()
	commit()
	arrives(1)
	if task.Touched() || task.ReadPosition() != 1 || task.RetryPosition(1) != 1 {
		t.Errorf("a draining task has read to %d and %d, and is touched: %v", task.ReadPosition(), task.RetryPosition(1), task.Touched())
	}
}
