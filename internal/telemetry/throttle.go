package telemetry

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"
)

// throttleWindow: a warning or error with the same message is logged once in
// this time; the next line that passes tells how many were left out, and a timer
// does for those that none came after.
const throttleWindow = time.Second

// maxThrottled bounds the messages remembered; messages are constant strings in
// the source, so it is reached only by a mistake.
const maxThrottled = 1024

// maxSubscriptions of one message are told of in a window, each with a line of its
// own: which ones fail is what the log is read for. Beyond that it is many, and
// their number says enough.
const maxSubscriptions = 20

// subscriptionKey is the attribute of a record that tells which subscription a
// line is about.
const subscriptionKey = "subscription"

// throttle is a slog.Handler that lets one line in each window through for each
// level and message, and one for each of a few subscriptions that the lines are
// about. A broker that is away must not flood the log.
type throttle struct {
	next   slog.Handler
	window time.Duration
	seen   *throttleState // shared by all handlers derived from one
}

type throttleState struct {
	mu   sync.Mutex
	last map[throttleKey]*throttleEntry // guarded by mu
	// waiting is how many of them have lines that were left out; guarded by mu.
	waiting int
	timer   *time.Timer // flushes once they waited long enough; guarded by mu
	closed  bool        // no more timers; guarded by mu
}

type throttleKey struct {
	level   slog.Level
	message string
}

type throttleEntry struct {
	since time.Time // the window's begin
	said  []string  // the subscriptions of its lines, of which one may be ""
	left  int
	last  slog.Record  // of those left out
	next  slog.Handler // where it would have gone
}

func newThrottle(next slog.Handler, window time.Duration) *throttle {
	return &throttle{next: next, window: window, seen: &throttleState{last: make(map[throttleKey]*throttleEntry)}}
}

// Enabled asks the handler behind.
func (t *throttle) Enabled(ctx context.Context, l slog.Level) bool { return t.next.Enabled(ctx, l) }

// WithAttrs keeps the shared memory: attributes do not make another line of it.
func (t *throttle) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &throttle{next: t.next.WithAttrs(attrs), window: t.window, seen: t.seen}
}

// WithGroup keeps the shared memory.
func (t *throttle) WithGroup(name string) slog.Handler {
	return &throttle{next: t.next.WithGroup(name), window: t.window, seen: t.seen}
}

// Handle drops warnings and errors that repeat within the window, by the time
// that the record carries.
func (t *throttle) Handle(ctx context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn {
		t.flush(r.Time, t.window)
		return t.next.Handle(ctx, r)
	}
	left, pass := t.seen.pass(r, t.next, t.window) // first: it tells itself of those before it
	t.flush(r.Time, t.window)
	if !pass {
		t.arm()
		return nil
	}
	return t.next.Handle(ctx, repeated(r, left))
}

// repeated is r, telling of so many that were left out before it.
func repeated(r slog.Record, left int) slog.Record {
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", left))
	}
	return r
}

// arm has what is left out written when its window is over, if no line comes before.
func (t *throttle) arm() {
	t.seen.mu.Lock()
	defer t.seen.mu.Unlock()
	if t.seen.timer != nil || t.seen.closed || t.seen.waiting == 0 {
		return
	}
	t.seen.timer = time.AfterFunc(t.window, func() {
		t.seen.mu.Lock()
		t.seen.timer = nil
		t.seen.mu.Unlock()
		t.flush(time.Now(), t.window)
		t.arm() // for those whose windows began later
	})
}

// close writes all that was left out; nothing is written later by itself.
func (t *throttle) close() {
	t.seen.mu.Lock()
	t.seen.closed = true
	if t.seen.timer != nil {
		t.seen.timer.Stop()
	}
	t.seen.mu.Unlock()
	t.flush(time.Now(), 0)
}

// flush writes the last of each message's lines that were left out in windows that
// began longer ago than window, oldest first: no next one may come to tell of them for
// long.
func (t *throttle) flush(now time.Time, window time.Duration) {
	held := t.seen.due(now, window)
	for i := range held {
		e := &held[i]
		_ = e.next.Handle(context.Background(), repeated(e.last, e.left-1)) // as slog.Logger itself does
	}
}

// due takes out what flush writes. A line that is written so begins a window like
// any other: now, since it is now that it is written.
func (s *throttleState) due(now time.Time, window time.Duration) (held []throttleEntry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 {
		return nil
	}
	for _, e := range s.last {
		if e.left > 0 && (window == 0 || now.Sub(e.since) > window) {
			held = append(held, *e)
			*e = throttleEntry{since: now, said: []string{subscriptionOf(e.last)}}
			s.waiting--
		}
	}
	slices.SortFunc(held, func(a, b throttleEntry) int { return a.last.Time.Compare(b.last.Time) })
	return held
}

// pass tells whether r may be written, and how many were left out before it.
func (s *throttleState) pass(r slog.Record, next slog.Handler, window time.Duration) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k, about := throttleKey{r.Level, r.Message}, subscriptionOf(r)
	e := s.last[k]
	if e == nil {
		if len(s.last) >= maxThrottled {
			maps.DeleteFunc(s.last, func(_ throttleKey, e *throttleEntry) bool { return e.left == 0 })
		}
		if len(s.last) >= maxThrottled {
			clear(s.last)
			s.waiting = 0
		}
		s.last[k] = &throttleEntry{since: r.Time, said: []string{about}}
		return 0, true
	}
	switch d := r.Time.Sub(e.since); {
	case d < 0 || d >= window:
		if left = e.left; left > 0 {
			s.waiting--
		}
		*e = throttleEntry{since: r.Time, said: append(e.said[:0], about)}
		return left, true
	case len(e.said) < maxSubscriptions && !slices.Contains(e.said, about):
		e.said = append(e.said, about)
		return 0, true
	}
	if e.left++; e.left == 1 {
		s.waiting++
	}
	e.last, e.next = r.Clone(), next
	return 0, false
}

// subscriptionOf is the id of the subscription that r is about; empty: none.
func subscriptionOf(r slog.Record) (id string) {
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == subscriptionKey {
			id = a.Value.String()
		}
		return a.Key != subscriptionKey
	})
	return id
}
