package registry

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
)

// ErrConflict says that another writer began after this one and fenced it.
// Nothing was written; the change may be tried again on top of the other's.
var ErrConflict = errors.New("someone else is changing the subscriptions (try again)")

// ErrNotFound says that there is no such subscription.
var ErrNotFound = errors.New("there is no such subscription")

// Action is what a change did.
type Action string

// The actions.
const (
	Created   Action = "created"
	Updated   Action = "updated"
	Unchanged Action = "unchanged"
	Deleted   Action = "deleted"
)

// Change says what happened to one subscription.
type Change struct {
	ID       string `json:"id"`
	Action   Action `json:"action"`
	Revision int64  `json:"revision"`         // in force afterwards; 0: none
	Reason   string `json:"reason,omitempty"` // of a new state
	// Reactivated says why the subscription was disabled before the change, which
	// has taken it into use again; what it missed meanwhile is not made up for by
	// that. Empty: it was not.
	Reactivated string `json:"reactivated,omitempty"`
	// Version of the registry that has the change: the offset of its last record.
	// Unchanged: as far as the writer had read.
	Version int64 `json:"-"`
}

// Item is one subscription as stored.
type Item struct {
	Document
	Revision  int64      `json:"revision"`
	UpdatedAt time.Time  `json:"updated_at"`
	Decided   *StateInfo `json:"decided,omitempty"` // nil: nothing, or for another revision
	// Effective is the worse of the configured state and the decided one.
	Effective pipeline.State `json:"effective_state"`
	// FailingSince is since when there was nothing but failures; zero: that is not
	// so, or hookline has not noted it yet.
	FailingSince time.Time `json:"failing_since,omitzero"`
	// Bad says why the stored record is refused; empty: it is good.
	Bad string `json:"bad,omitempty"`
}

// Writer changes the subscriptions. Safe for concurrent use, although of two
// changes at once one fails with ErrConflict. Each call makes a client of its
// own.
type Writer struct {
	cfg   Config
	deps  Deps
	actor string
}

// NewWriter makes a writer.
func NewWriter(cfg Config, deps Deps) *Writer { return &Writer{cfg: cfg, deps: deps.complete()} }

// As gives a writer that makes its changes in the name of actor, as the audit
// topic tells it; at most audit.MaxActor bytes count.
func (w *Writer) As(actor string) *Writer {
	c := *w
	c.actor = actor
	return &c
}

// transactionTimeout bounds how long a writer that died holds back what others
// read of the topic.
const transactionTimeout = 10 * time.Second

// Apply puts docs, which it checks again, in place of what is stored under their
// ids, all or nothing. With prune every other subscription is deleted. A paused
// subscription stays paused under its new revision; any other decision, such as
// being disabled, ends with a new revision. What does not differ is left alone.
func (w *Writer) Apply(ctx context.Context, docs []Document, prune bool) ([]Change, error) {
	ids, err := w.check(docs)
	if err != nil {
		return nil, err
	}
	return w.change(ctx, audit.ActionApply, func(s *session) ([]Change, error) { return s.apply(docs, ids, prune) })
}

// Preview says what Apply would do now, and changes nothing. It gives no revisions
// but those that are in force.
func (w *Writer) Preview(ctx context.Context, docs []Document, prune bool) ([]Change, error) {
	ids, err := w.check(docs)
	if err != nil {
		return nil, err
	}
	var changes []Change
	err = w.look(ctx, func(s *session) error {
		changes, err = s.apply(docs, ids, prune)
		return err
	})
	for i := range changes {
		if changes[i].Action != Unchanged {
			changes[i].Revision = 0
		}
	}
	return changes, err
}

// check checks docs and gives their ids.
func (w *Writer) check(docs []Document) (ids map[string]bool, err error) {
	seen := make(map[string]bool, len(docs))
	var errs []*FieldError
	for i := range docs {
		d := &docs[i]
		if errs = append(errs, d.Check(&w.deps.Policy)...); seen[d.ID] {
			errs = append(errs, d.at(problem{field: "id", why: "it is there twice"}))
		}
		seen[d.ID] = true
	}
	if len(errs) > 0 {
		return nil, join(errs)
	}
	return seen, nil
}

