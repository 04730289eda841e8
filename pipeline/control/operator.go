// Package control is what operators do to subscriptions that are in use: pause,
// resume, skip, retry, test, and ask what waits. The command line, the REST
// interface and the console all use an Operator.
//
// A subscription's lanes live in the one process that owns its partition. A
// command goes there through the topic control; that process carries it out and
// answers by an entry in the topic audit, both in one transaction. So a command
// that was answered has taken effect for good, and one that was not has either
// not been carried out or will be answered by the process that comes next; each
// takes effect at most once. A command whose turn comes later than
// command.MaxAge after it was given is answered as expired and not carried out.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
)

const (
	// DefaultPatience is how long an answer is waited for. Usually it comes
	// within half a second; while the partitions are being given to other
	// processes it takes as long as that does.
	DefaultPatience = 10 * time.Second
	// confirmPatience is the same for confirmations that a caller can do without.
	confirmPatience = 2 * time.Second
	// pollEvery is how often the topic of answers is looked at.
	pollEvery = 25 * time.Millisecond
	// answerBytes bounds one such look.
	answerBytes = 1 << 20
	// TestPatience is what a test takes beyond its request's time limit.
	TestPatience = 5 * time.Second
)

// Deps are what an Operator works with. Kafka and Writer are required.
type Deps struct {
	Kafka  *kafkax.Config
	Writer *registry.Writer
	// Log may be nil: nothing is logged.
	Log *slog.Logger
	// Patience is how long an answer is waited for; 0: DefaultPatience.
	Patience time.Duration
	// RequestTimeout is the longest that a test's request may take; 0: 15 s.
	RequestTimeout time.Duration
}

// Operator gives operators' commands. It is safe for concurrent use, and keeps
// one Kafka client: close it.
type Operator struct {
	deps    Deps
	cl      *kgo.Client
	fetcher *kafkax.Fetcher
	topics  kafkax.Topics
	now     func() time.Time
	catchUp func(ctx context.Context, who, id string) (*Result, error) // set before use; nil: not possible
}

// New makes an Operator. Nothing is connected to before the first command.
func New(deps Deps) (*Operator, error) {
	if deps.Kafka == nil || deps.Writer == nil {
		return nil, errors.New("making the operators' port: no Kafka configuration, or no writer of subscriptions")
	}
	if deps.Patience <= 0 {
		deps.Patience = DefaultPatience
	}
	if deps.RequestTimeout <= 0 {
		deps.RequestTimeout = 15 * time.Second
	}
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	opts, err := deps.Kafka.ClientOpts(deps.Log)
	if err != nil {
		return nil, fmt.Errorf("making the operators' port: %w", err)
	}
	cl, err := kgo.NewClient(append(slices.Clone(opts),
		kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0))...)
	if err != nil {
		return nil, fmt.Errorf("making the operators' port: %w", err)
	}
	return &Operator{deps: deps, cl: cl, fetcher: kafkax.NewFetcher(cl), topics: deps.Kafka.Topics(), now: time.Now}, nil
}

// CatchUpBy says how ResumeOptions.Replay is done; app.NewReplayer does. Call it
// before the operator is used.
func (o *Operator) CatchUpBy(do func(ctx context.Context, who, id string) (*Result, error)) {
	o.catchUp = do
}

// Close lets the connections go. Commands that were given are carried out all
// the same.
func (o *Operator) Close() { o.cl.Close() }

// Outcome is what is known of a command: a closed enum, the results of audit
// entries and one more.
type Outcome string

// The outcomes.
const (
	Done    = Outcome(audit.ResultDone)    // it has taken effect, durably
	Nothing = Outcome(audit.ResultNothing) // nothing was there that it applied to
	Refused = Outcome(audit.ResultRefused) // it is not possible; Detail says why
	Expired = Outcome(audit.ResultExpired) // its turn came too late; it has no effect
	Failed  = Outcome(audit.ResultFailed)  // it was tried and failed: a test
	// Unanswered: no process has answered in time. It is carried out, once, if a
	// process owns the subscription's lanes within command.MaxAge.
	Unanswered = Outcome("unanswered")
)

