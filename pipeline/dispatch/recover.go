package dispatch

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// errStopped: the partition is not to be recovered any more.
var errStopped = errors.New("the dispatcher has stopped, or the partition was taken away")

// recoverUntilDone recovers partition p, again and again until it succeeds or
// the assignment ends. A task is never begun on a part of its state.
func (d *Dispatcher) recoverUntilDone(ctx context.Context, p int32, member string) {
	steps := d.watchRecovery(p)
	defer steps.end()
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := d.recoverTask(ctx, p, member, steps)
		if err == nil || ctx.Err() != nil || errors.Is(err, errStopped) {
			return
		}
		d.log.Error("recovering a partition; it is tried again", "partition", p, "err", err)
		select {
		case <-ctx.Done():
			return
		case <-d.loopDone:
			return
		case <-time.After(pause):
		}
	}
}

// recoverTask rebuilds task p from Kafka and installs it in the loop. The order
// matters: first the committed offsets, waiting until no transaction of a
// predecessor holds a pending commit for them; then lanes up to its end as of
// after that; then parked; deliveries and retry.* are fed from the positions
// that result.
func (d *Dispatcher) recoverTask(ctx context.Context, p int32, member string, steps *recoverySteps) error {
	begun := time.Now()
	names := []string{d.topics.Deliveries(), d.topics.Retry(1), d.topics.Retry(2), d.topics.Retry(3)}
	want := map[string][]int32{}
	for _, t := range names {
		want[t] = []int32{p}
	}
	steps.at("reading the committed offsets of group " + d.group)
	committed, err := d.fetcher.StableOffsets(ctx, d.group, want)
	if err != nil {
		return fmt.Errorf("reading committed offsets: %w", err)
	}
	rec := lane.NewRecovery(p, &d.lanes)
	steps.at("reading " + d.topics.Lanes())
	if err := d.scanLanes(ctx, p, rec); err != nil {
		return err
	}
	retryEnd, err := d.retryEnds(ctx, p)
	if err != nil {
		return err
	}
	steps.at("reading " + d.topics.Parked())
	parkedEnd, err := d.scanParked(ctx, p, rec)
	if err != nil {
		return err
	}
	st := lane.Start{Incarnation: newIncarnation(), RetryRead: rec.RetryRead(), RetryEnd: retryEnd, ParkedEnd: parkedEnd, Scheduler: d.sched}
	if err := d.positions(ctx, p, rec.Front(), names, committed, &st); err != nil {
		return err
	}
	steps.at("waiting for fetches of before")
	for installed := false; !installed; {
		ours := false
		if !d.call(func() {
			if ours = ctx.Err() == nil && d.memberID == member; ours {
				installed = d.install(rec, st, p)
			}
		}) || !ours {
			return errStopped
		}
		if !installed {
			time.Sleep(installPause)
		}
	}
	d.log.Info("partition recovered", "partition", p, "took", time.Since(begun).Round(time.Millisecond))
	return nil
}

// patience is how long a recovery may take before it is told of, and holds up no
// other: two sessions, 20 s unless configured otherwise. What a killed process
// left open has been aborted by then, see transactionTimeout.
func (d *Dispatcher) patience() time.Duration { return 2 * time.Duration(d.cfg.SessionTimeout) }

// recoverySteps tells of a recovery that takes long. Kafka can hold one up for
// ever: everyone who reads what is committed waits for a transaction without an
// end, which a broker may be left with that was stopped in the wrong moment.
type recoverySteps struct {
	d     *Dispatcher
	p     int32
	begun time.Time

	mu    sync.Mutex
	step  string      // under mu; never empty
	timer *time.Timer // under mu; nil: ended
}

func (d *Dispatcher) watchRecovery(p int32) *recoverySteps {
	s := &recoverySteps{d: d, p: p, begun: time.Now(), step: "beginning"}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(d.patience(), s.warn)
	return s
}

func (s *recoverySteps) at(step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.step = step
}

func (s *recoverySteps) warn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer == nil {
		return
	}
	s.d.stable.recoveringSlowly(s.p, s.begun, s.step)
	s.d.log.Warn("recovering a partition takes long; nothing of it is delivered meanwhile", "group", s.d.group, "partition", s.p, "since", s.begun, "step", s.step,
		"remedy", "if it stays so, look for a transaction without an end: kafka-transactions.sh find-hanging, and abort it")
	s.timer.Reset(s.d.patience())
}

func (s *recoverySteps) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer.Stop()
	s.timer = nil
	s.d.stable.recoveringSlowly(s.p, s.begun, "")
}

