package router

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// sessionTimeout is how long a silent member keeps its partitions.
	sessionTimeout = 8 * time.Second
	// heartbeatInterval finds out about a rebalance soon.
	heartbeatInterval = 2 * time.Second
	// transactionTimeout: an orphan's open transaction holds back every reader
	// of deliveries for as long.
	transactionTimeout = 10 * time.Second
	// metadataMaxAge is how late a new topic or partition may be noticed.
	metadataMaxAge = 15 * time.Second
	// stopTimeout bounds the last transaction after a stop. With what follows it
	// stays below 10 s: a request timeout of 5 s and the 5 s that a stop may take
	// beyond it.
	stopTimeout = 5 * time.Second
	// leaveTimeout bounds each step of leaving the group. In the middle of a
	// rebalance the client would wait until a silent member's session has ended;
	// not to have left costs no more than that.
	leaveTimeout = 2 * time.Second
	// closeTimeout bounds, at a stop, what the client does to leave once more.
	closeTimeout = time.Second
	// readyPoll is how often the router looks whether the registry was read.
	readyPoll = 20 * time.Millisecond
	// freshPoll is how often it looks whether changes of it were read.
	freshPoll = 5 * time.Millisecond
	// pollRecords is the most that one poll hands over.
	pollRecords = 2000
	// staleAfter is how old the knowledge of the subscriptions may be when events
	// are matched by it: a change is in force for all events that are produced so
	// long after it. The registry asks for changes twice a second.
	staleAfter = 2 * time.Second
	// freshWait bounds how long a transaction waits for what the broker has that
	// was not fetched yet: several times what a fetch takes on a busy broker
	// (3 ms in the median, 10 ms in one of ten).
	freshWait = 10 * time.Millisecond
	// Backoff between sessions, and after aborted transactions.
	minBackoff = 50 * time.Millisecond
	maxBackoff = 5 * time.Second
	// warnInterval: the same kind of warning is written once in it.
	warnInterval = time.Second
	// fetchBytes bounds what the client holds of one broker's answer.
	fetchBytes = 4 << 20
)

// Router routes events. Use New.
type Router struct {
	cfg     Config
	kafka   *kafkax.Config
	cluster string
	parse   Parser
	// newParse makes a parser for another goroutine.
	newParse  func() Parser
	memoryIDs int // most that a memory holds
	matcher   func() Matcher
	readAt    func() time.Time // nil: the matcher is always as of now
	metrics   Metrics
	tracer    Tracer // nil: none
	log       *slog.Logger
	opts      []kgo.Opt
	txnID     string
	hook      func(context.Context) error

	deliveries, eventsDead string

	// warned is when each message was last written, and how many were left out
	// since. Written and read by Run's goroutine; its keys are our own messages.
	warned map[string]warning

	written       written // what the transactions of late wrote; of Run's goroutine
	stable        stability
	aheadFailures atomic.Int32  // of looking for what is ahead, one after the other
	freshWait     time.Duration // instead of the constant in tests
	openPatience  time.Duration // the same
	aheadSlack    time.Duration // the same
	unstableLimit time.Duration // for how long offsets may be unstable; tests have a shorter one

	// idle is true from a poll's begin until it brings records; tests read it.
	idle atomic.Bool
}