// Result says what came of a command.
type Result struct {
	ID           string       `json:"id"` // of its audit entry; empty: there is none
	Action       audit.Action `json:"action"`
	Subscription string       `json:"subscription"`
	Outcome      Outcome      `json:"outcome"`
	Detail       string       `json:"detail,omitempty"`   // a short sentence
	Lanes        int          `json:"lanes"`              // that it applied to
	InFlight     int          `json:"in_flight,omitzero"` // of pause: requests that are still under way
	Node         string       `json:"node,omitempty"`     // the process that carried it out
	Revision     int64        `json:"revision,omitzero"`  // of the configuration
	TookMS       int64        `json:"took_ms"`            // until the answer was here
	Test         *audit.Test  `json:"test,omitempty"`
}

// Target says which lanes of a subscription a command is for. Entity and
// Delivery narrow it; empty: all lanes.
type Target struct {
	Subscription string
	Entity       string // only the lane of this entity
	Delivery     string // only the lane whose first delivery has this id
}

// Pause holds the subscription: its deliveries are made and kept, none is sent.
// Requests under way end as they end. It is durable when Pause returns; the
// result says whether the process that owns its lanes has confirmed it. Pausing
// what is paused changes nothing (Nothing). registry.ErrNotFound: there is no
// such subscription; registry.ErrConflict: somebody else was changing one.
func (o *Operator) Pause(ctx context.Context, who, id, reason string) (*Result, error) {
	if reason == "" {
		reason = "by an operator"
	}
	return o.setState(ctx, who, id, pipeline.StatePaused, reason)
}

// ResumeOptions say how to resume.
type ResumeOptions struct {
	// Replay delivers first, in the order of their sources, the events that the
	// subscription missed while it was disabled; live ones are held meanwhile. It
	// returns when these are settled, or ctx ends: then call it again.
	Replay bool
}

// Resume takes back a pause, or that the subscription was disabled. What it
// missed while it was disabled stays missed unless opts say otherwise, and may
// be replayed later. Errors as of Pause; an error, too, where the configuration
// itself says paused or disabled.
func (o *Operator) Resume(ctx context.Context, who, id string, opts ResumeOptions) (*Result, error) {
	if opts.Replay {
		if o.catchUp == nil {
			return nil, errors.New("resuming with what was missed: this process cannot replay")
		}
		return o.catchUp(ctx, who, id)
	}
	return o.setState(ctx, who, id, pipeline.StateActive, "")
}

func (o *Operator) setState(ctx context.Context, who, id string, state pipeline.State, reason string) (*Result, error) {
	begun := time.Now()
	change, err := o.deps.Writer.As(who).SetState(ctx, id, state, reason)
	if err != nil {
		return nil, err
	}
	r := &Result{Action: audit.ActionResume, Subscription: id, Outcome: Done, Revision: change.Revision}
	if state == pipeline.StatePaused {
		r.Action = audit.ActionPause
	}
	if change.Action == registry.Unchanged {
		r.Outcome, r.Detail = Nothing, "it is "+string(state)+" already"
	}
	st, err := o.inspect(ctx, who, id, change.Version, confirmPatience)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s of %s is in force, but asking its process failed: %w", r.Action, id, err)
	case st == nil && r.Outcome == Done:
		r.Detail = "no process owns its lanes now: it applies as soon as one does"
	case st != nil:
		r.Node, r.Lanes = st.Node, st.Lanes
		if state == pipeline.StatePaused {
			r.InFlight = st.InFlight
		}
	}
	r.TookMS = time.Since(begun).Milliseconds()
	return r, nil
}