// Delete removes the subscriptions, all or nothing; ErrNotFound names the first
// that there is not.
func (w *Writer) Delete(ctx context.Context, ids ...string) ([]Change, error) {
	return w.change(ctx, audit.ActionDelete, func(s *session) ([]Change, error) {
		var changes []Change
		for _, id := range ids {
			if k := s.known[id]; k == nil || !k.exists() {
				return nil, fmt.Errorf("deleting subscription %q: %w", id, ErrNotFound)
			}
			changes = append(changes, s.remove(id))
		}
		return changes, nil
	})
}

// SetState records a decision about the subscription as it is configured now.
// Active takes back an earlier decision; it is refused where the configuration
// itself says otherwise. The times of what it missed while it was disabled are
// kept, and that of a disabled one ends.
func (w *Writer) SetState(ctx context.Context, id string, state pipeline.State, reason string) (Change, error) {
	return w.setState(ctx, id, state, reason, nil)
}

// ErrStateChanged says that the subscription is not in the state that it was
// expected to be in.
var ErrStateChanged = errors.New("its state was changed by somebody else meanwhile")

// CaughtUp ends a catch-up (paused for the reason pipeline.ReasonCatchUp): the
// subscription is active again, and has missed nothing that it had missed until
// then. ErrStateChanged: it is not in one.
func (w *Writer) CaughtUp(ctx context.Context, id string) (Change, error) {
	return w.setState(ctx, id, pipeline.StateActive, "", func(st *StateInfo) error {
		if st == nil || st.State != pipeline.StatePaused || st.Reason != pipeline.ReasonCatchUp {
			return ErrStateChanged
		}
		st.Missed = nil
		return nil
	})
}

// MissedDelivered says that all that the subscription had missed until a time has
// been delivered.
func (w *Writer) MissedDelivered(ctx context.Context, id string, until time.Time) error {
	_, err := w.change(ctx, audit.ActionReplay, func(s *session) ([]Change, error) {
		k := s.known[id]
		if k == nil || k.state == nil {
			return nil, nil
		}
		st := *k.state
		st.Missed = slices.DeleteFunc(slices.Clone(st.Missed), func(m MissedSpan) bool { return !m.To.After(until) })
		if len(st.Missed) != len(k.state.Missed) {
			s.add(StateRecord(id, &st))
		}
		return nil, nil
	})
	return err
}

// setState is SetState where check, if there is one, agrees to the state that
// is decided (nil: none), of which it is given a copy.
func (w *Writer) setState(ctx context.Context, id string, state pipeline.State, reason string, check func(*StateInfo) error) (Change, error) {
	changes, err := w.change(ctx, stateAction(state), func(s *session) ([]Change, error) {
		k := s.known[id]
		switch {
		case k == nil || !k.exists():
			return nil, fmt.Errorf("setting the state of subscription %q: %w", id, ErrNotFound)
		case k.config == nil:
			return nil, fmt.Errorf("setting the state of subscription %s: its stored form is refused (apply it again): %w", id, k.bad)
		}
		if configured := or(k.config.State, string(pipeline.StateActive)); severity(state) < severity(pipeline.State(configured)) {
			return nil, fmt.Errorf("setting the state of subscription %s: its configuration says %s (change its field state and apply)", id, configured)
		}
		if check != nil {
			var decided *StateInfo
			if k.state != nil && k.state.Revision == k.config.Revision {
				decided = new(StateInfo)
				*decided = *k.state
			}
			if err := check(decided); err != nil {
				return nil, fmt.Errorf("setting the state of subscription %s: %w", id, err)
			}
			k.state = decided
		}
		st := StateInfo{Revision: k.config.Revision, State: state, Reason: reason, Since: w.now()}
		if (k.state == nil || k.state.Revision != st.Revision) && string(state) == or(k.config.State, string(pipeline.StateActive)) {
			return []Change{{ID: id, Action: Unchanged, Revision: st.Revision}}, nil
		}
		if k.state != nil {
			st.Missed, st.Unknown = k.state.left(st.Revision, st.Since), k.state.Unknown
			if k.state.Revision == st.Revision && k.state.State == state && (k.state.Reason == pipeline.ReasonCatchUp) == (reason == pipeline.ReasonCatchUp) {
				return []Change{{ID: id, Action: Unchanged, Revision: st.Revision}}, nil
			}
		}
		if state == pipeline.StateDisabled {
			st.Routed = s.routed(ctx)
		}
		s.add(StateRecord(id, &st))
		return []Change{{ID: id, Action: Updated, Revision: st.Revision, Reason: reason}}, nil
	})
	if err != nil {
		return Change{}, err
	}
	return changes[0], nil
}