// New checks the configuration and makes a Router; it does no I/O but reading
// the files that the Kafka configuration names.
func New(cfg Config, deps Deps) (*Router, error) {
	if cfg.Interval == 0 {
		cfg.Interval = DefaultInterval
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if deps.Kafka == nil || deps.Matcher == nil {
		panic("BUG: a router needs Deps.Kafka and Deps.Matcher")
	}
	r := &Router{
		cfg: cfg, kafka: deps.Kafka, cluster: deps.Cluster, parse: deps.Parse, matcher: deps.Matcher, readAt: deps.MatcherReadAt, metrics: deps.Metrics, tracer: deps.Tracer, log: deps.Log,
		deliveries: deps.Kafka.Topics().Deliveries(), eventsDead: deps.Kafka.Topics().EventsDead(), hook: deps.beforeEnd,
		warned: map[string]warning{}, newParse: func() Parser { return deps.Parse }, memoryIDs: cmp.Or(deps.memoryIDs, maxMemoryIDs),
		freshWait:     cmp.Or(deps.freshWait, freshWait),
		openPatience:  cmp.Or(deps.openPatience, openPatience),
		aheadSlack:    cmp.Or(deps.aheadSlack, aheadSlack),
		unstableLimit: cmp.Or(deps.unstableLimit, unstableLimit),
	}
	if r.parse == nil {
		r.newParse = NewParser
		r.parse = NewParser()
	}
	if r.metrics == nil {
		r.metrics = noMetrics{}
	}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	own := map[string]bool{}
	for _, s := range r.kafka.Settings() {
		own[s.Topic] = true
	}
	specs := make(TopicSpecs, len(cfg.EventsTopics))
	copy(specs, cfg.EventsTopics)
	r.cfg.EventsTopics = specs
	for i := range specs {
		specs[i].Options.MaxBytes = int(r.kafka.EventMaxBytes)
		if specs[i].Pattern == nil && own[specs[i].Topic] {
			return nil, fmt.Errorf("checking HOOKLINE_EVENTS_TOPICS: %s is one of hookline's own topics", specs[i].Topic)
		}
	}
	instance := r.kafka.InstanceID
	if instance == "" {
		instance = rand.Text()
	}
	r.txnID = r.kafka.RouterGroup() + "." + instance
	base, err := r.kafka.ClientOpts(r.log)
	if err != nil {
		return nil, err
	}
	r.opts = append(base, deps.Opts...)
	return r, nil
}

// sessionOpts are the options of the client that consumes and produces.
func (r *Router) sessionOpts(s *starter) []kgo.Opt {
	opts := append([]kgo.Opt{}, r.opts...)
	opts = append(opts,
		kgo.ConsumerGroup(r.kafka.RouterGroup()),
		kgo.TransactionalID(r.txnID),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.DisableAutoCommit(),
		kgo.OnPartitionsAssigned(s.assigned),
		kgo.OnPartitionsRevoked(s.revoked),
		kgo.OnPartitionsLost(s.revoked),
		kgo.AdjustFetchOffsetsFn(s.adjust),
		// Never skip: where the log lost what was committed, it is read from where
		// the logs part, or from its start; what retention removed is reported.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(sessionTimeout),
		kgo.HeartbeatInterval(heartbeatInterval),
		kgo.MetadataMaxAge(metadataMaxAge),
		kgo.FetchMaxWait(500*time.Millisecond),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(maxSettle), // settling says when; the end of a transaction does not wait for it
		r.kafka.ProducerCompression(),
		kgo.MaxBufferedRecords(batchRecords),
		kgo.MaxBufferedBytes(max(2*batchBytes, 2*r.kafka.MaxMessageBytes())),
	)
	if id := r.kafka.InstanceID; id != "" {
		// Static members only with an eager balancer: static and cooperative left
		// partitions without an owner after a crash.
		opts = append(opts, kgo.InstanceID(id), kgo.Balancers(kgo.StickyBalancer()))
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	return append(opts, r.topicOpts()...)
}

func (r *Router) topicOpts() []kgo.Opt {
	var names, patterns []string
	regex := false
	for i := range r.cfg.EventsTopics {
		s := &r.cfg.EventsTopics[i]
		names = append(names, s.Topic)
		if s.Pattern != nil {
			regex = true
			patterns = append(patterns, s.Pattern.String())
		} else {
			patterns = append(patterns, "^"+regexp.QuoteMeta(s.Topic)+"$")
		}
	}
	if !regex {
		return []kgo.Opt{kgo.ConsumeTopics(names...)}
	}
	var own []string
	for _, s := range r.kafka.Settings() {
		own = append(own, "^"+regexp.QuoteMeta(s.Topic)+"$")
	}
	return []kgo.Opt{kgo.ConsumeRegex(), kgo.ConsumeTopics(patterns...), kgo.ConsumeExcludeTopics(own...)}
}

// Run routes until ctx is done: it ends the batch at hand, commits it and leaves
// the group. What passes is retried for as long as it takes: a broker outage, a
// rebalance, a fenced session (which is made anew).
func (r *Router) Run(ctx context.Context) error {
	if !r.awaitRegistry(ctx) {
		return nil
	}
	r.lookBehind(ctx)
	for failures := 0; ; failures++ {
		began := time.Now()
		err := r.session(ctx)
		if crash, ok := errors.AsType[*hookError](err); ok {
			return crash.err
		}
		if ctx.Err() != nil {
			if err != nil {
				r.log.Warn("the router's last batch was not committed; it will be routed again", "error", err)
			}
			return nil
		}
		if time.Since(began) > time.Minute {
			failures = 0
		}
		attrs := []any{"error", err}
		if kafkax.IsFenced(err) && r.kafka.InstanceID != "" {
			attrs = append(attrs, "remedy", "HOOKLINE_INSTANCE_ID="+r.kafka.InstanceID+" must not be used by two live processes")
		}
		r.warn("routing session failed; making a new one", attrs...)
		if !sleep(ctx, min(minBackoff<<min(failures, 10), maxBackoff)) {
			return nil
		}
	}
}

// awaitRegistry is true when the registry has been read to its end.
func (r *Router) awaitRegistry(ctx context.Context) bool {
	for r.matcher() == nil {
		if !sleep(ctx, readyPoll) {
			return false
		}
	}
	return ctx.Err() == nil
}

// current gives the newest matcher, as soon as it is known to be not older than
// staleAfter; nil: ctx ended.
//
// A process that was frozen for five seconds, and still has its partitions, would
// else do this: it wakes, its poll brings the events of these five seconds, and it
// matches them before its registry has read what was applied meanwhile. Nobody
// routes them again.
func (r *Router) current(ctx context.Context) Matcher {
	for now, told := time.Now(), time.Now(); r.readAt != nil && now.Sub(r.readAt()) > staleAfter; {
		if since := time.Since(told); since > maxBackoff {
			told = time.Now()
			r.warn("routing waits until the subscriptions can be read", "read_at", r.readAt(),
				"remedy", "see what the log says of the registry's topic")
		}
		if !sleep(ctx, freshPoll) {
			return nil
		}
	}
	return r.matcher()
}

// warning is what is known of one message.
type warning struct {
	at         time.Time
	suppressed int
}

// warn writes the same message at most once in warnInterval.
func (r *Router) warn(msg string, attrs ...any) {
	w, now := r.warned[msg], time.Now()
	if now.Sub(w.at) < warnInterval {
		w.suppressed++
		r.warned[msg] = w
		return
	}
	if w.suppressed > 0 {
		attrs = append(attrs, "suppressed", w.suppressed)
	}
	r.warned[msg] = warning{at: now}
	r.log.Warn(msg, attrs...)
}

// sleep is false if ctx ended before d.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
