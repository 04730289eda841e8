// Package audit is the form of the records in the topic audit: who did what,
// when, and what came of it. It does no I/O.
package audit

import (
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
)

// Version of the JSON in the topic. It grows only when a reader would get an
// entry wrong; new fields alone do not change it.
const Version = 1

// MaxBytes is the longest entry that is read.
const MaxBytes = 64 << 10

// Action is what was done: a closed enum.
type Action string

// The actions.
const (
	ActionApply        Action = "apply"
	ActionDelete       Action = "delete"
	ActionRotateSecret Action = "rotate_secret"
	ActionRotateKeys   Action = "rotate_keys"
	ActionPause        Action = "pause"
	ActionResume       Action = "resume"
	ActionDisable      Action = "disable"
	ActionSkip         Action = "skip"
	ActionRetry        Action = "retry"
	ActionTest         Action = "test"
	ActionReplay       Action = "replay"
)

// Result is what came of an action: a closed enum.
type Result string

// The results.
const (
	// ResultDone: it has been done, durably.
	ResultDone Result = "done"
	// ResultNothing: there was nothing that it applied to.
	ResultNothing Result = "nothing"
	// ResultRefused: it is not possible; Detail says why.
	ResultRefused Result = "refused"
	// ResultExpired: it was too old when its turn came, and was not done.
	ResultExpired Result = "expired"
	// ResultFailed: it was tried and failed; Detail says why.
	ResultFailed Result = "failed"
)

// Entry is one record of the topic audit, JSON; its key is the subscription's id.
type Entry struct {
	V    int       `json:"v"`
	ID   string    `json:"id"` // of the command, or of the change; unique
	Time time.Time `json:"time"`
	// Actor is who asked for it, as far as that could be told; at most MaxActor
	// bytes.
	Actor        string `json:"actor"`
	Action       Action `json:"action"`
	Subscription string `json:"subscription,omitempty"`
	Entity       string `json:"entity,omitempty"`   // only the lane of this entity
	Delivery     string `json:"delivery,omitempty"` // only the lane whose first delivery this is
	Revision     int64  `json:"revision,omitzero"`  // of the configuration that it made
	Result       Result `json:"result"`
	Detail       string `json:"detail,omitempty"` // a short sentence
	Lanes        int    `json:"lanes,omitzero"`   // that it applied to
	Node         string `json:"node,omitempty"`   // the process that did it
	Test         *Test  `json:"test,omitempty"`   // of ActionTest
}

// Test is what came of the request that a test made.
type Test struct {
	DeliveryID string `json:"delivery_id"` // in the log of attempts
	Outcome    string `json:"outcome"`     // see pipeline.Outcome
	StatusCode int    `json:"status_code,omitzero"`
	Error      string `json:"error,omitempty"`
	ElapsedUS  int64  `json:"elapsed_us"`
	URL        string `json:"url"` // redacted
}

// MaxActor bounds an actor's name, in bytes.
const MaxActor = 256

// maxText bounds free text that may come from outside, in bytes.
const maxText = 2048

// Encode gives e as it stands in the topic. Text that is not UTF-8 is mended,
// overlong text is cut.
func Encode(e *Entry) []byte {
	out := *e
	out.V = Version
	out.Actor, out.Detail = clean(e.Actor, MaxActor), clean(e.Detail, maxText)
	out.Entity, out.Delivery = clean(e.Entity, maxText), clean(e.Delivery, maxText)
	if e.Test != nil {
		test := *e.Test
		test.Error, test.URL = clean(test.Error, maxText), clean(test.URL, maxText)
		out.Test = &test
	}
	b, err := json.Marshal(&out, json.Deterministic(true))
	if err != nil {
		panic("BUG: encoding an audit entry: " + err.Error())
	}
	return b
}

func clean(s string, limit int) string {
	return string([]rune(s[:min(len(s), limit)]))
}

// Parse reads an entry. Unknown fields are passed over; another version is an
// error.
func Parse(b []byte) (*Entry, error) {
	if len(b) > MaxBytes {
		return nil, fmt.Errorf("parsing audit entry: %d bytes are over the limit of %d", len(b), MaxBytes)
	}
	e := new(Entry)
	if err := json.Unmarshal(b, e); err != nil {
		return nil, fmt.Errorf("parsing audit entry: %w", err)
	}
	switch {
	case e.V != Version:
		return nil, fmt.Errorf("parsing audit entry: version %d: this hookline reads %d", e.V, Version)
	case e.ID == "":
		return nil, errors.New("parsing audit entry: it has no id")
	}
	return e, nil
}

// NewID makes the id of a command or a change: 26 characters, unguessable.
func NewID() string { return rand.Text() }
