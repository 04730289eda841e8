package replay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
)

// Archive knows events and deliveries of the past, beyond what Kafka retains.
type Archive interface {
	// EventRecords gives stored event records of one source partition, by offset:
	// from src.Offset on and below to, within the time, at most limit.
	EventRecords(ctx context.Context, src pipeline.Position, to int64, since, until time.Time, limit int) ([]*kgo.Record, error)
	// EventPositions gives where the events with this id stand.
	EventPositions(ctx context.Context, eventID string) ([]pipeline.Position, error)
	// DeliveryPositions calls each for the deliveries of a subscription, or with an
	// id; with failed only those that ended otherwise than by success.
	DeliveryPositions(ctx context.Context, subscription, delivery string, failed bool, since, until time.Time,
		each func(src pipeline.Position, subscription string) error) error
}

// Deps are what a Replayer works with. All but Archive and Log are required.
type Deps struct {
	Kafka *kafkax.Config
	// Cluster is the Kafka cluster's id, as the router knows it.
	Cluster string
	// EventTopics picks from topics those that events are read from.
	EventTopics func(topics []string) []string
	// Parse reads an event record as the router does.
	Parse func(*kgo.Record, *pipeline.Position) (*pipeline.Event, error)
	// Match makes a matcher of today's subscriptions: of one, whatever its state,
	// or of all that are not disabled (empty id). It says of which version of the
	// registry.
	Match func(ctx context.Context, id string) (match func(*pipeline.Event, []*pipeline.Subscription) []*pipeline.Subscription, version int64, err error)
	// Operator asks the processes that own the lanes what waits.
	Operator *control.Operator
	Writer   *registry.Writer
	// Archive; nil: there is none, only what Kafka retains can be replayed.
	Archive Archive
	Log     *slog.Logger
	Node    string
}

// Replayer replays. It is safe for concurrent use; close it.
type Replayer struct {
	deps    Deps
	base    []kgo.Opt
	cl      *kgo.Client
	adm     *kadm.Client
	fetcher *kafkax.Fetcher
	topics  kafkax.Topics
	now     func() time.Time
}

