package registry

import (
	"iter"
	"maps"
	"slices"

	"github.com/hookline/hookline/pipeline"
)

// entry is all that is known of one subscription. Immutable. There may be very
// many, of which most have a good configuration and nothing else.
type entry struct {
	config *pipeline.Subscription // the last good configuration; nil: none
	sub    *pipeline.Subscription // effective; nil without a good configuration
	*beside
}

// beside is what few subscriptions have besides a configuration. Immutable.
type beside struct {
	state  *StateInfo  // nil: none
	health *HealthInfo // nil: none, or it could not be read
	// badConfig and badState say why the last record of each key was refused.
	badConfig, badState error
	// unread stands for a subscription of which no configuration can be read.
	unread *pipeline.Subscription
}

// nothing is the beside of most.
var nothing = &beside{}

func (b *beside) empty() bool {
	return b.state == nil && b.health == nil && b.badConfig == nil && b.badState == nil
}

// apply gives the entry as it is after the record r, which err refused or not.
// A refused record leaves what is in force as it is.
func (e *entry) apply(r *Record, err error) *entry {
	next, own := entry{}, beside{}
	if e != nil {
		next, own = *e, *e.beside
	}
	switch {
	case r.IsState && err != nil:
		own.badState = err
	case r.IsState:
		own.state, own.badState = r.State, nil // no state for a tombstone
	case r.IsHealth: // one that is refused says nothing, which is not worth a complaint
		own.health = r.Health
	case err != nil:
		own.badConfig = err
	default:
		next.config, own.badConfig = r.Sub, r.Held // no configuration for a tombstone
	}
	own.unread = nil
	if next.config == nil && own.badConfig != nil {
		own.unread = paused(&pipeline.Subscription{ID: r.ID, Ordering: pipeline.OrderingSubscription}, "its configuration cannot be read: "+own.badConfig.Error())
	}
	next.beside = nothing
	if !own.empty() {
		next.beside = &own
	} else if next.config == nil {
		return nil
	}
	next.sub = failing(effective(next.config, next.state), next.state, next.health)
	if next.sub != nil && next.state == nil && next.badState != nil {
		next.sub = paused(next.sub, "its state cannot be read: "+next.badState.Error())
	}
	return &next
}

// paused is s held: what nobody can read here may be sent by a process that can.
func paused(s *pipeline.Subscription, why string) *pipeline.Subscription {
	if severity(s.State) >= severity(pipeline.StatePaused) && s.State != "" {
		return s
	}
	held := *s
	held.State, held.StateReason = pipeline.StatePaused, why
	return &held
}

// bad says why one of the last records was refused.
func (e *entry) bad() error {
	if e.badConfig != nil {
		return e.badConfig
	}
	return e.badState
}

// effective is the configuration under the state, where the state applies to its
// revision: the worse of both counts.
func effective(config *pipeline.Subscription, st *StateInfo) *pipeline.Subscription {
	if config == nil || st == nil || st.Revision != config.Revision || severity(st.State) <= severity(config.State) {
		return config
	}
	s := *config
	s.State, s.StateReason = st.State, st.Reason
	return &s
}

// failing is the subscription with what was noted of its failures, where that is
// of its revision and of the time since it was last taken into use.
func failing(sub *pipeline.Subscription, st *StateInfo, h *HealthInfo) *pipeline.Subscription {
	if sub == nil || h == nil || h.Revision != sub.Revision {
		return sub
	}
	if st != nil && st.Revision == sub.Revision && st.State == pipeline.StateActive && st.Since.After(h.FailingSince) {
		return sub
	}
	s := *sub
	s.FailingSince = h.FailingSince
	return &s
}

func severity(s pipeline.State) int {
	switch s {
	case pipeline.StateActive:
		return 0
	case pipeline.StatePaused:
		return 1
	case pipeline.StateDisabled:
	}
	return 2
}

// Snapshot is the registry at one version. Immutable and safe for concurrent
// use; it implements pipeline.Subscriptions.
type Snapshot struct {
	version    int64
	generation int64
	count, bad int
	// base is shared by many snapshots; delta is what changed since base was
	// made, nil for what was deleted. Neither is written once published.
	base, delta map[string]*entry
	merges      int64 // how many bases there were before this one
}

var _ pipeline.Subscriptions = (*Snapshot)(nil)

// Version is the offset of the last record that the snapshot has, control
// records included; -1 for an empty topic.
func (s *Snapshot) Version() int64 { return s.version }

// Generation grows with each change of a subscription but for what is noted of
// its failures, of which there may be hundreds a second; two snapshots of one
// Registry with the same generation match events alike.
func (s *Snapshot) Generation() int64 { return s.generation }

