// Package telemetry sets up what hookline tells about itself: structured logs,
// Prometheus metrics and OpenTelemetry traces.
package telemetry

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// Config says how hookline logs and traces.
type Config struct {
	// LogLevel is the least severe level that is logged: debug, info, warn or error.
	LogLevel string `env:"LOG_LEVEL" envDefault:"info"`
	// LogFormat: text, json, or auto: text when standard error is a terminal, else json.
	LogFormat string `env:"LOG_FORMAT" envDefault:"auto"`

	TraceConfig
}

// Validate names every setting that has no meaning.
func (c *Config) Validate() error {
	var errs []error
	if _, err := level(c.LogLevel); err != nil {
		errs = append(errs, err)
	}
	switch strings.ToLower(c.LogFormat) {
	case "auto", "text", "json":
	default:
		errs = append(errs, fmt.Errorf("HOOKLINE_LOG_FORMAT: %q is not a format (one of auto, text, json)", c.LogFormat))
	}
	return errors.Join(append(errs, c.TraceConfig.Validate())...)
}

func level(s string) (slog.Level, error) {
	switch strings.ToLower(s) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, fmt.Errorf("HOOKLINE_LOG_LEVEL: %q is not a level (one of debug, info, warn, error)", s)
}

// Logger is a slog.Logger that never waits for its reader.
type Logger struct {
	*slog.Logger
	throttle *throttle
	lines    *lines
}

// NewLogger logs to w in the configured format. Lines that repeat are throttled
// (see throttle); lines that w does not take in time are dropped and counted (see
// lines). c has been validated. Close it at the end.
func NewLogger(c *Config, w io.Writer) *Logger {
	lvl, err := level(c.LogLevel)
	if err != nil {
		lvl = slog.LevelInfo
	}
	format := strings.ToLower(c.LogFormat)
	if format == "auto" {
		format = "json"
		if IsTerminal(w) {
			format = "text"
		}
	}
	handler := func(w io.Writer) slog.Handler {
		opts := &slog.HandlerOptions{Level: lvl, ReplaceAttr: tidied}
		if format == "text" {
			return slog.NewTextHandler(w, opts)
		}
		return slog.NewJSONHandler(w, opts)
	}
	l := &Logger{lines: newLines(w, maxQueuedBytes, func(n int) []byte { return droppedNote(handler, n) })}
	l.throttle = newThrottle(handler(l.lines), throttleWindow)
	l.Logger = slog.New(l.throttle)
	return l
}

// tidied writes a duration with its unit ("1.5s"): slog's JSON has a number of
// nanoseconds, which nothing says. And it has what went wrong under one name,
// "error", whoever logs it: Kafka's client says "err".
func tidied(groups []string, a slog.Attr) slog.Attr {
	if a.Value.Kind() == slog.KindDuration {
		a.Value = slog.StringValue(a.Value.Duration().String())
	}
	if a.Key == "err" && len(groups) == 0 {
		a.Key = "error"
	}
	return a
}

// droppedNote is the line that tells of n lines that are not there.
func droppedNote(handler func(io.Writer) slog.Handler, n int) []byte {
	var b bytes.Buffer
	r := slog.NewRecord(time.Now(), slog.LevelWarn, "log lines were dropped: what reads them does not keep up", 0)
	r.AddAttrs(slog.Int("lines", n))
	if err := handler(&b).Handle(context.Background(), r); err != nil {
		panic("BUG: writing to memory: " + err.Error())
	}
	return b.Bytes()
}

// Write adds text, whole lines that are no log records, such as the error by
// which a process ends.
func (l *Logger) Write(p []byte) (int, error) { return l.lines.Write(p) }

// Dropped is how many lines the reader did not take.
func (l *Logger) Dropped() int64 { return l.lines.Dropped() }

// Close writes what waits, with the warnings that were held back as repetitions.
// It gives up when the reader takes longer than within. It may be called again.
func (l *Logger) Close(within time.Duration) {
	l.throttle.close() // no next one comes
	l.lines.close(within)
}

// IsTerminal tells whether w is a terminal, so that colours and progress have
// a reader.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
