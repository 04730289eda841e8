package registry

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// SchemaVersion of the stored forms. It grows only when an older reader would
// get a record wrong; new fields alone do not change it.
const SchemaVersion = 1

// MaxRecordBytes is the longest stored record that is read.
const MaxRecordBytes = 256 << 10

// stateSuffix makes the key of a subscription's state of its id, which has no #.
const stateSuffix = "#state"

// healthSuffix makes the key of what the dispatcher has noted of its attempts.
// It is a key of its own, not a part of the state: the dispatcher, which has not
// read an operator's decision of a moment ago, must not write over it.
const healthSuffix = "#health"

// HealthInfo is the value under id#health.
type HealthInfo struct {
	V        int   `json:"v"`
	Revision int64 `json:"revision"` // of the configuration that it applies to
	// FailingSince is when the run of nothing but failures began.
	FailingSince time.Time      `json:"failing_since"`
	Unknown      jsontext.Value `json:",embed"`
}

// HealthRecord gives the record that says since when a subscription fails; a
// zero time: it does not. For the transactions of others.
func HealthRecord(id string, revision int64, failingSince time.Time) (key, value []byte) {
	key = []byte(id + healthSuffix)
	if failingSince.IsZero() {
		return key, nil
	}
	value, err := json.Marshal(&HealthInfo{V: SchemaVersion, Revision: revision, FailingSince: failingSince.UTC()}, json.Deterministic(true))
	if err != nil {
		panic("BUG: encoding the health of subscription " + id + ": " + err.Error())
	}
	return key, value
}

// stored is the value under a subscription's id.
type stored struct {
	V         int       `json:"v"`
	Revision  int64     `json:"revision"`
	UpdatedAt time.Time `json:"updated_at"`
	Document  `json:",embed"`
	// Unknown are the fields of a newer version, kept when the record is
	// written again.
	Unknown jsontext.Value `json:",embed"`
}

// StateInfo is the value under id#state: what hookline or an operator decided.
type StateInfo struct {
	V int `json:"v"`
	// Revision of the configuration that it applies to.
	Revision int64          `json:"revision"`
	State    pipeline.State `json:"state"`
	Reason   string         `json:"reason,omitempty"` // one word or a short sentence
	Since    time.Time      `json:"since"`
	// FailingSince is when the run of nothing but failures began; zero: none.
	FailingSince time.Time `json:"failing_since,omitzero"`
	// Missed are the times in which it was disabled, of which nothing was
	// delivered since; oldest first, at most MaxMissed.
	Missed []MissedSpan `json:"missed,omitempty"`
	// Routed is how far the router had come at the latest when it was disabled:
	// see MissedSpan.
	Routed  map[string][]int64 `json:"routed,omitempty"`
	Unknown jsontext.Value     `json:",embed"`
}

// MissedSpan is a time in which a subscription was disabled. Which events it
// missed is told by what was routed to it, not by these times alone.
type MissedSpan struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason,omitempty"`
	// Routed are offsets of the topics of events, by topic and partition, below
	// which everything had been routed when the time began: what was produced
	// before it, and not routed yet, was missed, too. -1, or none: not known, as
	// in records of older versions. It may be less than was routed.
	Routed map[string][]int64 `json:"routed,omitempty"`
}

// MaxMissed bounds StateInfo.Missed; beyond it the two oldest become one.
const MaxMissed = 20

// left gives the spans of a subscription that leaves the state st, the last that
// was decided, at now; revision is that of its configuration.
func (st *StateInfo) left(revision int64, now time.Time) []MissedSpan {
	if st == nil {
		return nil
	}
	if st.State != pipeline.StateDisabled || st.Revision != revision {
		return st.Missed
	}
	spans := append(slices.Clip(st.Missed), MissedSpan{From: st.Since, To: now, Reason: st.Reason, Routed: st.Routed})
	if len(spans) > MaxMissed {
		spans[1].From, spans[1].Routed = spans[0].From, spans[0].Routed
		spans = spans[1:]
	}
	return spans
}

// maxStateBytes bounds a state's record, well below what is read.
const maxStateBytes = MaxRecordBytes / 2

// StateRecord gives the record that puts a subscription into st.State; for the
// transactions of others. V is set here. Where offsets of very many partitions
// would make it too long, those of the oldest times are left out.
func StateRecord(id string, st *StateInfo) (key, value []byte) {
	out := *st
	out.V, out.Missed = SchemaVersion, slices.Clone(st.Missed)
	for i := 0; ; i++ {
		value, err := json.Marshal(&out, json.Deterministic(true))
		if err != nil {
			panic("BUG: encoding the state of subscription " + id + ": " + err.Error())
		}
		switch {
		case len(value) <= maxStateBytes || i > len(out.Missed):
			return []byte(id + stateSuffix), value
		case i == len(out.Missed):
			out.Routed = nil
		default:
			out.Missed[i].Routed = nil
		}
	}
}

// Record is one record of the topic, read and checked.
type Record struct {
	ID      string
	IsState bool
	Deleted bool // a tombstone
	// Sub is the configuration, its State as configured; nil for states.
	Sub *pipeline.Subscription
	// State is nil for configurations.
	State *StateInfo
	// IsHealth: a record under id#health; Health is nil for others.
	IsHealth bool
	Health   *HealthInfo
	// Held says why the subscription is paused whatever its configuration says:
	// a sealed secret does not open. nil: it is not.
	Held error

	stored *stored
}

