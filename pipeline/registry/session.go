package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// session is one change in the making: what is stored, and what to write.
type session struct {
	w       *Writer
	tail    tail
	known   map[string]*known
	end     int64 // behind the last record that was there
	records []*kgo.Record
}

// known is what is stored under one id.
type known struct {
	config  *stored // nil: none, or not readable
	bad     error
	held    error // paused: a sealed secret does not open
	state   *StateInfo
	health  bool // there is a record of it
	failing *HealthInfo
}

func (k *known) exists() bool { return k.config != nil || k.bad != nil }

// read reads all that was committed before it was called. Open transactions of
// others hold it up until they end.
func (s *session) read(ctx context.Context) error {
	s.known = map[string]*known{}
	retry := retrier{log: slog.New(slog.DiscardHandler)}
	if err := retry.do(ctx, func() (err error) {
		if s.end, err = s.tail.end(ctx); err == nil {
			err = s.tail.begin(ctx)
		}
		return err
	}); err != nil {
		return err
	}
	for s.tail.next < s.end {
		var records []*kgo.Record
		if err := retry.do(ctx, func() (err error) {
			records, err = s.tail.fetch(ctx, fetchWait)
			return err
		}); err != nil {
			return err
		}
		for _, rec := range records {
			s.take(rec)
		}
	}
	return nil
}

func (s *session) take(rec *kgo.Record) {
	r, err := ParseRecord(rec.Key, rec.Value, &s.w.deps.Policy)
	if r.ID == "" {
		return
	}
	k := s.known[r.ID]
	if k == nil {
		k = &known{}
		s.known[r.ID] = k
	}
	switch {
	case r.IsState:
		k.state = r.State
	case r.IsHealth:
		k.health, k.failing = !r.Deleted, r.Health
	default:
		k.config, k.bad, k.held = r.stored, err, r.Held
	}
}

// routedPatience bounds the question how far the router has come.
const routedPatience = 5 * time.Second

// routed is how far the router has come; nil: not known. A subscription can be
// disabled all the same.
func (s *session) routed(ctx context.Context) map[string][]int64 {
	if s.w.cfg.RouterGroup == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, routedPatience)
	defer cancel()
	at, err := kafkax.UpTo(ctx, s.tail.client, s.w.cfg.RouterGroup)
	if err != nil {
		s.w.deps.Log.Warn("how far the router has come is not known: what a subscription misses begins at the time it is disabled", "err", err)
	}
	return at
}

func (s *session) add(key, value []byte) {
	s.records = append(s.records, &kgo.Record{Topic: s.w.cfg.Topic, Key: key, Value: value})
}

// apply puts docs, whose ids these are, in place; with prune all others go.
func (s *session) apply(docs []Document, ids map[string]bool, prune bool) ([]Change, error) {
	changes := make([]Change, 0, len(docs))
	for i := range docs {
		c, err := s.put(&docs[i])
		if err != nil {
			return nil, err
		}
		changes = append(changes, c)
	}
	if prune {
		for _, id := range slices.Sorted(maps.Keys(s.known)) {
			if !ids[id] && s.known[id].exists() {
				changes = append(changes, s.remove(id))
			}
		}
	}
	return changes, nil
}

// put stores d, its secrets sealed, under its id where it differs from what is
// there.
func (s *session) put(d *Document) (Change, error) {
	var old *Document
	if k := s.known[d.ID]; k != nil && k.config != nil {
		old = &k.config.Document
	}
	sealed, err := d.seal(old, s.w.deps.Policy.Keys)
	if err != nil {
		return Change{}, err
	}
	return s.store(sealed, func(st *StateInfo) bool { return st.State == pipeline.StatePaused })
}

