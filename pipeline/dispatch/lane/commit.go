package lane

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// OutKind says which topic an Out goes to.
type OutKind uint8

// The kinds.
const (
	OutRetry  OutKind = iota + 1 // retry.<Attempts>
	OutParked                    // parked
	OutDead                      // dead
	OutState                     // <id>#state in subscriptions: the subscription is disabled
	OutHealth                    // <id>#health in subscriptions: since when it fails
	OutNotice                    // notices
	OutAnswer                    // what came of an operator's command; the caller's to encode
)

// Out is one record that the next transaction must produce.
type Out struct {
	Kind         OutKind
	Subscription string
	Lane         string
	Origin       int64
	Attempts     int // attempts made
	Round        int
	FailedAt     time.Time // OutRetry
	NotBefore    time.Time // OutParked; zero: at once
	Reason       pipeline.DeadReason
	Error        string // OutDead
	// Untried tells of an OutDead that no attempt was made in this step, so
	// that nothing but this record tells of its end.
	Untried bool
	// Logged is for the caller: it has put the end into the log already.
	Logged      bool
	Envelope    *pipeline.Envelope
	Header      []byte
	Payload     []byte
	StateReason string    // OutState
	Revision    int64     // OutState, OutHealth, OutNotice: of the subscription that it applies to
	At          time.Time // OutState, OutHealth, OutNotice
	// FailingSince of OutState and OutHealth: since when there was nothing but
	// failures; zero: that is not so.
	FailingSince time.Time
	Notice       *Notice // OutNotice

	// Raw, of an OutDead with reason unreadable: the record as it was found; nil:
	// there is none. Such an Out has no Envelope and no Payload.
	Raw *Raw

	lane  *lane
	head  *head // OutRetry
	since time.Time
	moves bool // OutParked: the lane's first entry, which takes its place before those parked already
}

// outOverheadBytes is about what an Out, the Kafka record made of it and its
// headers take beside the payload. Without it a task that parks all that it gets
// would hold a hundred thousand small ones between two transactions.
const outOverheadBytes = 1 << 10

// size is what the Out counts for in a task's bytes. Those without a payload of
// their own (states, notices, unreadable records) are few.
func (o *Out) size() int {
	if o.Envelope == nil {
		return len(o.Payload)
	}
	return len(o.Payload) + outOverheadBytes
}

// emit notes a record for the next transaction, with the entry's bytes.
func (t *Task) emit(l *lane, e *entry, k OutKind) *Out {
	o := &Out{
		Kind: k, Subscription: l.sub.id, Lane: l.key, Origin: e.origin, Attempts: e.attempts, Round: e.round,
		Envelope: e.env(), Header: e.hdr(), Payload: e.body(), lane: l, since: t.now,
	}
	if o.Envelope == nil {
		panic("BUG: emitting a delivery without its payload, lane " + l.key)
	}
	t.out = append(t.out, o)
	t.outBytes += o.size()
	t.touched = true
	return o
}

// LaneWrite is one record of lanes/p. A nil Value is a tombstone.
type LaneWrite struct {
	Key   string
	Value []byte
}

// Batch is a task's part of one transaction.
type Batch struct {
	Task       *Task
	Outs       []*Out
	Lanes      []LaneWrite
	State      []byte // the value of StateKey
	Deliveries int64  // the position of deliveries/p to commit
	Retry      [pipeline.MaxRetries]int64
	Seq        uint64

	parkedNeeded int64 // 0: not measured
}

// Cut takes everything that has happened since the last Cut. At most one batch
// of a task is under way; it ends by Committed or Aborted.
func (t *Task) Cut() *Batch {
	t.seq++
	b := &Batch{Task: t, Outs: t.out, Deliveries: t.position(), Seq: t.seq}
	t.out, t.answers = nil, 0
	for _, key := range slices.Sorted(maps.Keys(t.dirty)) {
		l := t.lanes[key]
		if l != nil && l.waiting {
			t.durable[key] = struct{}{}
			b.Lanes = append(b.Lanes, LaneWrite{key, l.record(t.parkedEnd)})
			continue
		}
		if _, ok := t.durable[key]; ok {
			b.Lanes = append(b.Lanes, LaneWrite{Key: key})
		}
	}
	clear(t.dirty)
	for k := range t.retry {
		b.Retry[k] = t.retry[k].position()
	}
	b.State = t.appendState(nil)
	if t.measure {
		t.measure, b.parkedNeeded = false, t.lowestParked()
	}
	t.touched = false
	return b
}

