package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// tracker knows how many deliveries are not over yet, to drive the load and to
// know when it is through. The checker does not ask it.
type tracker struct {
	w *world

	mu       sync.Mutex
	settled  []map[int]bool // of each subscription: over, but its event is not acknowledged yet
	waiting  []map[int]bool // of each subscription: acknowledged, not over
	open     int            // of waiting
	over     int
	err      error
	lastMove time.Time
}

func newTracker(w *world) *tracker {
	t := &tracker{w: w, lastMove: time.Now()}
	for range w.subs {
		t.settled, t.waiting = append(t.settled, map[int]bool{}), append(t.waiting, map[int]bool{})
	}
	return t
}

// ack notes that an event is in Kafka.
func (t *tracker) ack(seq int) {
	typ := typeOf(seq)
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.w.subs {
		if t.w.subs[i].Type != typ {
			continue
		}
		if t.settled[i][seq] {
			delete(t.settled[i], seq)
			continue
		}
		t.waiting[i][seq] = true
		t.open++
	}
}

// settle notes that a delivery is over.
func (t *tracker) settle(sub, seq int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case t.waiting[sub][seq]:
		delete(t.waiting[sub], seq)
		t.open--
		t.over++
		t.lastMove = time.Now()
	default:
		t.early(sub, seq)
	}
}

// early keeps what is over before the producer heard of its event. Repeats of
// what is long over come here too: they do no harm, their event is acknowledged.
func (t *tracker) early(sub, seq int) {
	if len(t.settled[sub]) > 4096 {
		clear(t.settled[sub])
	}
	t.settled[sub][seq] = true
}

func (t *tracker) fail(err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		t.err = err
	}
}

func (t *tracker) state() (open, over int, idle time.Duration, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open, t.over, time.Since(t.lastMove), t.err
}

// await returns when nothing is open, or nothing has moved for patience: then
// the checker says what is lost.
func (t *tracker) await(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		open, _, idle, err := t.state()
		if err != nil || open == 0 {
			return err
		}
		if idle > patience {
			fmt.Printf("%d deliveries are open and nothing has moved for %v: %s\n", open, idle.Round(time.Second), t.behind())
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// behind lists some subscriptions that are not through.
func (t *tracker) behind() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var list []string
	for i, w := range t.waiting {
		if len(w) > 0 && len(list) < 10 {
			list = append(list, fmt.Sprintf("%s %d", t.w.subs[i].ID, len(w)))
		}
	}
	return strings.Join(list, ", ")
}