// New makes a Replayer.
func New(deps Deps) (*Replayer, error) {
	if deps.Kafka == nil || deps.EventTopics == nil || deps.Parse == nil || deps.Match == nil || deps.Operator == nil || deps.Writer == nil {
		return nil, errors.New("making a replayer: a part that it needs is missing")
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	base, err := deps.Kafka.ClientOpts(deps.Log)
	if err != nil {
		return nil, fmt.Errorf("making a replayer: %w", err)
	}
	cl, err := kgo.NewClient(base...)
	if err != nil {
		return nil, fmt.Errorf("making a replayer: %w", err)
	}
	return &Replayer{
		deps: deps, base: base, cl: cl, adm: kadm.NewClient(cl), fetcher: kafkax.NewFetcher(cl), topics: deps.Kafka.Topics(), now: time.Now,
	}, nil
}

// Close lets the connections go.
func (r *Replayer) Close() { r.cl.Close() }

// Options say how to replay.
type Options struct {
	Who    string // for the audit topic
	DryRun bool   // plan only: nothing is enqueued, nothing is remembered
	// Rate bounds the events enqueued in a second; 0: DefaultRate.
	Rate int
	// Afresh begins anew where a replay of the same selection is unfinished.
	Afresh bool
	// Confirm, where not nil, is asked with the plan before anything is enqueued;
	// an error ends the replay.
	Confirm func(Plan) error
	// OnProgress, where not nil, hears of progress, about five times a second.
	OnProgress func(Progress, Waiting)
}

// Waiting is why a replay does not go on at once.
type Waiting struct {
	Deliveries int  // of the subscription, that wait already
	Silent     bool // no process tells
}

const (
	// DefaultRate is how many events are enqueued in a second.
	DefaultRate = 1000
	// MaxEvents bounds a plan; a longer time is replayed in parts.
	MaxEvents = 5_000_000
	// batchEvents and batchBytes bound one transaction.
	batchEvents = 500
	batchBytes  = 8 << 20
	// waitingMost is how many deliveries of the subscription may wait before the
	// replay does.
	waitingMost = pipeline.MaxReplayWaiting
	// statusEvery is how often it is asked how many do.
	statusEvery = time.Second
	// transactionTimeout of one batch.
	transactionTimeout = 20 * time.Second
)

// Plan is what a replay will do.
type Plan struct {
	ID        string    `json:"id"`
	Selection Selection `json:"selection"`
	Events    int       `json:"events"` // that match and are to be delivered
	// Continued: it goes on with a replay that was interrupted; Events is all of
	// it, Before what is through already.
	Continued bool `json:"continued,omitzero"`
	Before    int  `json:"before,omitzero"`
	// Unmatched events were selected and do not match today's subscriptions.
	Unmatched int `json:"unmatched,omitzero"`
	// Gone events were selected and are neither in Kafka nor in the archive.
	Gone int `json:"gone,omitzero"`
	// Archived of Events are read from the archive.
	Archived int `json:"archived,omitzero"`
	// Incomplete says in a sentence what could not be looked at; empty: nothing.
	Incomplete string    `json:"incomplete,omitempty"`
	First      time.Time `json:"first,omitzero"` // when the first and the last was produced
	Last       time.Time `json:"last,omitzero"`
}

// Run plans a replay and runs it to its end: everything is enqueued when it
// returns, not delivered. It goes on with an unfinished replay of the same
// selection. When ctx ends, it returns with an error and what was enqueued so far
// stands.
func (r *Replayer) Run(ctx context.Context, sel Selection, opts Options) (Plan, Progress, error) {
	plan, u, err := r.run(ctx, sel, opts)
	return plan, u.progress, err
}

func (r *Replayer) run(ctx context.Context, sel Selection, opts Options) (Plan, *run, error) {
	run := &run{r: r, opts: opts}
	if err := sel.Check(); err != nil {
		return Plan{}, run, err
	}
	if err := run.begin(ctx, sel); err != nil {
		return Plan{}, run, err
	}
	if err := r.usable(ctx, &sel, opts.DryRun); err != nil {
		return Plan{}, run, err
	}
	pl := &planner{r: r, run: run, sel: &run.progress.Selection}
	if err := pl.make(ctx); err != nil {
		return Plan{}, run, fmt.Errorf("planning the replay: %w", err)
	}
	plan := pl.plan()
	if opts.DryRun {
		return plan, run, nil
	}
	if opts.Confirm != nil {
		if err := opts.Confirm(plan); err != nil {
			return plan, run, err
		}
	}
	if err := run.enqueue(ctx, pl); err != nil {
		return plan, run, err
	}
	if sel.Missed && !sel.CatchUp && sel.Since.IsZero() {
		return plan, run, r.deps.Writer.As(opts.Who).MissedDelivered(ctx, sel.Subscription, run.progress.BegunAt)
	}
	return plan, run, nil
}

// ErrDisabled says that what would be replayed to is disabled.
var ErrDisabled = errors.New("it is disabled")

// usable refuses what would only end in the dead letters.
func (r *Replayer) usable(ctx context.Context, sel *Selection, dryRun bool) error {
	if sel.Subscription == "" || dryRun {
		return nil
	}
	it, err := r.deps.Writer.Get(ctx, sel.Subscription)
	if err != nil {
		return err
	}
	if it.Effective == pipeline.StateDisabled {
		return fmt.Errorf("replaying to %s: %w (resume it: hookline subs resume %s --replay)", it.ID, ErrDisabled, it.ID)
	}
	return nil
}

// run is one replay under way.
type run struct {
	r         *Replayer
	opts      Options
	progress  Progress
	continued bool
	match     func(*pipeline.Event, []*pipeline.Subscription) []*pipeline.Subscription
	version   int64

	known      map[string]bool // ids of replays of the same selection when it was begun
	only       string          // the one subscription, where the archive told which
	statusAt   time.Time
	lastOffset map[int32]int64 // of deliveries, the last that was enqueued
}

// begin finds what is to be continued, or begins anew, and gets the matcher.
func (u *run) begin(ctx context.Context, sel Selection) error {
	var err error
	id := sel.Subscription
	if u.match, u.version, err = u.r.deps.Match(ctx, id); err != nil {
		return err
	}
	all, err := u.r.List(ctx)
	if err != nil {
		return err
	}
	u.known = map[string]bool{}
	for i := range all {
		if all[i].Fingerprint == sel.fingerprint() {
			u.known[all[i].ID] = true
		}
	}
	if !u.opts.Afresh {
		old := unfinished(all, &sel)
		if old != nil {
			u.progress, u.continued = *old, true
			return nil
		}
	}
	u.anew(sel)
	return nil
}

// anew makes it a replay of its own, at its beginning.
func (u *run) anew(sel Selection) {
	now := u.r.now().UTC().Truncate(time.Millisecond)
	u.continued = false
	u.progress = Progress{
		V: progressVersion, ID: sel.newID(newRandom()), Fingerprint: sel.fingerprint(), Selection: sel, Actor: u.opts.Who, State: StateRunning, BegunAt: now,
		Next: map[string]int64{},
	}
}

// eventTopics are those that are there now.
func (r *Replayer) eventTopics(ctx context.Context) ([]string, error) {
	details, err := r.adm.ListTopics(ctx)
	if err != nil {
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	names := details.Names()
	slices.Sort(names)
	return r.deps.EventTopics(names), nil
}

// status asks what waits of the subscription; nil: nobody tells.
func (r *Replayer) status(ctx context.Context, who, id string) (*command.Status, error) {
	told, err := r.deps.Operator.Statuses(ctx, who, []string{id}, 2*time.Second)
	return told[id], err
}
