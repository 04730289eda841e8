package lane

import (
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

// source is where a simulation takes its decisions from.
type source interface{ intn(n int) int }

type seeded struct{ r *rand.Rand }

type drawn struct{ t *rapid.T }

func newSeeded(seed uint64) seeded    { return seeded{rand.New(rand.NewPCG(seed, 1))} }
func (s seeded) intn(n int) int       { return s.r.IntN(n) }
func (d drawn) intn(n int) int        { return rapid.IntRange(0, n-1).Draw(d.t, "n") }
func pick[T any](s source, xs ...T) T { return xs[s.intn(len(xs))] }

// simLog is one partition of a simulated topic, seen with read committed:
// aborted records and transaction markers leave gaps.
type simLog[T any] struct {
	recs []simRecord[T]
	end  int64
	low  int64 // deleted below
}

type simRecord[T any] struct {
	off int64
	val T
}

func (l *simLog[T]) append(v T) int64 {
	off := l.end
	l.recs = append(l.recs, simRecord[T]{off, v})
	l.end++
	return off
}

// marker is what the end of a transaction leaves behind.
func (l *simLog[T]) marker() { l.end++ }

// at returns the first record from off on.
func (l *simLog[T]) at(off int64) (simRecord[T], bool) {
	off = max(off, l.low)
	i, _ := slices.BinarySearchFunc(l.recs, off, func(r simRecord[T], o int64) int { return int(r.off - o) })
	if i == len(l.recs) {
		return simRecord[T]{}, false
	}
	return l.recs[i], true
}

// last is the offset behind the last record.
func (l *simLog[T]) last() int64 {
	if len(l.recs) == 0 {
		return 0
	}
	return l.recs[len(l.recs)-1].off + 1
}

type simDelivery struct {
	subs    []string
	env     *pipeline.Envelope
	payload []byte
}

type simParked struct {
	lane            string
	origin          int64
	attempts, round int
	notBefore       time.Time
	written         time.Time
	env             *pipeline.Envelope
	payload         []byte
}

// simCommand is an operator's.
type simCommand struct {
	id    string
	skip  bool // else retry
	which Which
}

// simKafka is all that outlives a task.
type simKafka struct {
	deliveries simLog[simDelivery]
	retry      [pipeline.MaxRetries]simLog[RetryRecord]
	parked     simLog[simParked]
	badRetry   [pipeline.MaxRetries]map[int64]bool // records that cannot be read
	badParked  map[int64]badness
	control    simLog[simCommand]
	lanes      []LaneWrite // in the order written, the state record among them

	committed      int64
	committedRetry [pipeline.MaxRetries]int64
}

// compacted is the last value of every key.
func (k *simKafka) compacted() map[string][]byte {
	m := map[string][]byte{}
	for _, w := range k.lanes {
		if m[w.Key] = w.Value; w.Value == nil {
			delete(m, w.Key)
		}
	}
	return m
}

// recover feeds r as the shell does. Compaction may not have happened yet.
func (k *simKafka) recover(r *Recovery, compacted bool) error {
	writes := k.lanes
	if compacted {
		m := k.compacted()
		writes = nil
		for _, key := range slices.Sorted(maps.Keys(m)) {
			writes = append(writes, LaneWrite{key, m[key]})
		}
	}
	for _, w := range writes {
		if err := r.Lane(w.Key, w.Value); err != nil {
			return err
		}
	}
	if from, ok := r.ParkedFrom(); ok {
		for _, p := range k.parked.recs {
			if p.off >= max(from, k.parked.low) {
				v := p.val
				if k.badParked[p.off] == badWhole {
					r.ParkedBad(&Raw{Topic: "parked", Offset: p.off, Key: []byte(pipeline.LaneSubscription(v.lane))})
					continue
				}
				r.Parked(p.off, v.lane, v.origin, v.attempts, v.round, v.notBefore, v.written)
			}
		}
	}
	return nil
}

// badness is what is wrong with a record of parked.
type badness uint8

const (
	badPayload badness = iota + 1 // whose it is can be told
	badWhole
)

// spoil makes some of the records from these offsets on unreadable.
func (k *simKafka) spoil(rnd source, retry [pipeline.MaxRetries]int64, parked int64) {
	if k.badParked == nil {
		k.badParked = map[int64]badness{}
	}
	for i := range k.retry {
		for _, r := range k.retry[i].recs {
			if r.off >= retry[i] && rnd.intn(10) == 0 {
				if k.badRetry[i] == nil {
					k.badRetry[i] = map[int64]bool{}
				}
				k.badRetry[i][r.off] = true
			}
		}
	}
	for _, r := range k.parked.recs {
		if r.off >= parked && rnd.intn(10) == 0 {
			k.badParked[r.off] = badPayload + badness(rnd.intn(2))
		}
	}
}

// load fills in w from its copy or, where that cannot be read, from its origin.
func (k *simKafka) load(w *Work, fail func(string, ...any)) {
	if w.ParkedOffset < 0 && !w.FromOrigin {
		return
	}
	if w.ParkedOffset >= 0 {
		r, ok := k.parked.at(w.ParkedOffset)
		if !ok || r.off != w.ParkedOffset || r.val.lane != w.LaneKey() || r.val.origin != w.Origin {
			fail("%s@%d: not at %d of parked (there: %+v)", w.LaneKey(), w.Origin, w.ParkedOffset, r)
		}
		if k.badParked[r.off] == 0 {
			w.Envelope, w.Header, w.Payload = r.val.env, []byte{1}, r.val.payload
			return
		}
		w.Raw = &Raw{Topic: "parked", Offset: r.off}
	}
	if d, ok := k.deliveries.at(w.Origin); ok && d.off == w.Origin {
		w.Envelope, w.Header, w.Payload = d.val.env, []byte{1}, d.val.payload
		return
	}
	w.Unreadable = "neither the copy nor the origin can be read"
}

// ends are the ends of the retry topics.
func (k *simKafka) ends() (ends [pipeline.MaxRetries]int64) {
	for i := range k.retry {
		ends[i] = k.retry[i].end
	}
	return ends
}

// produce makes b durable and returns the offsets of its records.
func (k *simKafka) produce(b *Batch, now time.Time) (offsets []int64) {
	parked := false
	var touched [pipeline.MaxRetries]bool
	for _, o := range b.Outs {
		switch o.Kind {
		case OutRetry:
			offsets = append(offsets, k.retry[o.Attempts-1].append(RetryRecord{
				Lane: o.Lane, Origin: o.Origin, Attempts: o.Attempts, Round: o.Round,
				FailedAt: roundUp(o.FailedAt), Envelope: o.Envelope, Payload: o.Payload,
			}))
			touched[o.Attempts-1] = true
		case OutParked:
			parked = true
			offsets = append(offsets, k.parked.append(simParked{
				o.Lane, o.Origin, o.Attempts, o.Round, roundUp(o.NotBefore), now, o.Envelope, o.Payload,
			}))
		case OutState:
			offsets = append(offsets, math.MaxInt64) // of the registry's topic: the caller's to know
		case OutDead, OutHealth, OutNotice, OutAnswer:
			offsets = append(offsets, -1)
		}
	}
	for i := range touched {
		if touched[i] {
			k.retry[i].marker()
		}
	}
	if parked {
		k.parked.marker()
	}
	k.lanes = append(k.lanes, b.Lanes...)
	k.lanes = append(k.lanes, LaneWrite{StateKey, b.State})
	k.committed, k.committedRetry = b.Deliveries, b.Retry
	return offsets
}

// abort leaves the gaps of b's records.
func (k *simKafka) abort(b *Batch) {
	for _, o := range b.Outs {
		switch o.Kind {
		case OutRetry:
			k.retry[o.Attempts-1].marker()
		case OutParked:
			k.parked.marker()
		case OutDead, OutState, OutHealth, OutNotice, OutAnswer:
		}
	}
}

func roundUp(t time.Time) time.Time { return fromUnixMS(unixMS(t)) }

// simRegistry is an immutable view.
type simRegistry struct {
	version int64
	subs    map[string]*pipeline.Subscription
}

func (r *simRegistry) Version() int64                       { return r.version }
func (r *simRegistry) Get(id string) *pipeline.Subscription { return r.subs[id] }

// with returns a view in which id is changed.
func (r *simRegistry) with(id string, change func(*pipeline.Subscription)) *simRegistry {
	n := &simRegistry{r.version + 1, maps.Clone(r.subs)}
	if change == nil {
		delete(n.subs, id)
		return n
	}
	s := newSubscription(id)
	if old := r.subs[id]; old != nil {
		*s = *old
	}
	s.Revision, s.FailingSince = n.version, time.Time{} // what was decided is void
	change(s)
	n.subs[id] = s
	return n
}

// decided returns a view in which an operator or a task has put id into a state:
// that leaves the revision as it is.
func (r *simRegistry) decided(id string, state pipeline.State, reason string) *simRegistry {
	old := r.subs[id]
	if old == nil {
		return r
	}
	return r.with(id, func(s *pipeline.Subscription) {
		s.State, s.StateReason, s.Revision = state, reason, old.Revision
		if state != pipeline.StateActive {
			s.FailingSince = old.FailingSince
		}
	})
}

func newSubscription(id string) *pipeline.Subscription {
	return &pipeline.Subscription{
		ID: id, Tenant: pipeline.AnyTenant, Ordering: pipeline.OrderingSubscription,
		OnExhausted: pipeline.OnExhaustedContinue, Retries: pipeline.MaxRetries, Concurrency: 4, State: pipeline.StateActive,
	}
}