// Skip ends the first delivery of every waiting lane whose first delivery has
// failed: it goes to dead with reason skipped, and the next one is sent. Nothing:
// no lane waits so, or a request is under way in it.
func (o *Operator) Skip(ctx context.Context, who string, at Target) (*Result, error) {
	return o.give(ctx, who, &at, &command.Command{Kind: command.KindSkip}, o.deps.Patience)
}

// Retry sends the first delivery of every such lane at once. One that had spent
// every attempt (on_exhausted: block) begins a new round of them.
func (o *Operator) Retry(ctx context.Context, who string, at Target) (*Result, error) {
	return o.give(ctx, who, &at, &command.Command{Kind: command.KindRetry}, o.deps.Patience)
}

// TestOptions are the event of a test; the zero value: a sample of hookline's.
type TestOptions struct {
	EventType string
	Payload   []byte // at most command.MaxPayload bytes, sent as it is
}

// Test makes one request to the subscription's endpoint from the process that
// owns its lanes, by the rules by which deliveries are sent (addresses,
// signature, authentication, time limit), whatever its state and whatever waits.
// It is marked by the header X-Hookline-Test, stands in the log, and is not tried
// again. Done: the endpoint took it; Failed: it did not; both have Result.Test.
func (o *Operator) Test(ctx context.Context, who, id string, opts TestOptions) (*Result, error) {
	c := &command.Command{Kind: command.KindTest, EventType: opts.EventType, Payload: opts.Payload}
	return o.give(ctx, who, &Target{Subscription: id}, c, max(o.deps.Patience, o.deps.RequestTimeout+TestPatience))
}

// Status asks the process that owns the subscription's lanes what waits; nil: no
// process has answered.
func (o *Operator) Status(ctx context.Context, who, id string) (*command.Status, error) {
	return o.inspect(ctx, who, id, 0, o.deps.Patience)
}

// StatusAt is Status by a process that has read the registry up to that version.
func (o *Operator) StatusAt(ctx context.Context, who, id string, version int64) (*command.Status, error) {
	return o.inspect(ctx, who, id, version, o.deps.Patience)
}

// MaxStatuses bounds how many subscriptions one Statuses asks for.
const MaxStatuses = 500

