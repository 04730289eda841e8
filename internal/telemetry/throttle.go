package telemetry

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// throttleWindow: a warning or error with the same message is logged once in
// this time; the next line that passes tells how many were left out.
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
	left, pass := t.seen.pass(throttleKey{r.Level, r.Message}, r.Time, t.window)
	if !pass {
		return nil
	}
	if left > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("repeated", left))
	}
	return t.next.Handle(ctx, r)
}

func (s *throttleState) pass(k throttleKey, now time.Time, window time.Duration) (left int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.last[k]
	if e == nil {
		if len(s.last) >= maxThrottled {
			clear(s.last)
		}
		s.last[k] = &throttleEntry{since: now}
		return 0, true
	}
	if d := now.Sub(e.since); d >= 0 && d < window {
		e.left++
		return 0, false
	}
	left = e.left
	e.since, e.left = now, 0
	return left, true
}
