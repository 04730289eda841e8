package router

import (
	"container/heap"
	"crypto/sha256"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// maxMemoryIDs bounds the ids that are remembered of one partition, each some
// 150 bytes; beyond, those with the oldest record are forgotten first.
const maxMemoryIDs = 1_000_000

// memory is what a partition's duplicates are told by: the ids of its events of
// the last window, each with its latest record.
//
// It depends on nothing but the records behind it: before a record of time t is
// looked up, every id older than t less the window is forgotten. So it can be
// built again, for any offset, from the records since the first one that is not
// older than the record before that offset less the window, whatever the order
// of their timestamps.
//
// Changes are noted until settled, so that an aborted transaction leaves none.
type memory struct {
	windowMillis int64
	limit        int
	byKey        map[idKey]*sighting
	oldest       sightings // a heap
	changes      []change
	dropped      int // forgotten before their time, since it was last asked
	topic        string
	partition    int32
	told         bool // that some were dropped
}

// idKey is a hash of what two records have in common that are one event.
type idKey [16]byte

// sighting is an id's latest record.
type sighting struct {
	key      idKey
	atMillis int64
	offset   int64
	index    int // in the heap
}

// change is one that undo takes back.
type change struct {
	of   *sighting
	was  sighting // its value before an update
	kind changeKind
}

type changeKind uint8

const (
	added changeKind = iota
	updated
	removed
)

func newMemory(windowMillis int64, limit int) *memory {
	return &memory{windowMillis: windowMillis, limit: limit, byKey: map[idKey]*sighting{}}
}

// repeats notes a record and tells whether one before it that is not forgotten
// has the same key. A record noted before (after a rewind) does not
// repeat itself.
func (m *memory) repeats(key idKey, atMillis, offset int64) bool {
	s, ok := m.byKey[key]
	if !ok {
		if len(m.oldest) >= m.limit {
			m.dropped++
			m.remove(m.oldest[0])
		}
		s = &sighting{key: key, atMillis: atMillis, offset: offset}
		m.insert(s)
		m.changes = append(m.changes, change{of: s, kind: added})
		return false
	}
	repeated := s.offset < offset
	m.changes = append(m.changes, change{of: s, was: *s, kind: updated})
	s.atMillis, s.offset = max(s.atMillis, atMillis), offset
	heap.Fix(&m.oldest, s.index)
	return repeated
}

// forget lets go what is older than the window before a record's time. It is
// called for each record, before repeats, of an event with an id or not.
func (m *memory) forget(atMillis int64) {
	beforeMillis := atMillis - m.windowMillis
	for len(m.oldest) > 0 && m.oldest[0].atMillis < beforeMillis {
		m.remove(m.oldest[0])
	}
}

func (m *memory) insert(s *sighting) {
	m.byKey[s.key] = s
	heap.Push(&m.oldest, s)
}

func (m *memory) remove(s *sighting) {
	heap.Remove(&m.oldest, s.index)
	delete(m.byKey, s.key)
	m.changes = append(m.changes, change{of: s, kind: removed})
}

// settle keeps the changes since the last settle or undo.
func (m *memory) settle() {
	clear(m.changes) // let what was removed go
	m.changes = m.changes[:0]
	if cap(m.changes) > 4*batchRecords {
		m.changes = nil
	}
}

// undo takes them back.
func (m *memory) undo() {
	for i := len(m.changes) - 1; i >= 0; i-- {
		c := &m.changes[i]
		switch c.kind {
		case added:
			heap.Remove(&m.oldest, c.of.index)
			delete(m.byKey, c.of.key)
		case updated:
			c.of.atMillis, c.of.offset = c.was.atMillis, c.was.offset
			heap.Fix(&m.oldest, c.of.index)
		case removed:
			m.insert(c.of)
		}
	}
	m.settle()
}

// takeDropped gives how many ids were forgotten before their time since the last
// call.
func (m *memory) takeDropped() int {
	n := m.dropped
	m.dropped = 0
	return n
}

// sightings is a heap by time, then offset.
type sightings []*sighting

func (h sightings) Len() int { return len(h) }

func (h sightings) Less(i, j int) bool {
	if h[i].atMillis != h[j].atMillis {
		return h[i].atMillis < h[j].atMillis
	}
	return h[i].offset < h[j].offset
}

func (h sightings) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push is heap.Interface's.
func (h *sightings) Push(x any) {
	s := x.(*sighting)
	s.index = len(*h)
	*h = append(*h, s)
}

// Pop is heap.Interface's.
func (h *sightings) Pop() any {
	last := len(*h) - 1
	s := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return s
}

// keyer makes keys. Use it from one goroutine.
type keyer struct {
	doc jsonscan.Doc
	buf []byte
}

// key is what records of one event have in common: the id, and what it is unique
// within, namely format, tenant, the subscription that it is meant for and a
// CloudEvent's source. ok is false where the id is made of the position: such an
// event repeats none.
func (k *keyer) key(ev *pipeline.Event) (key idKey, ok bool) {
	switch ev.Format {
	case pipeline.FormatCotalker, pipeline.FormatGoflow, pipeline.FormatTask:
		return key, false
	case pipeline.FormatJSON:
		if k.buf = pipeline.AppendDerivedID(k.buf[:0], &ev.Source); string(k.buf) == ev.ID {
			return key, false
		}
	case pipeline.FormatSIGNL4, pipeline.FormatCloudEvents: // always have one of their own
	}
	b := k.buf[:0]
	for _, part := range [...]string{string(ev.Format), ev.ID, ev.Tenant, ev.Target} {
		b = append(append(b, part...), 0)
	}
	if ev.Format == pipeline.FormatCloudEvents {
		b = k.appendSource(b, ev)
	}
	k.buf = b
	sum := sha256.Sum256(b)
	return idKey(sum[:16]), true
}

// appendSource appends the attribute source of a CloudEvent.
func (k *keyer) appendSource(b []byte, ev *pipeline.Event) []byte {
	for i := range ev.Attributes {
		if ev.Attributes[i].Name == "source" {
			return append(b, ev.Attributes[i].Value...)
		}
	}
	defer k.doc.Reset()
	if err := k.doc.Scan(ev.Payload); err != nil {
		return b // never: the parser has scanned it
	}
	return k.doc.Root().Get("source").AppendString(b)
}
