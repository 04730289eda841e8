package local

import (
	"context"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/hookline/hookline/sink/embedded"
)

// restartDelay is the pause before a dead engine is started again; it doubles
// up to maxRestartDelay while starts fail.
const (
	restartDelay    = 500 * time.Millisecond
	maxRestartDelay = 30 * time.Second
	healthyAfter    = time.Minute // an engine that lived so long begins with the short delay again
)

// Engine is the embedded ClickHouse, kept alive.
type Engine struct {
	cfg embedded.Config
	log *slog.Logger

	mu      sync.Mutex
	current *embedded.Engine // guarded by mu; replaced by Run
}

// StartEngine starts the engine at addr with its data in dir and waits until it
// answers. Run keeps it alive and stops it; without Run, Stop must be called.
func StartEngine(ctx context.Context, addr, dir string, log *slog.Logger) (*Engine, error) {
	cfg := embedded.Config{Addr: addr, DataDir: filepath.Join(dir, "clickhouse"), Log: log.With("part", "clickhouse")}
	e, err := embedded.Start(ctx, cfg)
	if err != nil {
		return nil, err
	}
	cfg.Addr = e.Addr() // the same port again after a restart
	return &Engine{cfg: cfg, log: log, current: e}, nil
}

// Addr is the address of the HTTP interface, host:port.
func (e *Engine) Addr() string { return e.cfg.Addr }

// PID is the process id of the engine that runs now.
func (e *Engine) PID() int { return e.engine().PID() }

func (e *Engine) engine() *embedded.Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.current
}

// Stop ends the engine.
func (e *Engine) Stop() error { return e.engine().Stop() }

// Run starts the engine again whenever it dies, says so, and stops it when ctx
// ends. Rows that were acknowledged are on disk; others the sink sends again.
func (e *Engine) Run(ctx context.Context) error {
	delay, since := restartDelay, time.Now()
	for {
		select {
		case <-ctx.Done():
			return e.Stop()
		case <-e.engine().Done():
		}
		if time.Since(since) > healthyAfter {
			delay = restartDelay
		}
		e.log.Error("the ClickHouse engine has ended; starting it again", "reason", e.engine().Err(), "in", delay)
		if !pause(ctx, delay) {
			return nil
		}
		delay = min(2*delay, maxRestartDelay)
		since = time.Now()
		next, err := embedded.Start(ctx, e.cfg)
		if err != nil {
			if ctx.Err() == nil {
				e.log.Error("starting the ClickHouse engine again", "error", err)
			}
			continue
		}
		e.mu.Lock()
		e.current = next
		e.mu.Unlock()
		e.log.Info("the ClickHouse engine runs again", "addr", next.Addr())
	}
}

// pause waits; false: ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