// Committed tells that b is durable. offsets has the offset of each Out of the
// batch in its topic; those of OutParked, OutRetry and OutState are looked at.
func (t *Task) Committed(now time.Time, b *Batch, offsets []int64) {
	if t.closed {
		return
	}
	t.now = now
	t.parkedNeeded = max(t.parkedNeeded, b.parkedNeeded)
	for _, w := range b.Lanes {
		if w.Value == nil {
			delete(t.durable, w.Key)
		}
	}
	var heeded []*sub
	for i, o := range b.Outs {
		t.outBytes -= o.size()
		switch o.Kind {
		case OutParked:
			t.parkedAt(o, offsets[i])
		case OutDead:
			if o.lane != nil {
				o.lane.fence--
			}
		case OutRetry:
			t.awaitHead(o.lane, o.head, o.Attempts, offsets[i])
		case OutState:
			if s := t.disabledAt(o, offsets[i]); s != nil {
				heeded = append(heeded, s)
			}
		case OutHealth, OutNotice, OutAnswer:
		}
	}
	t.findLost(now)
	// Only now that every entry stands in its place may lanes move on.
	for _, o := range b.Outs {
		if o.lane != nil {
			t.advance(o.lane, now)
		}
	}
	t.reviewLanes(now, heeded)
}

// disabledAt notes where it stands in the registry's topic that a subscription is
// disabled. It gives that subscription where the task's view has this already.
func (t *Task) disabledAt(o *Out, off int64) *sub {
	s := t.bySub[o.Subscription]
	if s == nil || s.disabled == "" || s.disabledRevision != o.Revision {
		return nil
	}
	if s.disabledAt = off; !t.heedRegistry(s) {
		return nil
	}
	return s
}

func (t *Task) parkedAt(o *Out, off int64) {
	l := o.lane
	l.pend--
	if o.moves {
		l.moving = false
	}
	t.parkedEnd = max(t.parkedEnd, off+1)
	t.unpark(l, parkedRef{origin: o.Origin, off: off, sinceMS: o.since.UnixMilli()})
}

// Aborted tells that nothing of b is durable: all of it goes into the next
// batch, before what came since.
func (t *Task) Aborted(b *Batch) {
	if t.closed {
		return
	}
	t.out = append(b.Outs, t.out...)
	for _, o := range b.Outs {
		if o.Kind == OutAnswer {
			t.answers++
		}
	}
	for _, w := range b.Lanes {
		t.dirty[w.Key] = struct{}{}
	}
	t.touched = true
}

// position is what may be committed for deliveries/p: everything below is
// settled or has another home.
func (t *Task) position() int64 {
	pos := t.front
	if len(t.recs) > 0 {
		pos = min(pos, t.recs[0].Offset)
	}
	if o, ok := t.old.first(); ok {
		pos = min(pos, o)
	}
	return pos
}

// ParkedNeeded is the lowest offset of parked/p that a rebuild from what was
// durable lately would read; what is below may be deleted. Each call has the
// next transaction measure it anew, so the answer is that of the last call's.
func (t *Task) ParkedNeeded() int64 {
	t.measure = true
	return t.parkedNeeded
}

func (t *Task) lowestParked() int64 {
	low := t.parkedEnd
	for _, l := range t.lanes {
		if f := l.from(t.parkedEnd); f >= 0 {
			low = min(low, f)
		}
	}
	return low
}

// laneRecord is the value of a waiting lane's record in lanes/p (JSON).
type laneRecord struct {
	V       int        `json:"v"`
	Next    int64      `json:"next"`
	Head    *headMark  `json:"head,omitempty"`
	Wait    *int64     `json:"wait,omitempty"` // origin of the entry that is still in deliveries
	First   *firstMark `json:"first,omitempty"`
	From    *int64     `json:"from,omitempty"`
	Blocked bool       `json:"blocked,omitempty"`
	Held    bool       `json:"held,omitempty"`  // its subscription was paused
	FreshMS int64      `json:"fresh,omitempty"` // see lane.fresh
	End     *endMark   `json:"end,omitempty"`
}

// endMark says that the lane's first delivery ends without a further try.
type endMark struct {
	Origin int64               `json:"o"`
	Reason pipeline.DeadReason `json:"as"`
}

type headMark struct {
	Origin   int64 `json:"o"`
	Attempts int   `json:"k"`
	Round    int   `json:"r,omitempty"`
	// Asked: an operator asked for it to be tried at once.
	Asked    bool   `json:"now,omitempty"`
	Delivery string `json:"d,omitempty"` // its id; empty: not known
}

const laneRecordVersion = 1

func (l *lane) record(parkedEnd int64) []byte {
	r := laneRecord{V: laneRecordVersion, Next: l.next, First: l.first, Blocked: l.blocked, Held: l.held, FreshMS: unixMS(l.fresh)}
	if l.head != nil {
		r.Head = &headMark{l.head.origin, l.head.attempts, l.head.round, l.head.asked, l.head.delivery}
	}
	switch {
	case l.endAs == "":
	case l.head != nil:
		r.End = &endMark{l.head.origin, l.endAs}
	case l.moving: // what is parked already comes behind it
		if l.first != nil {
			r.End = &endMark{l.first.Origin, l.endAs}
		}
	case len(l.parked) > 0:
		r.End = &endMark{l.parked[0].origin, l.endAs}
	}
	if len(l.mem) > 0 {
		r.Wait = &l.mem[0].origin
	} else if l.expect >= 0 {
		r.Wait = &l.expect
	}
	if from := l.from(parkedEnd); from >= 0 {
		r.From = &from
	}
	b, err := json.Marshal(r)
	if err != nil {
		panic("BUG: lane record: " + err.Error())
	}
	return b
}
