// Package command is the form of the records in the topic control: operators'
// commands to whichever process owns a subscription's lanes, and the answers to
// questions. It does no I/O.
//
// A command that changes something is answered by an entry in the topic audit,
// in the transaction that makes the change; a question is answered by a Status
// in control itself.
package command

import (
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Version of the JSON in the topic. It grows only when a reader would get a
// command wrong; new fields alone do not change it.
const Version = 1

const (
	// MaxAge of a command when its turn comes; an older one is answered as
	// expired. Whoever gave it has long given up waiting, and would be surprised.
	MaxAge = time.Minute
	// MaxAhead is how far the clock of whoever gave a command may be ahead.
	MaxAhead = time.Minute
	// MaxBytes is the longest record that is read.
	MaxBytes = 256 << 10
	// MaxPayload of a test, in bytes.
	MaxPayload = 64 << 10
)

// Kind says what a record of control is: a closed enum. Readers answer kinds
// that they do not know as refused.
type Kind string

// The kinds.
const (
	KindSkip    Kind = "skip"    // end the first delivery of waiting lanes
	KindRetry   Kind = "retry"   // try the first delivery of waiting lanes at once
	KindTest    Kind = "test"    // make one request that is no delivery
	KindInspect Kind = "inspect" // tell what waits: answered by a status
	KindStatus  Kind = "status"  // the answer
)

// Command is one record of control.
type Command struct {
	V    int    `json:"v"`
	Kind Kind   `json:"kind"`
	ID   string `json:"id"` // unique; that of its answer, too
	// Time when it was given, by the clock of whoever gave it.
	Time         time.Time `json:"time"`
	Actor        string    `json:"actor"`
	Subscription string    `json:"subscription"`
	// Entity, where not empty: only the lane of this entity.
	Entity string `json:"entity,omitempty"`
	// Delivery, where not empty: only the lane whose first delivery has this id.
	Delivery string `json:"delivery,omitempty"`
	// RegistryVersion must have been read before the command is carried out, so
	// that what its giver changed just now is in force.
	RegistryVersion int64 `json:"registry_version"`
	// EventType and Payload of a test; empty: a sample of hookline's.
	EventType string `json:"event_type,omitempty"`
	Payload   []byte `json:"payload,omitempty"`
	// Status of KindStatus.
	Status *Status `json:"status,omitempty"`

	Unknown jsontext.Value `json:",embed"`
}

// Status is what the owner of a subscription's lanes knows of them.
type Status struct {
	Node            string `json:"node"`
	RegistryVersion int64  `json:"registry_version"` // that it has read
	Known           bool   `json:"known"`            // the subscription exists
	// State in force there, with what the task itself decided.
	State  pipeline.State `json:"state,omitempty"`
	Reason string         `json:"reason,omitempty"`
	// Local is why hookline itself could not make the last try, as a secret that is
	// missing: it spent no attempt, and what waits is tried again. Empty: it could.
	Local string `json:"local_error,omitempty"`
	// Partition of the task, and the next offset of deliveries that it reads.
	Partition int32 `json:"partition"`
	Read      int64 `json:"read"`

	Lanes    int `json:"lanes"`     // with anything in them
	Waiting  int `json:"waiting"`   // of them, behind a failed or slow delivery, or held
	Blocked  int `json:"blocked"`   // of them, waiting for an operator
	CatchUp  int `json:"catch_up"`  // lanes of a catch-up
	InFlight int `json:"in_flight"` // requests under way
	// CatchUpDeliveries are those of Queued, Parked and Heads that are in lanes of a
	// catch-up.
	CatchUpDeliveries int `json:"catch_up_deliveries,omitzero"`
	Queued            int `json:"queued"` // deliveries in memory
	Parked            int `json:"parked"` // deliveries in parked
	Heads             int `json:"heads"`  // deliveries that wait for a retry

	// Stuck are lanes whose first delivery has been tried and has not succeeded,
	// oldest first, at most MaxStuck.
	Stuck []Stuck `json:"stuck,omitempty"`
}

// MaxStuck bounds Status.Stuck.
const MaxStuck = 20

// Stuck is a lane whose first delivery has failed.
type Stuck struct {
	Entity   string    `json:"entity,omitempty"`   // of ordering: entity
	Delivery string    `json:"delivery,omitempty"` // its id; empty: not known
	Attempts int       `json:"attempts"`           // made in this round
	Round    int       `json:"round,omitzero"`
	Blocked  bool      `json:"blocked,omitzero"`
	Behind   int       `json:"behind"`                   // deliveries behind it
	NextAt   time.Time `json:"next_attempt_at,omitzero"` // zero: when there is room, or not known
}

// Encode gives c as it stands in the topic.
func Encode(c *Command) ([]byte, error) {
	out := *c
	out.V = Version
	if err := out.check(); err != nil {
		return nil, fmt.Errorf("encoding command: %w", err)
	}
	b, err := json.Marshal(&out, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("encoding command: %w", err)
	}
	return b, nil
}

// Parse reads a record of control as foreign input. A record of another version,
// or of an unknown kind, is no error as long as it tells whom to answer and
// about what: see Supported.
func Parse(b []byte) (*Command, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("parsing command: %d bytes are over the limit of %d", len(b), MaxBytes)
	}
	c := new(Command)
	if err := json.Unmarshal(b, c); err != nil {
		return nil, fmt.Errorf("parsing command: %w", err)
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("parsing command: %w", err)
	}
	return c, nil
}

func (c *Command) check() error {
	switch {
	case c.ID == "" || len(c.ID) > 128:
		return errors.New("its id is missing or too long")
	case !kafkax.ValidSubscription(c.Subscription):
		return errors.New("its subscription is not an id")
	case len(c.Actor) > audit.MaxActor:
		return fmt.Errorf("its actor has more than %d bytes", audit.MaxActor)
	case len(c.Payload) > MaxPayload:
		return fmt.Errorf("its payload has more than %d bytes", MaxPayload)
	case (c.Kind == KindStatus) != (c.Status != nil):
		return errors.New("a status is what a record of kind status has, and no other")
	}
	return nil
}

// Supported tells whether this hookline can carry the command out; why not.
func (c *Command) Supported() (why string, ok bool) {
	if c.V != Version {
		return fmt.Sprintf("the command is of version %d: this process knows %d", c.V, Version), false
	}
	switch c.Kind {
	case KindSkip, KindRetry, KindTest, KindInspect, KindStatus:
		return "", true
	}
	return fmt.Sprintf("the command is of a kind that this process does not know: %.40q", string(c.Kind)), false
}

// Expired tells whether the command is too old, or from too far ahead.
func (c *Command) Expired(now time.Time) bool {
	age := now.Sub(c.Time)
	return age > MaxAge || age < -MaxAhead
}

// Entry begins the audit entry that answers c.
func (c *Command) Entry(now time.Time) *audit.Entry {
	return &audit.Entry{
		ID: c.ID, Time: now.UTC().Truncate(time.Millisecond), Actor: c.Actor, Action: audit.Action(c.Kind),
		Subscription: c.Subscription, Entity: c.Entity, Delivery: c.Delivery,
	}
}
