package telemetry

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// throttleWindow: a warning or error with the same message is logged once in
// this time; the next line that passes tells how many were left out, and flush
// does for those that none came after.
const throttleWindow = time.Second

// maxThrottled bounds the messages remembered; messages are constant strings in
// the source, so it is reached only by a mistake.
const maxThrottled = 1024

// throttle is a slog.Handler that lets one line in each window through for each
// level and message. A broker that is away must not flood the log.
type throttle struct {
	next   slog.Handler
	window time.Duration
	seen   *throttleState // shared by all handlers derived from one
}

type throttleState struct {
	mu   sync.Mutex
	last map[throttleKey]*throttleEntry // guarded by mu
}

type throttleKey struct {
	level   slog.Level
	message string
}

type throttleEntry struct {
	since time.Time
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
		return t.next.Handle(ctx, r)
	}
	left, pass := t.seen.pass(r, t.next, t.window)
	if !pass {
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

// flush writes the last of each message's lines that were left out, oldest
// first: at the end, no next one will tell of them.
func (t *throttle) flush() {
	t.seen.mu.Lock()
	var held []throttleEntry
	for _, e := range t.seen.last {
		if e.left > 0 {
			held = append(held, *e)
			e.left = 0
		}
	}
	t.seen.mu.Unlock()
	slices.SortFunc(held, func(a, b throttleEntry) int { return a.last.Time.Compare(b.last.Time) })
	for _, e := range held {
		_ = e.next.Handle(context.Background(), repeated(e.last, e.left-1)) // as slog.Logger itself does
	}
}

// pass tells whether r may be written, and how many were left out before it.
func (s *throttleState) pass(r slog.Record, next slog.Handler, window time.Duration) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := throttleKey{r.Level, r.Message}
	e := s.last[k]
	if e == nil {
		if len(s.last) >= maxThrottled {
			clear(s.last)
		}
		s.last[k] = &throttleEntry{since: r.Time}
		return 0, true
	}
	if d := r.Time.Sub(e.since); d >= 0 && d < window {
		e.left++
		e.last, e.next = r.Clone(), next
		return 0, false
	}
	left = e.left
	*e = throttleEntry{since: r.Time}
	return left, true
}
