package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/sink/embedded"
)

// Stack is everything that hookline needs beside it, on this machine.
type Stack struct {
	Broker *Broker
	Engine *Engine // nil: the engine is not to be had, see NoEngine
	// NoEngine is why there is no engine, with its remedy; nil: there is one.
	NoEngine error
	dir      string
}

// Addrs says where a Stack listens; port 0 is a free one.
type Addrs struct{ Kafka, ClickHouse string }

// Start starts a broker and, where its library and binary are there, the
// ClickHouse engine, with their data in dir. Close ends them.
func Start(ctx context.Context, addrs Addrs, dir string, log *slog.Logger) (*Stack, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making the data directory: %w (choose another --data)", err)
	}
	broker, err := StartBroker(addrs.Kafka, dir)
	if err != nil {
		return nil, err
	}
	s := &Stack{Broker: broker, dir: dir}
	s.Engine, err = StartEngine(ctx, addrs.ClickHouse, dir, log)
	switch {
	case errors.Is(err, embedded.ErrNoLibrary), errors.Is(err, embedded.ErrNoBinary):
		s.NoEngine = err
	case err != nil:
		s.Close()
		if strings.Contains(err.Error(), "address already in use") {
			err = errors.New(strings.ReplaceAll(err.Error(), "choose another --addr", "choose another --clickhouse-addr"))
		}
		return nil, err
	}
	return s, nil
}

// AttemptsFile is where attempts go without an engine.
func (s *Stack) AttemptsFile(kafka *kafkax.Config, log *slog.Logger) *AttemptsFile {
	return NewAttemptsFile(filepath.Join(s.dir, "attempts.jsonl"), kafka, log)
}

// Close ends what still runs.
func (s *Stack) Close() {
	if s.Engine != nil {
		// It has told its own log why, if it did not end well.
		_ = s.Engine.Stop()
	}
	s.Broker.Close()
}
