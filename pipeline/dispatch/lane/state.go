package lane

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/hookline/hookline/pipeline"
)

// StateKey is the key of a task's state record in lanes/p. No lane key can
// equal it: subscription ids have no '#'.
const StateKey = "#d"

// State is the value of a task's state record: what is settled of deliveries/p,
// and how far the retry topics were decided, as of one transaction. Settled is
// told by bits, never by offset alone.
type State struct {
	Incarnation uint64 // of the task that wrote it
	Seq         uint64 // of that task's transaction
	Front       int64  // every offset below is settled, or open in Open
	Retry       [pipeline.MaxRetries]int64
	Open        openSet
	// ParkedBad: unreadable records of parked/p up to this offset are in dead;
	// -1: none.
	ParkedBad int64
	// Control: of the topic of operators' commands, all below has been carried
	// out, or is not for this task.
	Control int64
}

const stateVersion = 1

// openSet holds open deliveries by offset, in increasing order.
type openSet struct {
	runs     []openRun
	partials []openPartial
}

// openRun says that of every record in [from, to] all positions are open.
type openRun struct{ from, to int64 }

// openPartial says which positions of one record are open.
type openPartial struct {
	off  int64
	open positions
}

// take removes offset off from the set (and everything below it: offsets come
// in order) and returns which of its n positions are open.
func (s *openSet) take(off int64, n int) positions {
	for len(s.partials) > 0 && s.partials[0].off < off {
		s.partials = s.partials[1:]
	}
	for len(s.runs) > 0 && s.runs[0].to < off {
		s.runs = s.runs[1:]
	}
	if len(s.partials) > 0 && s.partials[0].off == off {
		p := s.partials[0].open
		s.partials = s.partials[1:]
		return p
	}
	if len(s.runs) > 0 && s.runs[0].from <= off {
		s.runs[0].from = off + 1
		if s.runs[0].from > s.runs[0].to {
			s.runs = s.runs[1:]
		}
		return allPositions(n)
	}
	return positions{}
}

// first is the lowest open offset.
func (s *openSet) first() (int64, bool) {
	low := int64(math.MaxInt64)
	if len(s.runs) > 0 {
		low = s.runs[0].from
	}
	if len(s.partials) > 0 {
		low = min(low, s.partials[0].off)
	}
	return low, low != math.MaxInt64
}

func (s *openSet) add(r *Record) {
	if !r.whole() {
		s.partials = append(s.partials, openPartial{r.Offset, r.open})
		return
	}
	s.runs = append(s.runs, openRun{r.Offset, r.Offset})
}

// appendState encodes the task's state as it is now.
func (t *Task) appendState(dst []byte) []byte {
	var open openSet
	joined := false // the last record was whole: the next one may extend its run
	for _, r := range t.recs {
		switch {
		case r.nopen == 0:
			joined = false
		case r.whole() && joined && !r.gap:
			open.runs[len(open.runs)-1].to = r.Offset
		default:
			open.add(r)
			joined = r.whole()
		}
	}
	open.runs = append(open.runs, t.old.runs...)
	open.partials = append(open.partials, t.old.partials...)
	s := State{Incarnation: t.incarnation, Seq: t.seq, Front: t.front, Open: open, ParkedBad: t.parkedBad, Control: t.control}
	for k := range t.retry {
		s.Retry[k] = t.retry[k].position()
	}
	return s.append(dst)
}

func (s *State) append(dst []byte) []byte {
	dst = append(dst, stateVersion)
	dst = binary.BigEndian.AppendUint64(dst, s.Incarnation)
	dst = binary.AppendUvarint(dst, s.Seq)
	dst = binary.AppendUvarint(dst, uint64(s.Front))
	for _, o := range s.Retry {
		dst = binary.AppendUvarint(dst, uint64(o))
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Open.runs)))
	prev := int64(0)
	for _, r := range s.Open.runs {
		dst = binary.AppendUvarint(dst, uint64(r.from-prev))
		dst = binary.AppendUvarint(dst, uint64(r.to-r.from))
		prev = r.to
	}
	dst = binary.AppendUvarint(dst, uint64(len(s.Open.partials)))
	prev = 0
	for _, p := range s.Open.partials {
		dst = binary.AppendUvarint(dst, uint64(p.off-prev))
		prev = p.off
		n := len(p.open)
		for n > 0 && p.open[n-1] == 0 {
			n--
		}
		dst = append(dst, byte(n))
		for _, w := range p.open[:n] {
			dst = binary.AppendUvarint(dst, w)
		}
	}
	dst = binary.AppendUvarint(dst, uint64(s.ParkedBad+1))
	return binary.AppendUvarint(dst, uint64(s.Control))
}

// ParseState decodes the value of a state record. Fields that a newer version
// appended are passed over; another version is an error.
func ParseState(b []byte) (*State, error) {
	if len(b) < 9 {
		return nil, errors.New("parsing task state: too short")
	}
	if b[0] != stateVersion {
		return nil, fmt.Errorf("parsing task state: version %d: this hookline reads %d", b[0], stateVersion)
	}
	d := stateReader{b: b[9:]}
	s := &State{Incarnation: binary.BigEndian.Uint64(b[1:]), Seq: d.uint(), Front: d.offset(0)}
	for k := range s.Retry {
		s.Retry[k] = d.offset(0)
	}
	prev := int64(0)
	for n := d.count(); n > 0; n-- {
		var r openRun
		r.from = d.offset(prev)
		r.to = d.offset(r.from)
		prev = r.to
		s.Open.runs = append(s.Open.runs, r)
	}
	prev = 0
	for n := d.count(); n > 0; n-- {
		p := openPartial{off: d.offset(prev)}
		prev = p.off
		words := int(d.byte())
		if words > len(p.open) {
			d.bad = true
			break
		}
		for i := range words {
			p.open[i] = d.uint()
		}
		s.Open.partials = append(s.Open.partials, p)
	}
	s.ParkedBad = -1
	if len(d.b) > 0 { // older versions do not have it
		s.ParkedBad = d.offset(0) - 1
	}
	if len(d.b) > 0 {
		s.Control = d.offset(0)
	}
	if d.bad {
		return nil, errors.New("parsing task state: cut off or out of range")
	}
	return s, nil
}

// stateReader reads varints; bad is set once anything does not fit.
type stateReader struct {
	b   []byte
	bad bool
}

func (d *stateReader) uint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 || d.bad {
		d.bad = true
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *stateReader) byte() byte {
	if len(d.b) == 0 {
		d.bad = true
		return 0
	}
	c := d.b[0]
	d.b = d.b[1:]
	return c
}

// offset reads a distance from base.
func (d *stateReader) offset(base int64) int64 {
	v := d.uint()
	if v > uint64(math.MaxInt64-base) {
		d.bad = true
		return 0
	}
	return base + int64(v)
}

// count reads a number of things, each of at least one byte.
func (d *stateReader) count() int {
	v := d.uint()
	if v > uint64(len(d.b)) {
		d.bad = true
	}
	if d.bad {
		return 0
	}
	return int(v)
}
