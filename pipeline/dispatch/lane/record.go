package lane

import (
	"math/bits"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// MaxPositions is the most subscriptions that one deliveries record lists.
const MaxPositions = 256

// Record is one record of the deliveries topic: one event, and the
// subscriptions of this partition that it goes to.
type Record struct {
	Offset   int64
	Subs     []string
	Envelope *pipeline.Envelope
	Header   []byte // the envelope as it stood in the record, copied as it is
	Payload  []byte
	// Unreadable, where the record could not be read: it goes to dead as it is.
	// Nothing but the offset is given besides.
	Unreadable *Raw

	open  positions // positions whose home is still this record
	nopen int
	since time.Time
	gap   bool // a record between it and the one before it in Task.recs was settled when read
}

// whole tells whether no position has been settled or moved yet.
func (r *Record) whole() bool { return r.nopen == len(r.Subs) }

// positions is a bitmap over a record's subscription list.
type positions [MaxPositions / 64]uint64

func (p *positions) has(i int) bool { return p[i>>6]&(1<<(i&63)) != 0 }
func (p *positions) set(i int)      { p[i>>6] |= 1 << (i & 63) }
func (p *positions) clear(i int)    { p[i>>6] &^= 1 << (i & 63) }

func (p *positions) count() int {
	n := 0
	for _, w := range p {
		n += bits.OnesCount64(w)
	}
	return n
}

func allPositions(n int) (p positions) {
	for i := range p {
		switch {
		case n >= 64:
			p[i] = ^uint64(0)
			n -= 64
		case n > 0:
			p[i] = 1<<n - 1
			n = 0
		}
	}
	return p
}

// home is where an unsettled delivery durably stands.
type home uint8

const (
	homeDeliveries home = iota + 1
	homeRetry
	homeParked
)

// entry is one unsettled delivery of a lane. There may be very many: what only
// some of them need stands elsewhere.
type entry struct {
	origin    int64
	off       int64     // homeRetry, homeParked: offset there; -1: not known yet
	attempts  int       // attempts made so far
	round     int       // operators' retries of an exhausted head
	notBefore time.Time // zero: at once
	since     time.Time // queued or parked since
	rec       *Record   // homeDeliveries
	got       *fetched  // homeRetry, homeParked: once read back
	home      home
	pos       uint8 // homeDeliveries: position in rec's list
}

// parkedRef is a delivery's place in parked/p. There may be very many.
type parkedRef struct {
	origin, off int64
	sinceMS     int64 // parked since
}

// parkedTail stands for the last parked deliveries of a lane, of which only the
// number is in memory. They were never tried, so each stands in parked/p once,
// in the order of their origins.
type parkedTail struct {
	n      int
	off    int64 // where to look for them: none stands below
	origin int64 // none has a lower one
	late   int   // of n, how many were parked since the rescan under way began
}

// fetched is what was read back of a delivery from retry.k or parked.
type fetched struct {
	envelope *pipeline.Envelope
	header   []byte
	payload  []byte
}

// head is the entry of a lane that stands in a retry topic.
type head struct {
	entry
	due      time.Time // zero: not read back yet
	lost     bool      // its record cannot be read: its origin is read instead
	raw      *Raw      // of a lost one, where it could be told
	mustBe   int64     // no record of it stands above this offset of its retry topic
	failedAt time.Time // with a monotonic reading where this process saw the failure
	isDue    bool
	asked    bool   // an operator asked for it to be tried at once
	delivery string // its id
}

// Raw is a record that cannot be read, as it stands in its topic.
type Raw struct {
	Topic   string
	Offset  int64
	Key     []byte
	Value   []byte
	Headers []RawHeader
	// Lane and Origin are what can be told of it; empty and -1: nothing.
	Lane   string
	Origin int64
}

// RawHeader is one header of a Raw.
type RawHeader struct {
	Key   string
	Value []byte
}

// loaded tells whether the payload is in memory.
func (e *entry) loaded() bool { return e.rec != nil || e.got != nil }

func (e *entry) env() *pipeline.Envelope {
	switch {
	case e.rec != nil:
		return e.rec.Envelope
	case e.got != nil:
		return e.got.envelope
	}
	return nil
}

func (e *entry) hdr() []byte {
	switch {
	case e.rec != nil:
		return e.rec.Header
	case e.got != nil:
		return e.got.header
	}
	return nil
}

func (e *entry) body() []byte {
	switch {
	case e.rec != nil:
		return e.rec.Payload
	case e.got != nil:
		return e.got.payload
	}
	return nil
}