func (d *Dispatcher) scanLanes(ctx context.Context, p int32, rec *lane.Recovery) error {
	topic := d.topics.Lanes()
	end, err := d.fetcher.EndOffset(ctx, topic, p)
	if err != nil {
		return fmt.Errorf("finding the end of %s/%d: %w", topic, p, err)
	}
	err = d.fetcher.Scan(ctx, topic, p, 0, end, func(r *kgo.Record) error { return rec.Lane(string(r.Key), r.Value) })
	if err != nil {
		return fmt.Errorf("reading %s/%d: %w", topic, p, err)
	}
	return nil
}

// retryEnds finds the ends of retry.*. Asked for after lanes was read: every head
// that is named there stands below.
func (d *Dispatcher) retryEnds(ctx context.Context, p int32) (ends [pipeline.MaxRetries]int64, err error) {
	for k := range ends {
		topic := d.topics.Retry(k + 1)
		if ends[k], err = d.fetcher.EndOffset(ctx, topic, p); err != nil {
			return ends, fmt.Errorf("finding the end of %s/%d: %w", topic, p, err)
		}
	}
	return ends, nil
}

// scanParked feeds what is parked, and returns the end that it read to.
func (d *Dispatcher) scanParked(ctx context.Context, p int32, rec *lane.Recovery) (int64, error) {
	topic := d.topics.Parked()
	end, err := d.fetcher.EndOffset(ctx, topic, p)
	if err != nil {
		return 0, fmt.Errorf("finding the end of %s/%d: %w", topic, p, err)
	}
	from, any := rec.ParkedFrom()
	if !any {
		return end, nil
	}
	start, err := d.fetcher.StartOffset(ctx, topic, p)
	if err != nil {
		return 0, fmt.Errorf("finding the start of %s/%d: %w", topic, p, err)
	}
	if from > end {
		d.lostEnd(topic, p, from, end)
		return end, nil
	}
	d.missing(topic, p, from, start)
	err = d.fetcher.Scan(ctx, topic, p, max(from, start), end, func(r *kgo.Record) error {
		c, err := kafkax.ParseCopy(r)
		if err != nil {
			d.scanUnreadable(rec, r, err)
			return nil
		}
		rec.Parked(r.Offset, c.Lane, c.Origin, c.Attempts, c.Round, c.NotBefore, r.Timestamp)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("reading %s/%d: %w", topic, p, err)
	}
	return end, nil
}

// scanUnreadable takes in a parked record that cannot be read: as one of its lane
// where that can be told, so that it is made again of its origin in its turn.
func (d *Dispatcher) scanUnreadable(rec *lane.Recovery, r *kgo.Record, err error) {
	raw := rawOf(r)
	if raw.Lane == "" {
		d.log.Error("a record cannot be read: it goes to dead as it is", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
		rec.ParkedBad(raw)
		return
	}
	rec.Parked(r.Offset, raw.Lane, raw.Origin, 0, 0, time.Time{}, r.Timestamp)
}

// newIncarnation is a number that no other ownership of the partition has.
func newIncarnation() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return binary.BigEndian.Uint64(b[:])
}

// installPause between two looks whether older polls are through.
const installPause = 2 * time.Millisecond

// install begins the task; false: not yet, older polls of the partition may
// still be on their way. In the loop.
func (d *Dispatcher) install(rec *lane.Recovery, st lane.Start, p int32) bool {
	if d.polls.seen < d.droppedAt[p] {
		return false
	}
	st.Subs = d.view
	if old := d.tasks[p]; old != nil {
		panic("BUG: a partition was assigned twice")
	}
	t := &ownedTask{Task: rec.Task(d.now(), st)}
	t.controlRead = t.Control()
	d.tasks[p] = t
	d.wantControl(d.controlWanted())
	add := map[string]map[int32]kgo.Offset{
		d.topics.Deliveries(): {p: kgo.NewOffset().At(t.ReadPosition())},
	}
	for k := 1; k <= pipeline.MaxRetries; k++ {
		add[d.topics.Retry(k)] = map[int32]kgo.Offset{p: kgo.NewOffset().At(t.RetryPosition(k))}
	}
	d.resumeAll(p)
	d.fetch.AddConsumePartitions(add)
	return true
}

// drop forgets a task. In the loop.
func (d *Dispatcher) drop(p int32) {
	t := d.tasks[p]
	if t == nil {
		return
	}
	t.Close()
	t.withdrawn.Store(true)
	delete(d.tasks, p)
	rm := map[string][]int32{d.topics.Deliveries(): {p}}
	for k := 1; k <= pipeline.MaxRetries; k++ {
		rm[d.topics.Retry(k)] = []int32{p}
	}
	d.fetch.RemoveConsumePartitions(rm)
	d.droppedAt[p] = d.polls.flush()
	d.parked.forget(p)
}
