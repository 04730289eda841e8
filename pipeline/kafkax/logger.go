package kafkax

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const (
	// throttleWindow: the same message is written once in it; what was left out
	// is counted with the next one. While it goes on the window doubles, up to
	// throttleMost: an outage of an hour is no more than an hour of lines.
	throttleWindow = 10 * time.Second
	throttleMost   = time.Minute
	// throttleKeys bounds the memory for messages seen; beyond it all of it is
	// forgotten, which at worst lets a message through early.
	throttleKeys = 256
)

// Logger writes what kgo logs to slog. kgo's info messages become debug ones
// (two for each transaction would drown everything else), and the same warning
// is written ever more seldom while it repeats, so that a broker outage does not
// flood.
type Logger struct {
	log *slog.Logger
	now func() time.Time

	mu   sync.Mutex
	seen map[string]*suppressed // message -> when it was last written; read and written under mu
}

type suppressed struct {
	at     time.Time
	window time.Duration // since at, in which it is not written again
	count  int
}

// NewLogger makes a Logger on top of log, which may say which part it is of: lines
// name Kafka's client beside it.
func NewLogger(log *slog.Logger) *Logger {
	return &Logger{log: log.With("client", "kafka"), now: time.Now, seen: map[string]*suppressed{}}
}

// Level is what kgo asks before it builds a message.
func (l *Logger) Level() kgo.LogLevel {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

// Log writes one message of kgo's, or counts it as suppressed.
func (l *Logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := slog.LevelDebug
	switch level {
	case kgo.LogLevelError:
		to = slog.LevelError
	case kgo.LogLevelWarn:
		to = slog.LevelWarn
	case kgo.LogLevelInfo, kgo.LogLevelDebug, kgo.LogLevelNone:
	}
	if to > slog.LevelDebug {
		n, ok := l.pass(msg)
		if !ok {
			return
		}
		if n > 0 {
			keyvals = append(keyvals[:len(keyvals):len(keyvals)], "suppressed", n)
		}
	}
	l.log.Log(context.Background(), to, msg, keyvals...)
}

// pass tells whether msg may be written now, and how many of it were left out.
func (l *Logger) pass(msg string) (left int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	s := l.seen[msg]
	if s == nil {
		if len(l.seen) >= throttleKeys {
			clear(l.seen)
		}
		l.seen[msg] = &suppressed{at: now, window: throttleWindow}
		return 0, true
	}
	since := now.Sub(s.at)
	if since >= 0 && since < s.window {
		s.count++
		return 0, false
	}
	if s.window = min(2*s.window, throttleMost); since < 0 || since >= 2*s.window {
		s.window = throttleWindow // it had stopped
	}
	left, s.at, s.count = s.count, now, 0
	return left, true
}
