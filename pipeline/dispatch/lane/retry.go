package lane

import (
	"container/heap"
	"sort"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// RetryRecord is one record of retry.k, decoded.
type RetryRecord struct {
	Offset   int64
	Lane     string
	Origin   int64
	Attempts int // attempts made; k of the topic
	Round    int
	FailedAt time.Time // wall clock
	Envelope *pipeline.Envelope
	Header   []byte
	Payload  []byte
}

// retryLog is one retry partition: what was read of it and not decided yet.
type retryLog struct {
	next  int64
	slots []retrySlot // by offset; the first is undecided
	fifo  []retryItem // heads that wait for their time, by offset
	bytes int         // payload bytes in fifo
	await []retryItem // heads that stand in it durably, by mustBe
}

type retrySlot struct {
	off     int64
	decided bool
}

type retryItem struct {
	lane  *lane
	head  *head
	bytes int // of the payload
}

func (q *retryLog) decide(off int64) {
	i := sort.Search(len(q.slots), func(i int) bool { return q.slots[i].off >= off })
	if i == len(q.slots) || q.slots[i].off != off {
		panic("BUG: deciding a retry record that was not read")
	}
	q.slots[i].decided = true
	for len(q.slots) > 0 && q.slots[0].decided {
		q.slots = q.slots[1:]
	}
}

// position is the lowest undecided offset.
func (q *retryLog) position() int64 {
	if len(q.slots) > 0 {
		return q.slots[0].off
	}
	return q.next
}

// Retry feeds the next record of retry.k (k from 1). A record that is not the
// head of its lane is stale: decided at once.
func (t *Task) Retry(now time.Time, k int, r *RetryRecord) {
	t.now = now
	q := &t.retry[k-1]
	q.next = r.Offset + 1
	q.slots = append(q.slots, retrySlot{off: r.Offset})
	t.touched = true
	l := t.lanes[r.Lane]
	if l == nil || l.head == nil || l.head.origin != r.Origin || l.head.attempts != k ||
		r.Attempts != k || l.head.round != r.Round || l.head.off >= 0 || l.head.lost {
		q.decide(r.Offset)
		t.findLost(now)
		return
	}
	h := l.head
	h.off, h.got = r.Offset, &fetched{r.Envelope, r.Header, r.Payload}
	delay := t.cfg.delay(k)
	if h.failedAt.IsZero() {
		// Another process saw the failure: all there is is its wall clock, which
		// may differ from ours, or have jumped. Never wait longer than the delay.
		wait := min(max(0, r.FailedAt.Add(delay).Sub(now)), delay)
		h.due = now.Add(wait)
	} else {
		h.due = h.failedAt.Add(delay) // by the monotonic clock
	}
	q.fifo = append(q.fifo, retryItem{l, h, len(r.Payload)})
	q.bytes += len(r.Payload)
	if l.ending() || h.isDue {
		t.advance(l, now)
	}
	t.findLost(now)
}

// RetryPassed passes over an offset of retry.k that holds no delivery: the end
// of a transaction or, with bad, a record that cannot be read. A head whose
// record was passed over is made again of its origin when it is due, so that no
// lane waits for ever for what cannot come.
func (t *Task) RetryPassed(now time.Time, k int, off int64, bad *Raw) {
	t.now = now
	t.retry[k-1].next = off + 1
	if bad != nil {
		t.touched = true // the position moves past it
		if l := t.lanes[bad.Lane]; l != nil && l.head != nil && l.head.attempts == k && l.head.origin == bad.Origin && l.head.off < 0 {
			l.head.raw = bad
			t.lose(now, l)
		}
	}
	t.findLost(now)
}

// awaitHead notes that the head's record stands at mustBe in retry.k or, after
// a recovery, below.
func (t *Task) awaitHead(l *lane, h *head, k int, mustBe int64) {
	if l.head == h && h.off < 0 && !h.lost {
		h.mustBe = mustBe
		t.retry[k-1].await = append(t.retry[k-1].await, retryItem{lane: l, head: h})
	}
}

// findLost looks for heads whose record should have been read by now.
func (t *Task) findLost(now time.Time) {
	for k := range t.retry {
		q := &t.retry[k]
		for len(q.await) > 0 && q.await[0].head.mustBe < q.next {
			it := q.await[0]
			q.await[0] = retryItem{}
			q.await = q.await[1:]
			if it.lane.head == it.head && it.head.off < 0 && !it.head.lost {
				t.lose(now, it.lane)
			}
		}
	}
}

// lose has the lane's head made again of its origin, at the time of its retry.
func (t *Task) lose(now time.Time, l *lane) {
	h := l.head
	delay := t.cfg.delay(h.attempts)
	h.due = now.Add(delay) // when it failed cannot be told
	if !h.failedAt.IsZero() {
		h.due = h.failedAt.Add(delay)
	}
	h.lost = true
	if !h.isDue { // an operator may have asked for it
		h.isDue, h.notBefore = true, h.due
	}
	t.advance(l, now)
}

// Timed tells that something waits for its time to come.
func (t *Task) Timed() bool {
	for k := range t.retry {
		if len(t.retry[k].fifo) > 0 {
			return true
		}
	}
	return len(t.timers) > 0 || len(t.dueHeads) > 0
}

// Tick moves on everything whose time has come.
func (t *Task) Tick(now time.Time) {
	if t.closed {
		return
	}
	t.now = now
	for k := range t.retry {
		t.retryDue(now, &t.retry[k])
	}
	for len(t.timers) > 0 && !t.timers[0].at.After(now) {
		w := heap.Pop(&t.timers).(timer)
		if s := w.sub; s != nil {
			if b := s.bucket; b.wake.Equal(w.at) {
				b.wake = time.Time{}
				t.grant(s, now)
			}
			continue
		}
		if w.lane.wake.Equal(w.at) {
			w.lane.wake = time.Time{}
			t.advance(w.lane, now)
		}
	}
	t.dropLateHeads(now)
}

func (t *Task) retryDue(now time.Time, q *retryLog) {
	for len(q.fifo) > 0 {
		it := q.fifo[0]
		current := it.lane.head == it.head
		if current && it.head.due.After(now) {
			return
		}
		q.fifo[0] = retryItem{}
		q.fifo = q.fifo[1:]
		q.bytes -= it.bytes
		if current {
			it.head.isDue = true
			t.advance(it.lane, now)
		}
	}
}

// dropLateHeads moves due heads that found no slot for SlowAfter to parked, so
// that no subscription holds up a retry topic.
func (t *Task) dropLateHeads(now time.Time) {
	for len(t.dueHeads) > 0 {
		l := t.dueHeads[0]
		h := l.head
		if h != nil && h.isDue && h.loaded() && (l.stage == stageSlot || l.stage == stageReady) {
			if now.Sub(h.since) < t.cfg.SlowAfter {
				return
			}
			if l.stage == stageReady {
				t.backToIdle(l)
			}
			l.stage = stageIdle
			t.moveHead(l, time.Time{})
		}
		t.dueHeads[0] = nil
		t.dueHeads = t.dueHeads[1:]
	}
}

// Overdue is by how long the oldest due retry is late; 0: none is.
func (t *Task) Overdue(now time.Time) time.Duration {
	var late time.Duration
	for _, l := range t.dueHeads {
		if l.head != nil && l.head.isDue && l.stage != stageFlying {
			late = max(late, now.Sub(l.head.due))
		}
	}
	for k := range t.retry {
		if f := t.retry[k].fifo; len(f) > 0 && f[0].lane.head == f[0].head {
			late = max(late, now.Sub(f[0].head.due))
		}
	}
	return late
}

// wakeAt arranges that the lane is looked at again at a time to come.
func (t *Task) wakeAt(l *lane, at, now time.Time) {
	if !at.After(now) || (!l.wake.IsZero() && !l.wake.After(at)) {
		return
	}
	l.wake = at
	heap.Push(&t.timers, timer{at: at, lane: l})
}

type timer struct {
	at   time.Time
	lane *lane
	sub  *sub // instead of a lane
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at.Before(h[j].at) }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	n := len(old) - 1
	x := old[n]
	old[n] = timer{}
	*h = old[:n]
	return x
}
