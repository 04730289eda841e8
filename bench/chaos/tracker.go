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
	settled  []map[int]bool    // of each subscription: over, but its event is not acknowledged yet
	waiting  []map[int]bool    // of each subscription: acknowledged, not over
	away     []bool            // of each subscription: it is deleted, or just came back
	maybe    map[delivery]bool // acknowledged while that was so: nobody knows whether it was taken
	open     int               // of waiting
	over     int
	err      error
	lastMove time.Time
}

// delivery of an event to a subscription.
type delivery struct{ sub, seq int }

func newTracker(w *world) *tracker {
	t := &tracker{w: w, lastMove: time.Now(), away: make([]bool, len(w.subs)), maybe: map[delivery]bool{}}
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
		if t.away[i] {
			t.maybe[delivery{i, seq}] = true
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
	case t.maybe[delivery{sub, seq}]:
		delete(t.maybe, delivery{sub, seq})
		t.over++
		t.lastMove = time.Now()
	default:
		t.early(sub, seq)
	}
}

// leave is told before subscriptions are deleted: of what waits of them nobody
// knows any more whether it was routed before.
func (t *tracker) leave(subs []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range subs {
		t.away[i] = true
		for seq := range t.waiting[i] {
			t.maybe[delivery{i, seq}] = true
		}
		t.open -= len(t.waiting[i])
		clear(t.waiting[i])
	}
}

// back is told when all know the subscriptions again.
func (t *tracker) back(subs []int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, i := range subs {
		t.away[i] = false
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

// calm is how long nothing may have moved before what may not have been taken is
// not waited for any longer: two of the longest pauses before a retry.
const calm = 5 * time.Second

// mended is told when nothing is broken any more: patience begins now.
func (t *tracker) mended() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lastMove = time.Now()
}

// await returns when nothing is open, or nothing has moved for patience: then
// the checker says what is lost.
func (t *tracker) await(ctx context.Context, patience time.Duration) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		open, _, idle, err := t.state()
		if err != nil || open == 0 && (t.sure() || idle > calm) {
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

// sure tells whether nothing is under way of which nobody knows whether it is.
func (t *tracker) sure() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.maybe) == 0
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