// Statuses asks for many subscriptions at once, at most MaxStatuses. Those of
// which no process has told within patience are not in the map.
func (o *Operator) Statuses(ctx context.Context, who string, ids []string, patience time.Duration) (map[string]*command.Status, error) {
	if len(ids) > MaxStatuses {
		return nil, fmt.Errorf("asking what waits: %d subscriptions: at most %d at once", len(ids), MaxStatuses)
	}
	topic := o.topics.Control()
	from, err := o.fetcher.EndOffset(ctx, topic, 0)
	if err != nil {
		return nil, err
	}
	asked := make(map[string]string, len(ids)) // subscriptions by command
	recs := make([]*kgo.Record, 0, len(ids))
	for _, id := range ids {
		rec, c, err := o.record(who, &command.Command{Kind: command.KindInspect, Subscription: id})
		if err != nil {
			return nil, err
		}
		asked[c.ID], recs = id, append(recs, rec)
	}
	out := make(map[string]*command.Status, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	if err := o.cl.ProduceSync(ctx, recs...).FirstErr(); err != nil {
		return nil, fmt.Errorf("writing questions to %s: %w", topic, err)
	}
	_, err = await(ctx, o, topic, from, patience, func(value []byte) *struct{} {
		a, err := command.Parse(value)
		if err != nil || a.Kind != command.KindStatus || asked[a.ID] == "" {
			return nil
		}
		if out[asked[a.ID]] = a.Status; len(out) == len(ids) {
			return &struct{}{}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking what waits: %w", err)
	}
	return out, nil
}

// give sends a command and waits for its audit entry.
func (o *Operator) give(ctx context.Context, who string, at *Target, c *command.Command, patience time.Duration) (*Result, error) {
	begun := time.Now()
	c.Subscription, c.Entity, c.Delivery = at.Subscription, at.Entity, at.Delivery
	version, err := o.registryVersion(ctx)
	if err != nil {
		return nil, err
	}
	c.RegistryVersion = version
	from, err := o.send(ctx, who, c, o.topics.Audit())
	if err != nil {
		return nil, err
	}
	r := &Result{ID: c.ID, Action: audit.Action(c.Kind), Subscription: c.Subscription}
	e, err := await(ctx, o, o.topics.Audit(), from, patience, func(value []byte) *audit.Entry {
		if e, err := audit.Parse(value); err == nil && e.ID == c.ID {
			return e
		}
		return nil
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("waiting for the answer to %s of %s: %w", c.Kind, c.Subscription, err)
	case e == nil:
		r.Outcome = Unanswered
		r.Detail = fmt.Sprintf("no process has answered within %v; it is carried out if one owns the lanes within %v (is a dispatcher running? see hookline_lanes and its log)", patience, command.MaxAge)
	default:
		r.Outcome, r.Detail, r.Lanes, r.Node, r.Test = Outcome(e.Result), e.Detail, e.Lanes, e.Node, e.Test
	}
	r.TookMS = time.Since(begun).Milliseconds()
	return r, nil
}

func (o *Operator) inspect(ctx context.Context, who, id string, version int64, patience time.Duration) (*command.Status, error) {
	c := &command.Command{Kind: command.KindInspect, Subscription: id, RegistryVersion: version}
	from, err := o.send(ctx, who, c, o.topics.Control())
	if err != nil {
		return nil, err
	}
	st, err := await(ctx, o, o.topics.Control(), from, patience, func(value []byte) *command.Status {
		if a, err := command.Parse(value); err == nil && a.Kind == command.KindStatus && a.ID == c.ID {
			return a.Status
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("asking what waits of %s: %w", id, err)
	}
	return st, nil
}

// registryVersion is that of all that was written to the registry up to now.
func (o *Operator) registryVersion(ctx context.Context) (int64, error) {
	end, err := o.fetcher.EndOffset(ctx, o.topics.Subscriptions(), 0)
	if err != nil {
		return 0, err
	}
	return end - 1, nil
}

// send writes the command, and says from where its answer stands in topic.
func (o *Operator) send(ctx context.Context, who string, c *command.Command, topic string) (from int64, err error) {
	rec, _, err := o.record(who, c)
	if err != nil {
		return 0, err
	}
	if from, err = o.fetcher.EndOffset(ctx, topic, 0); err != nil {
		return 0, err
	}
	if err := o.cl.ProduceSync(ctx, rec).FirstErr(); err != nil {
		return 0, fmt.Errorf("writing the command to %s: %w", rec.Topic, err)
	}
	return from, nil
}

// record makes the record of a command, which gets its id and time here.
func (o *Operator) record(who string, c *command.Command) (*kgo.Record, *command.Command, error) {
	c.ID, c.Time, c.Actor = audit.NewID(), o.now().UTC().Truncate(time.Millisecond), who[:min(len(who), audit.MaxActor)]
	value, err := command.Encode(c)
	if err != nil {
		return nil, nil, err
	}
	return &kgo.Record{Topic: o.topics.Control(), Key: []byte(c.Subscription), Value: value}, c, nil
}

// await reads topic from an offset on until find finds something, for at most
// patience; nil: nothing was found in that time.
func await[T any](ctx context.Context, o *Operator, topic string, from int64, patience time.Duration, find func(value []byte) *T) (*T, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); ; {
		recs, next, err := o.fetcher.At(ctx, topic, 0, from, answerBytes)
		if err != nil {
			return nil, err
		}
		for _, rec := range recs {
			if found := find(rec.Value); found != nil {
				return found, nil
			}
		}
		if from = next; len(recs) > 0 {
			continue
		}
		if time.Now().After(deadline) {
			return nil, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
