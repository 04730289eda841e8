package lane

import (
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline"
)

const (
	// FailingFailures in a row, the last at least FailingAfter after the first,
	// make a subscription failing. One failure among many successes does not, and
	// neither does a burst of them that is over at once.
	FailingFailures = 2
	// FailingAfter is less than the shortest usual delay before a first retry, so
	// that a lane alone is failing with its second failure.
	FailingAfter = 10 * time.Second
	// ExhaustedEvery is the least time between two notices of exhausted
	// deliveries of one subscription; each has their number.
	ExhaustedEvery = time.Minute
)

// ReasonFailing disables a subscription that has failed for its disable_after.
const ReasonFailing = "failing"

// NoticeType says what has happened to a subscription: a closed enum.
type NoticeType string

// The types.
const (
	NoticeFailing   NoticeType = "failing"   // nothing but failures for a while; once for each such run
	NoticeRecovered NoticeType = "recovered" // a success after failing
	NoticeExhausted NoticeType = "exhausted" // deliveries have spent every attempt
	NoticeDisabled  NoticeType = "disabled"  // by hookline; the reason says why
	NoticeBacklog   NoticeType = "backlog"   // half of MaxParked is parked; beyond all of it comes disabled
)

// Notice is one change that somebody may want to hear of.
type Notice struct {
	Type   NoticeType
	Reason string
	Since  time.Time // failing, recovered, disabled: since when it had failed; zero: it had not
	Count  int       // failures in a row; exhausted deliveries since the last notice; parked deliveries
	// Envelope and Attempts are of the delivery that brought it about; nil: none.
	Envelope *pipeline.Envelope
	Attempts int
}

// health is what a task knows of how a subscription's attempts end.
type health struct {
	failures int       // in a row
	since    time.Time // the first of them; wall clock, in ms, since it may outlive this process
	noted    bool      // the run has been noted, in the registry and by a notice

	backlog bool
	// exhausted deliveries; nil: none so far.
	exhausted *exhausted
}

// exhausted is what is known of a subscription's exhausted deliveries.
type exhausted struct {
	count    int       // since the last notice
	at       time.Time // of the last notice; zero: none
	last     *pipeline.Envelope
	attempts int // of last
}

// lately tells that a notice was given so short a time ago that none may be now.
func (e *exhausted) lately(now time.Time) bool {
	return !e.at.IsZero() && now.Sub(e.at) < ExhaustedEvery
}

// restore takes over what the registry says of a run of failures.
func (h *health) restore(conf *pipeline.Subscription, now time.Time) {
	if conf == nil || conf.FailingSince.IsZero() {
		return
	}
	h.failures, h.since, h.noted = 1, conf.FailingSince, true
	if h.since.After(now) { // another machine's clock
		h.since = wallMS(now)
	}
}

// renew begins anew after a change of the configuration, or a resumption.
func (h *health) renew(was, is *pipeline.Subscription) {
	if is == nil {
		return
	}
	if was == nil || was.Revision != is.Revision || (was.State != pipeline.StateActive && is.State == pipeline.StateActive) {
		h.failures, h.noted = 0, false
	}
}

// settled tells that nothing would be lost by forgetting h: the registry says
// the same, or there is nothing to say.
func (h *health) settled(conf *pipeline.Subscription, now time.Time) bool {
	if e := h.exhausted; e != nil && (e.count > 0 || e.lately(now)) {
		return false
	}
	if conf == nil {
		return true
	}
	if h.noted {
		return h.since.Equal(conf.FailingSince)
	}
	return h.failures == 0 && conf.FailingSince.IsZero()
}

// runSince is since when there was nothing but failures; zero: that is not so.
func (h *health) runSince() time.Time {
	if h.failures == 0 {
		return time.Time{}
	}
	return h.since
}

func wallMS(t time.Time) time.Time { return t.Round(0).UTC().Truncate(time.Millisecond) }

// succeeded notes a success.
func (t *Task) succeeded(s *sub, w *Work) {
	h := &s.health
	if h.noted && s.conf != nil {
		t.emitHealth(s, time.Time{})
		t.notice(s, &Notice{Type: NoticeRecovered, Since: h.since, Count: h.failures, Envelope: w.Envelope, Attempts: w.Attempt})
	}
	h.failures, h.noted = 0, false
}

// failedOnce notes a failed attempt; w has its payload.
func (t *Task) failedOnce(s *sub, w *Work, ended time.Time, why string) {
	if s.conf == nil || s.disabled != "" {
		return
	}
	h := &s.health
	at := wallMS(ended)
	if h.failures++; h.failures == 1 {
		h.since = at
	}
	lasted := at.Sub(h.since)
	if !h.noted && h.failures >= FailingFailures && lasted >= FailingAfter {
		h.noted = true
		t.emitHealth(s, h.since)
		t.notice(s, &Notice{Type: NoticeFailing, Reason: why, Since: h.since, Count: h.failures, Envelope: w.Envelope, Attempts: w.Attempt})
	}
	if after := s.conf.DisableAfter; after > 0 && h.failures >= FailingFailures && lasted >= after {
		t.disable(s, ReasonFailing)
	}
}

// exhaust counts a delivery that has spent every attempt.
func (t *Task) exhaust(s *sub, env *pipeline.Envelope, attempts int) {
	e := s.health.exhausted
	if e == nil {
		e = &exhausted{}
		s.health.exhausted = e
	}
	e.last, e.attempts = env, attempts
	if e.count++; e.count == 1 {
		t.exhausted = append(t.exhausted, s)
	}
	t.tellExhausted(false)
}

// tellExhausted gives the notices of exhausted deliveries whose time has come,
// or all.
func (t *Task) tellExhausted(all bool) {
	if len(t.exhausted) == 0 {
		return
	}
	t.exhausted = slices.DeleteFunc(t.exhausted, func(s *sub) bool {
		e := s.health.exhausted
		if !all && e.lately(t.now) {
			return false
		}
		t.notice(s, &Notice{Type: NoticeExhausted, Count: e.count, Envelope: e.last, Attempts: e.attempts})
		e.count, e.at, e.last = 0, t.now, nil
		return true
	})
}

// watchBacklog gives notice of a backlog before it disables the subscription:
// once, until most of it is gone.
func (t *Task) watchBacklog(s *sub) {
	switch half := max(1, t.cfg.MaxParked/2); {
	case !s.health.backlog && s.parked >= half:
		s.health.backlog = true
		t.notice(s, &Notice{Type: NoticeBacklog, Count: s.parked})
	case s.health.backlog && s.parked < max(1, half/2):
		s.health.backlog = false
	}
}

// notice puts n into the next transaction.
func (t *Task) notice(s *sub, n *Notice) {
	t.out = append(t.out, &Out{Kind: OutNotice, Subscription: s.id, Notice: n, At: t.now, Revision: s.revision()})
	t.touched = true
}

// emitHealth has the registry say since when the subscription fails; zero: it
// does not.
func (t *Task) emitHealth(s *sub, since time.Time) {
	t.out = append(t.out, &Out{Kind: OutHealth, Subscription: s.id, FailingSince: since, Revision: s.revision(), At: t.now})
	t.touched = true
}

func (s *sub) revision() int64 {
	if s.conf == nil {
		return 0
	}
	return s.conf.Revision
}
