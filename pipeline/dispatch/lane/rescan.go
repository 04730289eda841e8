package lane

import (
	"slices"
	"strconv"
	"time"
)

const (
	// rescanMax is how many places of one lane a rescan brings at most, and
	// rescanMin how many at least though MaxParkedOffsets are in memory already:
	// fewer would mean a rescan for every few deliveries.
	rescanMax = 4096
	rescanMin = 64
	// rescanLanes is how many lanes one rescan serves.
	rescanLanes = 10_000
	// rescanSlice is how many records a rescan looks at, once it has enough for
	// one lane, before it comes back.
	rescanSlice = 20_000
)

// Rescan is a part of parked/p to read again for lanes whose deliveries were
// too many to keep their places in memory. Feed it the records from From up to
// To, in order, until it has enough; then give it to Task.Rescanned. At most one
// of a task is under way. Its methods are for whoever reads, one goroutine.
type Rescan struct {
	Task     *Task
	From, To int64 // offsets of parked/p; To excluded

	want   map[string]*wantedTail
	order  []*wantedTail
	bad    []*Raw
	full   int // of want, how many have enough
	looked int
}

type wantedTail struct {
	lane *lane
	tail parkedTail // as it was
	max  int
	refs []parkedRef
}

// wantTail asks for the lane's tail when there is nothing else left of it that
// could be acted on. It tells whether there is a tail.
func (t *Task) wantTail(l *lane, now time.Time) bool {
	if l.tail.n == 0 {
		return false
	}
	if l.rescan || l.head != nil || l.expect >= 0 || l.moving || l.mode() == modeHold {
		return true
	}
	if now.Before(l.localUntil) {
		t.wakeAt(l, l.localUntil, now)
		return true
	}
	l.rescan, l.tail.late = true, 0
	t.rescans = append(t.rescans, l)
	return true
}

// NextRescan gives the next part of parked/p to read again; nil: none is wanted
// now.
func (t *Task) NextRescan() *Rescan {
	if t.rescanning != nil || len(t.rescans) == 0 || t.closed || t.draining {
		return nil
	}
	n := min(len(t.rescans), rescanLanes)
	room := max(0, t.cfg.MaxParkedOffsets-t.parkedRefs) / n
	r := &Rescan{Task: t, From: t.parkedEnd, To: t.parkedEnd, want: make(map[string]*wantedTail, n)}
	for _, l := range t.rescans[:n] {
		l.tail.late = 0
		w := &wantedTail{lane: l, tail: l.tail, max: min(max(room, rescanMin), rescanMax, l.tail.n)}
		r.want[l.key], r.order = w, append(r.order, w)
		r.From = min(r.From, l.tail.off)
	}
	clear(t.rescans[:n])
	t.rescans = t.rescans[n:]
	t.rescanning = r
	return r
}

// Parked takes one record of parked/p. False: it has enough.
func (r *Rescan) Parked(off int64, laneKey string, origin int64, written time.Time) bool {
	r.looked++
	w := r.want[laneKey]
	if w != nil && len(w.refs) < w.max && off >= w.tail.off && origin >= w.tail.origin {
		w.refs = append(w.refs, parkedRef{origin, off, written.UnixMilli()})
		w.tail.origin = origin + 1
		if len(w.refs) == w.max {
			w.tail.off = off + 1
			r.full++
		}
	}
	return r.full < len(r.want) && (r.full == 0 || r.looked < rescanSlice)
}

// Bad takes one record that cannot be read at all.
func (r *Rescan) Bad(raw *Raw) { r.bad = append(r.bad, raw) }

// Rescanned brings a Rescan back. next is the first offset that was not looked
// at; failed tells that it is below To for a reason that is to be waited out.
func (t *Task) Rescanned(now time.Time, r *Rescan, next int64, failed bool) {
	t.rescanning = nil
	if t.closed {
		return
	}
	t.now = now
	for _, raw := range r.bad {
		if !t.parkedKnown(raw.Offset) {
			t.passParked(raw)
		}
	}
	for _, w := range r.order {
		l := w.lane
		l.rescan = false
		if failed && len(w.refs) == 0 {
			l.localUntil = now.Add(t.cfg.LocalRetryAfter)
		}
		t.refill(l, w, next, next >= r.To)
		t.advance(l, now)
	}
}

// refill puts what was read into its place. all tells that everything that was
// parked when the rescan began was looked at.
func (t *Task) refill(l *lane, w *wantedTail, next int64, all bool) {
	l.parked = append(l.parked, w.refs...)
	t.parkedRefs += len(w.refs)
	n, late := l.tail.n-len(w.refs), l.tail.late
	l.tail = parkedTail{n: n, off: w.tail.off, origin: w.tail.origin}
	if len(w.refs) == w.max {
		return
	}
	l.tail.off = max(l.tail.off, next)
	if missing := n - late; all && missing != 0 {
		l.sub.parked -= missing
		l.tail.n = late
		if missing > 0 {
			t.emitUnreadable(l, -1, strconv.Itoa(missing)+" deliveries of this lane are gone from parked", nil)
		}
	}
}

// parkedKnown tells that the record at off needs no dead record: its delivery
// is known, and will be made again of its origin; or it has one already.
func (t *Task) parkedKnown(off int64) bool {
	if off <= t.parkedBad || slices.Contains(t.badSeen, off) {
		return true
	}
	for _, l := range t.lanes {
		if slices.ContainsFunc(l.parked, func(p parkedRef) bool { return p.off == off }) {
			return true
		}
	}
	return false
}
