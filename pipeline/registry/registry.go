package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/filter"
)

// Config says what the registry's topic is.
type Config struct {
	// Topic is the compacted topic with one partition.
	Topic string
	// AuditTopic is where a Writer tells who changed what, in the transaction
	// that makes the change; empty: nowhere.
	AuditTopic string
	// RouterGroup is the consumer group of the router. How far it has come is
	// written down when a Writer disables a subscription; empty: it is not.
	RouterGroup string
}

// Deps are what a registry works with.
type Deps struct {
	// Client options: brokers, authentication, logging.
	Client []kgo.Opt
	Policy Policy
	// Log may be nil: nothing is logged.
	Log *slog.Logger
	// Now is the clock of what is written; nil: time.Now.
	Now func() time.Time
}

func (d Deps) complete() Deps {
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	d.Policy.filters = new(filter.Cache)
	return d
}

// Registry follows the topic and publishes snapshots.
type Registry struct {
	cfg  Config
	deps Deps
	// current is written by Run alone.
	current atomic.Pointer[published]
	ready   chan struct{} // closed by Run
	// silent is since when Kafka has not answered, and why; nil: it does. Written
	// by Run alone.
	silent atomic.Pointer[silence]
	// readAt is the newest moment of which all that was committed then is in the
	// snapshot. Written by Run alone; nil: there is none.
	readAt atomic.Pointer[time.Time]
}

// silence is a time without an answer.
type silence struct {
	since time.Time
	err   error
}

// Silent tells for how long the topic could not be read, and why; 0: it can be,
// or Run has not begun.
func (r *Registry) Silent() (time.Duration, error) {
	s := r.silent.Load()
	if s == nil {
		return 0, nil
	}
	return time.Since(s.since), s.err
}

// ReadAt is the newest moment, by this process's clock, of which everything that
// was committed then is in the snapshot; the zero time before there is one. It is
// at most a second ago while Kafka answers and the process runs: one that was
// frozen sees by it that it must wait.
func (r *Registry) ReadAt() time.Time {
	if at := r.readAt.Load(); at != nil {
		return *at
	}
	return time.Time{}
}

// published is a snapshot and the channel that its successor closes.
type published struct {
	snap    *Snapshot // nil before the end was reached
	changed chan struct{}
}

// New makes a registry that Run fills.
func New(cfg Config, deps Deps) *Registry {
	r := &Registry{cfg: cfg, deps: deps.complete(), ready: make(chan struct{})}
	r.current.Store(&published{changed: make(chan struct{})})
	return r
}

// Snapshot is the registry as it is now; nil before the topic has been read to
// the end that it had when Run began. Nothing may be matched before.
func (r *Registry) Snapshot() *Snapshot { return r.current.Load().snap }

// Ready is closed when there is a first snapshot.
func (r *Registry) Ready() <-chan struct{} { return r.ready }

// Changed gives a channel that is closed by the next snapshot. To miss none, get
// the channel first, then look at the snapshot, then wait. A new snapshot may
// have a new version only: see Snapshot.Generation.
func (r *Registry) Changed() <-chan struct{} { return r.current.Load().changed }

// Await returns the first snapshot of at least that version.
func (r *Registry) Await(ctx context.Context, version int64) (*Snapshot, error) {
	for {
		p := r.current.Load()
		if p.snap != nil && p.snap.version >= version {
			return p.snap, nil
		}
		select {
		case <-p.changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for version %d of the registry: %w", version, context.Cause(ctx))
		}
	}
}

// fetchWait is how long a fetch waits for a change at the broker.
const fetchWait = 500 * time.Millisecond

