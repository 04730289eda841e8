package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/hookline/hookline/internal/proof"
)

// rows waits until no more rows arrive, and gives all.
func (r *runner) rows(ctx context.Context) ([]byte, error) {
	last, since := "", time.Now()
	for time.Since(since) < rowsPatience {
		n, err := r.ask(ctx, "SELECT count() FROM hookline.attempts")
		if err != nil {
			return nil, err
		}
		if n != last {
			last, since = n, time.Now()
		}
		wait(ctx, 200*time.Millisecond)
	}
	text, err := r.ask(ctx, fmt.Sprintf(proof.RowsQuery, "hookline"))
	return []byte(text), err
}

// ask asks the engine by plain HTTP, as curl would.
func (r *runner) ask(ctx context.Context, query string) (string, error) {
	body, err := get(ctx, r.engine.URL()+"/?query="+url.QueryEscape(query))
	if err != nil {
		return "", fmt.Errorf("asking ClickHouse: %w", err)
	}
	return body, nil
}

// watchBusy writes down how late timers are, for every half second, until the
// result is called.
func (r *runner) watchBusy() (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		const every, part = 10 * time.Millisecond, 500 * time.Millisecond
		var worst time.Duration
		written := r.now()
		for ctx.Err() == nil {
			began := time.Now()
			wait(ctx, every)
			worst = max(worst, time.Since(began)-every)
			if at := r.now(); at-written >= part {
				r.failing(r.journal.Busy(proof.Busy{At: at, Late: worst}))
				worst, written = 0, at
			}
		}
	}()
	return func() { cancel(); <-done }
}