// heldError says that a good record's secrets do not open here.
type heldError struct{ error }

func (e heldError) Unwrap() error { return e.error }

// subscriptionOf splits a key into the id, which may be none, and what the record
// is beside a configuration: stateSuffix, healthSuffix or nothing.
func subscriptionOf(key []byte) (id, kind string) {
	for _, kind := range [...]string{stateSuffix, healthSuffix} {
		if id, ok := strings.CutSuffix(string(key), kind); ok {
			return id, kind
		}
	}
	return string(key), ""
}

// ParseRecord reads and checks one record. With an error the Record still says
// which subscription it is about, where the key tells.
func ParseRecord(key, value []byte, pol *Policy) (Record, error) {
	var r Record
	var kind string
	r.ID, kind = subscriptionOf(key)
	r.IsState, r.IsHealth = kind == stateSuffix, kind == healthSuffix
	if !ValidID(r.ID) {
		return Record{}, fmt.Errorf("reading subscription: key %.140q is not an id", key)
	}
	var err error
	switch {
	case value == nil:
		r.Deleted = true
	case len(value) > MaxRecordBytes:
		err = fmt.Errorf("%d bytes are over the limit of %d", len(value), MaxRecordBytes)
	case r.IsState:
		err = r.readState(value)
	case r.IsHealth:
		err = r.readHealth(value)
	default:
		err = r.readConfig(value, pol)
	}
	if err != nil {
		return r, fmt.Errorf("reading subscription %s: %w", key, oneLineError(err))
	}
	return r, nil
}

// oneLineError keeps a joined error on one line.
func oneLineError(err error) error {
	if s := err.Error(); strings.Contains(s, "\n") && !errors.Is(err, errVersion) {
		return errors.New(strings.ReplaceAll(s, "\n", "; "))
	}
	return err
}

func (r *Record) readHealth(value []byte) error {
	var h HealthInfo
	if err := decode(value, &h); err != nil {
		return err
	}
	if h.V != SchemaVersion {
		return versionError(h.V)
	}
	r.Health = &h
	return nil
}

func (r *Record) readState(value []byte) error {
	var st StateInfo
	if err := decode(value, &st); err != nil {
		return err
	}
	switch {
	case st.V != SchemaVersion:
		return versionError(st.V)
	case st.State != pipeline.StateActive && st.State != pipeline.StatePaused && st.State != pipeline.StateDisabled:
		return fmt.Errorf("state %.60q is not known", st.State)
	}
	r.State = &st
	return nil
}

func (r *Record) readConfig(value []byte, pol *Policy) error {
	var s stored
	if err := decode(value, &s); err != nil {
		return err
	}
	switch {
	case s.V != SchemaVersion:
		return versionError(s.V)
	case s.ID != r.ID:
		return fmt.Errorf("its key says %s, its id %.140q", r.ID, s.ID)
	case s.Revision < 1:
		return fmt.Errorf("revision %d is not positive", s.Revision)
	}
	s.ID = r.ID // which is kept anyway
	r.stored = &s
	if errs := s.Check(pol); len(errs) > 0 {
		return join(errs)
	}
	r.Sub = s.Subscription(s.Revision, pol)
	if !pol.opens() {
		return nil
	}
	if err := s.openAll(pol.Keys); err != nil {
		// Paused, not disabled: its deliveries wait until the key is there.
		r.Held = heldError{fmt.Errorf("reading subscription %s: paused: %w", r.ID, err)}
		if severity(r.Sub.State) < severity(pipeline.StatePaused) {
			r.Sub.State, r.Sub.StateReason = pipeline.StatePaused, "secret: "+err.Error()
		}
	}
	return nil
}

// errVersion marks a record that only another version of hookline understands.
var errVersion = errors.New("written by another version of hookline")

func versionError(v int) error {
	return fmt.Errorf("schema version %d is not %d: %w", v, SchemaVersion, errVersion)
}

// decode is strict about everything but unknown fields. Its errors name the
// field, never its value.
func decode(value []byte, into any) error {
	err := json.Unmarshal(value, into)
	if err == nil {
		return nil
	}
	var semantic *json.SemanticError
	if errors.As(err, &semantic) {
		return fmt.Errorf("wrong type at %s", semantic.JSONPointer)
	}
	var syntax *jsontext.SyntacticError
	if errors.As(err, &syntax) {
		return fmt.Errorf("not JSON at byte %d", syntax.ByteOffset)
	}
	return errors.New("not a subscription's JSON")
}

// encode gives the stored form of d; unknown are the fields to keep.
func encode(d *Document, revision int64, now time.Time, unknown jsontext.Value) []byte {
	s := stored{V: SchemaVersion, Revision: revision, UpdatedAt: now.UTC().Truncate(time.Millisecond), Document: *d, Unknown: unknown}
	value, err := json.Marshal(&s, json.Deterministic(true), secret.StoredForm())
	if err != nil {
		panic("BUG: encoding subscription " + d.ID + ": " + err.Error())
	}
	return value
}

// sameDocument tells whether two documents say the same.
func sameDocument(a, b *Document) bool {
	x, errX := json.Marshal(a, json.Deterministic(true), secret.StoredForm())
	y, errY := json.Marshal(b, json.Deterministic(true), secret.StoredForm())
	return errX == nil && errY == nil && bytes.Equal(x, y)
}
