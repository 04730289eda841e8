// Package telemetry sets up what hookline tells about itself: structured logs,
// Prometheus metrics and OpenTelemetry traces.
package telemetry

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

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

// NewLogger logs to w in the configured format. Lines that repeat are throttled
// (see throttle). c has been validated.
func NewLogger(c *Config, w io.Writer) *slog.Logger {
	lvl, err := level(c.LogLevel)
	if err != nil {
		lvl = slog.LevelInfo
	}
	opts := &slog.HandlerOptions{Level: lvl}
	format := strings.ToLower(c.LogFormat)
	if format == "auto" {
		format = "json"
		if IsTerminal(w) {
			format = "text"
		}
	}
	var h slog.Handler = slog.NewJSONHandler(w, opts)
	if format == "text" {
		h = slog.NewTextHandler(w, opts)
	}
	return slog.New(newThrottle(h, throttleWindow))
}

// IsTerminal tells whether w is a terminal, so that colours and progress have
// a reader.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
