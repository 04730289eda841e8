package replay

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Selection says what to deliver again. At least one of Subscription, Event and
// Delivery is given.
type Selection struct {
	Subscription string `json:"subscription,omitempty"`
	Event        string `json:"event,omitempty"`    // an event id; needs the archive
	Delivery     string `json:"delivery,omitempty"` // a delivery id; needs the archive
	// Since and Until bound the time at which events were produced or, with
	// Failed, at which deliveries were last tried; Until itself is left out. Zero:
	// no bound.
	Since time.Time `json:"since,omitzero"`
	Until time.Time `json:"until,omitzero"`
	// Failed: only deliveries whose last attempt, which ended them, was no success;
	// needs the archive.
	Failed bool `json:"failed,omitzero"`
	// Missed: only what the subscription missed while it was disabled: events that
	// were never routed to it, and deliveries that ended untried.
	Missed bool `json:"missed,omitzero"`
	// CatchUp: in lanes of their own, before live deliveries. Missed only.
	CatchUp bool `json:"catch_up,omitzero"`
	// Words, where not empty, stands for Since and Until when an unfinished replay
	// of the same selection is looked for: "1h" is another time every time.
	Words string `json:"words,omitempty"`
}

// Check tells what is wrong with a selection; nil: nothing.
func (s *Selection) Check() error {
	switch {
	case s.Subscription == "" && s.Event == "" && s.Delivery == "":
		return errors.New("selecting what to replay: nothing is selected (name a subscription, an event or a delivery)")
	case s.Subscription != "" && !kafkax.ValidSubscription(s.Subscription):
		return fmt.Errorf("selecting what to replay: %.140q is not a subscription's id", s.Subscription)
	case s.Event != "" && s.Delivery != "":
		return errors.New("selecting what to replay: an event or a delivery, not both")
	case (s.Failed || s.Missed) && (s.Subscription == "" || s.Event != "" || s.Delivery != ""):
		return errors.New("selecting what to replay: what failed or was missed is a subscription's: name it alone")
	case s.Failed && s.Missed:
		return errors.New("selecting what to replay: what failed or what was missed, not both")
	case s.CatchUp && !s.Missed:
		return errors.New("selecting what to replay: a catch-up is of what was missed")
	case s.Subscription != "" && s.Event == "" && s.Delivery == "" && !s.Missed && s.Since.IsZero():
		return errors.New("selecting what to replay: since when? (give a start, or ask for what was missed)")
	case !s.Until.IsZero() && !s.Since.Before(s.Until):
		return errors.New("selecting what to replay: the time ends before it begins")
	}
	return nil
}

// needsArchive tells whether only the archive knows the positions.
func (s *Selection) needsArchive() bool { return s.Event != "" || s.Delivery != "" || s.Failed }

// fingerprint tells selections apart.
func (s *Selection) fingerprint() string {
	c := *s
	if c.Words != "" {
		c.Since, c.Until = time.Time{}, time.Time{}
	}
	b, err := json.Marshal(&c, json.Deterministic(true))
	if err != nil {
		panic("BUG: encoding a selection: " + err.Error())
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:12])
}

// contains tells whether t is within the selection's time.
func (s *Selection) contains(t time.Time) bool {
	return !t.Before(s.Since) && (s.Until.IsZero() || t.Before(s.Until))
}

// newID makes a replay's id, which the header X-Hookline-Replay carries.
func (s *Selection) newID(random string) string {
	if s.CatchUp {
		return pipeline.CatchUpReplay(random)
	}
	return "r_" + random
}