// Run follows the topic until ctx ends, and then returns nil. Trouble with Kafka
// is logged and tried again; an error is fatal: the topic has not one partition,
// or is lost (ErrTopicLost). The last snapshot stays.
func (r *Registry) Run(ctx context.Context) error {
	client, err := kgo.NewClient(r.deps.Client...)
	if err != nil {
		return fmt.Errorf("making the registry's Kafka client: %w", err)
	}
	defer client.Close()
	err = r.follow(ctx, &tail{client: client, topic: r.cfg.Topic})
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (r *Registry) follow(ctx context.Context, t *tail) error {
	retry := retrier{log: r.deps.Log, tell: r.hear}
	var end int64
	if err := retry.do(ctx, func() (err error) {
		if end, err = t.end(ctx); err == nil {
			err = t.begin(ctx)
		}
		return err
	}); err != nil {
		return err
	}
	b := newBuilder(&r.deps.Policy)
	for {
		before := t.next
		var records []*kgo.Record
		var asked time.Time
		if b.last != nil || before < end {
			if err := retry.do(ctx, func() (err error) {
				asked = time.Now()
				records, err = t.fetch(ctx, fetchWait)
				return err
			}); err != nil {
				return err
			}
		}
		for _, rec := range records {
			if err := b.add(rec.Key, rec.Value); err != nil {
				r.tellRefused(b, rec, err)
			}
		}
		switch {
		case b.last == nil && t.next >= end:
			r.publish(b.snapshot(t.next - 1))
			close(r.ready)
		case b.last != nil && t.next > before:
			r.publish(b.snapshot(t.next - 1))
		}
		if !asked.IsZero() && t.whole() {
			r.readAt.Store(&asked)
		}
	}
}

// tellRefused says what comes of a record that b refused, or whose secrets do not open.
func (r *Registry) tellRefused(b *builder, rec *kgo.Record, err error) {
	id, _ := subscriptionOf(rec.Key)
	args := []any{"topic", rec.Topic, "offset", rec.Offset}
	if ValidID(id) {
		args = append(args, "subscription", id)
	}
	if string(rec.Key) != id || !ValidID(id) { // it may be anything, and of any size
		args = append(args, "key", fmt.Sprintf("%.140q", rec.Key))
	}
	args = append(args, "error", err)
	e, held := b.next.entry(id), heldError{}
	switch {
	case e == nil:
		r.deps.Log.Warn("a record that is no subscription's was passed over", args...)
	case errors.As(err, &held):
		r.deps.Log.Warn("a subscription is paused in this process: its secrets cannot be opened", args...)
	case e.sub == nil:
		r.deps.Log.Warn("a subscription's record was refused; it has no good version: what is meant for it waits", args...)
	default:
		r.deps.Log.Warn("a subscription's record was refused; its last good version stays in force", args...)
	}
}

// hear notes whether the last request was answered.
func (r *Registry) hear(err error) {
	old := r.silent.Load()
	switch {
	case err == nil && old != nil:
		r.silent.Store(nil)
	case err != nil && old == nil:
		r.silent.Store(&silence{since: time.Now(), err: err})
	case err != nil:
		r.silent.Store(&silence{since: old.since, err: err})
	}
}

func (r *Registry) publish(s *Snapshot) {
	old := r.current.Load()
	r.current.Store(&published{snap: s, changed: make(chan struct{})})
	close(old.changed)
}

// retrier repeats what fails for reasons that pass.
type retrier struct {
	log     *slog.Logger
	tell    func(error) // of every try; nil: nobody
	failing bool
}

const (
	retryFirst = 50 * time.Millisecond
	retryMost  = 2 * time.Second
)

// do calls f until it succeeds, fails for good, or ctx ends. It logs the first
// failure of a row, then one in about ten seconds.
func (r *retrier) do(ctx context.Context, f func() error) error {
	for n, wait := 0, retryFirst; ; n, wait = n+1, min(2*wait, retryMost) {
		err := f()
		if r.tell != nil && ctx.Err() == nil {
			r.tell(err)
		}
		switch {
		case err == nil:
			if r.failing {
				r.failing = false
				r.log.Info("the registry's topic can be read again")
			}
			return nil
		case errors.Is(err, ErrTopicLost), errors.Is(err, errPartitions):
			return err
		case ctx.Err() != nil:
			return fmt.Errorf("%w (%w)", err, context.Cause(ctx))
		}
		if !r.failing || n%10 == 9 {
			r.failing = true
			r.log.Warn("reading the registry failed; trying again", "error", err)
		}
		if stop := pause(ctx, wait); stop != nil {
			return fmt.Errorf("%w (%w)", err, stop)
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