// store is put for a document without secrets in clear; keep tells whether the
// state that is decided goes on under the new revision.
func (s *session) store(d *Document, keep func(*StateInfo) bool) (Change, error) {
	k := s.known[d.ID]
	if k == nil {
		k = &known{}
	}
	if errors.Is(k.bad, errVersion) {
		return Change{}, fmt.Errorf("storing subscription %s: what is stored is newer than this program: %w (use that version, or delete the subscription first)", d.ID, k.bad)
	}
	c := Change{ID: d.ID, Action: Created}
	// The end of the topic grows with every write: so do revisions, over
	// deletions too, and a state can never apply to a later namesake.
	c.Revision = s.end + 1
	if k.config == nil {
		if k.bad != nil {
			c.Action = Updated
		}
		s.add([]byte(d.ID), encode(d, c.Revision, s.w.now(), nil))
		return c, nil
	}
	if k.bad == nil && sameDocument(d, &k.config.Document) {
		return Change{ID: d.ID, Action: Unchanged, Revision: k.config.Revision}, nil
	}
	c.Action = Updated
	s.add([]byte(d.ID), encode(d, c.Revision, s.w.now(), k.config.Unknown))
	st := k.state
	if st != nil && st.Revision == k.config.Revision && keep(st) {
		carried := *st
		carried.Revision = c.Revision
		s.add(StateRecord(d.ID, &carried))
		return c, nil
	}
	if st != nil && st.Revision == k.config.Revision && st.State == pipeline.StateDisabled && or(d.State, string(pipeline.StateActive)) == string(pipeline.StateActive) {
		c.Reactivated = or(st.Reason, string(st.State))
	}
	if missed := st.left(k.config.Revision, s.w.now()); len(missed) > 0 {
		s.add(StateRecord(d.ID, &StateInfo{Revision: c.Revision, State: pipeline.StateActive, Since: s.w.now(), Missed: missed, Unknown: st.Unknown}))
	}
	return c, nil
}

func (s *session) remove(id string) Change {
	s.add([]byte(id), nil)
	if s.known[id].state != nil {
		s.add([]byte(id+stateSuffix), nil)
	}
	if s.known[id].health {
		s.add([]byte(id+healthSuffix), nil)
	}
	return Change{ID: id, Action: Deleted}
}

// audit adds an entry for each change, to be written in the same transaction.
func (s *session) audit(action audit.Action, changes []Change) {
	if s.w.cfg.AuditTopic == "" || len(s.records) == 0 {
		return
	}
	for i := range changes {
		c := &changes[i]
		e := audit.Entry{
			ID: audit.NewID(), Time: s.w.now(), Actor: s.w.actor, Action: action, Subscription: c.ID, Revision: c.Revision,
			Result: audit.ResultDone, Detail: string(c.Action),
		}
		switch {
		case c.Action == Unchanged:
			continue
		case c.Action == Deleted:
			e.Action = audit.ActionDelete // by apply --prune, too
		case c.Reason != "":
			e.Detail = c.Reason
		}
		s.records = append(s.records, &kgo.Record{Topic: s.w.cfg.AuditTopic, Key: []byte(c.ID), Value: audit.Encode(&e)})
	}
}

// commit writes the records in one transaction. It returns the offset of the
// last one of the registry's topic.
func (s *session) commit(ctx context.Context) (version int64, err error) {
	version = s.tail.next - 1
	if len(s.records) == 0 {
		return version, nil
	}
	client := s.tail.client
	if err := client.BeginTransaction(); err != nil {
		return 0, fmt.Errorf("beginning the transaction: %w", err)
	}
	if err := client.ProduceSync(ctx, s.records...).FirstErr(); err != nil {
		// An abort that fails leaves the transaction to its timeout.
		if abortErr := client.EndTransaction(ctx, kgo.TryAbort); abortErr != nil {
			return 0, fmt.Errorf("producing: %w (aborting: %w)", err, abortErr)
		}
		return 0, fmt.Errorf("producing: %w", err)
	}
	if err := client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return 0, fmt.Errorf("committing: %w", err)
	}
	for _, rec := range s.records {
		if rec.Topic == s.w.cfg.Topic {
			version = max(version, rec.Offset)
		}
	}
	return version, nil
}

func (k *known) item(id string) Item {
	it := Item{Effective: pipeline.StateDisabled}
	if k.config != nil {
		it.Document, it.Revision, it.UpdatedAt = k.config.Document, k.config.Revision, k.config.UpdatedAt
	}
	it.ID = id
	if k.bad != nil {
		it.Bad = k.bad.Error()
		return it
	}
	it.Effective = pipeline.State(or(k.config.State, string(pipeline.StateActive)))
	if k.held != nil {
		it.Bad = k.held.Error()
		if severity(it.Effective) < severity(pipeline.StatePaused) {
			it.Effective = pipeline.StatePaused
		}
	}
	if st := k.state; st != nil && st.Revision == it.Revision {
		it.Decided = st
		if severity(st.State) > severity(it.Effective) {
			it.Effective = st.State
		}
	}
	if k.config != nil && k.failing != nil && k.failing.Revision == it.Revision {
		it.FailingSince = k.failing.FailingSince
	}
	return it
}
