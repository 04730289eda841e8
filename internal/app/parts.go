package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// part is a long-lived part of the process. run blocks until ctx ends (and
// returns nil) or something fatal happens.
type part struct {
	name string
	run  func(ctx context.Context) error
	// stopWithin is how long it may take to stop; then the process goes on
	// without waiting for it.
	stopWithin time.Duration
	// drains: it has work under way that it finishes when it stops. All of these
	// stop first, and at once: each may have to wait for Kafka, and the promise is
	// about the process. What they need of the others is there until then.
	drains bool
}

// slowStop is told of: what a part waits for is the answer of requests, of Kafka
// or of ClickHouse.
const slowStop = time.Second

// running is a part that was started.
type running struct {
	part
	cancel context.CancelFunc
	done   chan struct{} // closed by its goroutine, after it set err
	err    error
}

// runParts starts the parts in order and stops them, see stopAll, when ctx ends
// or one of them fails. It returns the first failure.
func runParts(ctx context.Context, parts []part, log *slog.Logger) error {
	ended := make(chan *running, len(parts)) // each part's goroutine writes once
	var started []*running
	for _, p := range parts {
		// A part's own context: it must outlive ctx until its turn to stop.
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		r := &running{part: p, cancel: cancel, done: make(chan struct{})}
		started = append(started, r)
		go func() {
			r.err = r.run(own)
			close(r.done)
			ended <- r
		}()
	}
	var failure error
	select {
	case <-ctx.Done():
		log.Info("stopping")
	case r := <-ended:
		failure = r.reason()
		log.Error("a part has ended; stopping", "part", r.name, "reason", failure)
	}
	return cmp.Or(failure, stopAll(started, log))
}

// stopAll stops the parts: those that drain at once, then the others, the last
// one first. It returns the first failure.
func stopAll(started []*running, log *slog.Logger) error {
	var draining sync.WaitGroup
	failures := make([]error, len(started))
	for i := range started {
		if started[i].drains {
			draining.Go(func() { failures[i] = started[i].stopped(log) })
		}
	}
	draining.Wait()
	for i := range slices.Backward(started) {
		if !started[i].drains {
			failures[i] = started[i].stopped(log)
		}
	}
	return cmp.Or(failures...)
}

// stopped stops the part, and tells of what is out of the ordinary.
func (r *running) stopped(log *slog.Logger) error {
	begun := time.Now()
	err := r.stop()
	if took := time.Since(begun); took > slowStop {
		log.Info("a part took long to stop", "part", r.name, "took", took.Round(time.Millisecond))
	}
	if err != nil {
		log.Error("stopping", "part", r.name, "error", err)
	}
	return err
}

// reason is why a part ended that nobody had stopped.
func (r *running) reason() error {
	if r.err == nil {
		return fmt.Errorf("running the %s: it ended of itself", r.name)
	}
	return fmt.Errorf("running the %s: %w", r.name, r.err)
}

// stop ends the part and waits for it, within its limit.
func (r *running) stop() error {
	r.cancel()
	t := time.NewTimer(r.stopWithin)
	defer t.Stop()
	select {
	case <-r.done:
		if r.err != nil && !errors.Is(r.err, context.Canceled) {
			return fmt.Errorf("stopping the %s: %w", r.name, r.err)
		}
		return nil
	case <-t.C:
		return fmt.Errorf("stopping the %s: it did not stop within %s", r.name, r.stopWithin)
	}
}