// ChangedSince gives the ids of all subscriptions that are not what they were in
// older, and perhaps of some that are. known is false where that cannot be told
// without looking at every subscription.
func (s *Snapshot) ChangedSince(older pipeline.Subscriptions) (ids []string, known bool) {
	o, ok := older.(*Snapshot)
	if !ok || o.merges != s.merges || o.version > s.version {
		return nil, false
	}
	for id, e := range s.delta { // what is in older's is in this one's too
		if was, ok := o.delta[id]; !ok || was != e {
			ids = append(ids, id)
		}
	}
	return ids, true
}

// Len is the number of subscriptions with a good configuration.
func (s *Snapshot) Len() int { return s.count }

// Bad is the number of ids of which a last record was refused.
func (s *Snapshot) Bad() int { return s.bad }

func (s *Snapshot) entry(id string) *entry {
	if e, ok := s.delta[id]; ok {
		return e
	}
	return s.base[id]
}

// Get returns nil where there is no such subscription. One of which there is no
// configuration but one that cannot be read (a newer version's, a damaged one) is
// given as paused, with nothing but its id: its deliveries wait, they are not
// taken for those of a deleted one.
func (s *Snapshot) Get(id string) *pipeline.Subscription {
	e := s.entry(id)
	switch {
	case e == nil:
		return nil
	case e.sub == nil:
		return e.unread
	}
	return e.sub
}

// State is what was decided about the subscription, whether it applies to the
// revision in force or not; nil: nothing.
func (s *Snapshot) State(id string) *StateInfo {
	if e := s.entry(id); e != nil {
		return e.state
	}
	return nil
}

func (s *Snapshot) entries() iter.Seq2[string, *entry] {
	return func(yield func(string, *entry) bool) {
		for id, e := range s.base {
			if _, changed := s.delta[id]; !changed && !yield(id, e) {
				return
			}
		}
		for id, e := range s.delta {
			if e != nil && !yield(id, e) {
				return
			}
		}
	}
}

// All gives every good subscription, in no order.
func (s *Snapshot) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) {
		for _, e := range s.entries() {
			if e.sub != nil && !yield(e.sub) {
				return
			}
		}
	}
}

// Refused gives the ids whose last record was refused, and why, by id.
func (s *Snapshot) Refused() iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if s.bad == 0 {
			return
		}
		found := map[string]error{}
		for id, e := range s.entries() {
			if err := e.bad(); err != nil {
				found[id] = err
			}
		}
		for _, id := range slices.Sorted(maps.Keys(found)) {
			if !yield(id, found[id]) {
				return
			}
		}
	}
}

// builder makes snapshots one after the other. It belongs to one goroutine.
//
// Before the first snapshot records go straight into base. Afterwards a batch of
// records copies delta, which is kept to a 32nd of base (at least minDelta):
// with 100,000 subscriptions a change costs at most 3,125 entries, and once in so
// many changes the whole of base.
type builder struct {
	pol       *Policy
	last      *Snapshot // nil before the first
	next      Snapshot  // in the making
	published bool      // next.base is shared: changes go to a copy of delta
	copied    bool      // next.delta is this batch's own
}

// minDelta keeps small registries from merging all the time; entries.
const minDelta = 256

func newBuilder(pol *Policy) *builder {
	return &builder{pol: pol, next: Snapshot{version: -1, base: map[string]*entry{}}}
}

// add takes one record of the topic. The error says that the record was
// refused, or its subscription paused for a secret that does not open; it is in
// the snapshot as well.
func (b *builder) add(key, value []byte) error {
	r, err := ParseRecord(key, value, b.pol)
	if r.ID == "" {
		return err
	}
	old := b.next.entry(r.ID)
	b.set(r.ID, old, old.apply(&r, err))
	if !r.IsHealth {
		b.next.generation++
	}
	if err == nil {
		err = r.Held
	}
	return err
}

func (b *builder) set(id string, old, e *entry) {
	b.next.count += oneIf(e != nil && e.sub != nil) - oneIf(old != nil && old.sub != nil)
	b.next.bad += oneIf(e != nil && e.bad() != nil) - oneIf(old != nil && old.bad() != nil)
	switch {
	case !b.published && e == nil:
		delete(b.next.base, id)
	case !b.published:
		b.next.base[id] = e
	default:
		if !b.copied {
			b.next.delta, b.copied = maps.Clone(b.next.delta), true
			if b.next.delta == nil {
				b.next.delta = map[string]*entry{}
			}
		}
		b.next.delta[id] = e
	}
}

func oneIf(c bool) int {
	if c {
		return 1
	}
	return 0
}

// snapshot publishes what was added, at that version.
func (b *builder) snapshot(version int64) *Snapshot {
	b.next.version = version
	if len(b.next.delta) > max(minDelta, len(b.next.base)/32) {
		base := make(map[string]*entry, len(b.next.base)+len(b.next.delta))
		maps.Insert(base, b.next.entries())
		b.next.base, b.next.delta = base, nil
		b.next.merges++
	}
	s := b.next
	b.last, b.published, b.copied = &s, true, false
	return &s
}