func (w *Writer) now() time.Time { return w.deps.Now().UTC().Truncate(time.Millisecond) }

// look reads all that is committed and shows it to see; nothing is written.
func (w *Writer) look(ctx context.Context, see func(*session) error) error {
	client, err := kgo.NewClient(w.deps.Client...)
	if err != nil {
		return fmt.Errorf("making the registry's Kafka client: %w", err)
	}
	defer client.Close()
	s := session{w: w, tail: tail{client: client, topic: w.cfg.Topic}}
	if err := s.read(ctx); err != nil {
		return err
	}
	return see(&s)
}

// List gives every subscription, by id.
func (w *Writer) List(ctx context.Context) ([]Item, error) {
	var items []Item
	err := w.look(ctx, func(s *session) error {
		items = make([]Item, 0, len(s.known))
		for _, id := range slices.Sorted(maps.Keys(s.known)) {
			if k := s.known[id]; k.exists() {
				items = append(items, k.item(id))
			}
		}
		return nil
	})
	return items, err
}

// Get gives one subscription; ErrNotFound where there is none.
func (w *Writer) Get(ctx context.Context, id string) (*Item, error) {
	items, err := w.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range items {
		if items[i].ID == id {
			return &items[i], nil
		}
	}
	return nil, fmt.Errorf("getting subscription %q: %w", id, ErrNotFound)
}

// change reads all that is committed, lets plan say what to write, and writes it
// in one transaction that fails if another writer has begun since.
func (w *Writer) change(ctx context.Context, action audit.Action, plan func(*session) ([]Change, error)) ([]Change, error) {
	opts := append(slices.Clone(w.deps.Client),
		kgo.TransactionalID(w.cfg.Topic+".writer"),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
	)
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("making the registry's Kafka client: %w", err)
	}
	defer client.Close()
	// From here on an earlier writer is fenced, and its open transaction ended.
	if _, _, err := client.ProducerID(ctx); err != nil {
		return nil, fmt.Errorf("becoming the writer of %s: %w", w.cfg.Topic, conflict(err))
	}
	s := session{w: w, tail: tail{client: client, topic: w.cfg.Topic}}
	if err := s.read(ctx); err != nil {
		return nil, err
	}
	changes, err := plan(&s)
	if err != nil {
		return nil, err
	}
	s.audit(action, changes)
	version, err := s.commit(ctx)
	if err != nil {
		return nil, fmt.Errorf("writing to %s: %w", w.cfg.Topic, conflict(err))
	}
	for i := range changes {
		changes[i].Version = version
	}
	return changes, nil
}

// stateAction is what putting a subscription into a state is called.
func stateAction(state pipeline.State) audit.Action {
	switch state {
	case pipeline.StatePaused:
		return audit.ActionPause
	case pipeline.StateDisabled:
		return audit.ActionDisable
	case pipeline.StateActive:
	}
	return audit.ActionResume
}

// conflict names the errors by which Kafka tells a fenced producer.
func conflict(err error) error {
	for _, fenced := range []error{kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidTxnState, kerr.InvalidProducerIDMapping} {
		if errors.Is(err, fenced) {
			return fmt.Errorf("%w: %w", ErrConflict, err)
		}
	}
	return err
}
