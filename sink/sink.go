package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/closing"
	"github.com/hookline/hookline/pipeline"
)

// Deps are what a Sink needs from outside. Everything but the functions that
// say so must be set.
type Deps struct {
	// ClientOpts reach and authenticate with Kafka; membership options such as
	// kgo.InstanceID may be among them.
	ClientOpts []kgo.Opt
	// Group is the consumer group, GROUP with ".sink".
	Group string
	// AttemptsTopic and DeadTopic are hookline.attempts and its dead letters.
	AttemptsTopic, DeadTopic string
	// EventTopics to be stored; with EventRegex they are regular expressions.
	EventTopics []string
	EventRegex  bool
	// EventsSince is where the events of a topic begin that was never seen before:
	// the zero time is its start, another the first record since then.
	EventsSince time.Time
	// ParseEvent reads the event record at src; the event's Payload should be a part of
	// the record's value. Called by several goroutines at once. The error is not
	// reported: the router meets the same record.
	ParseEvent func(rec *kgo.Record, src *pipeline.Position) (*pipeline.Event, error)
	// Taken tells whether an event has takers and so is stored. It must say yes
	// when in doubt (a subscription that changed in the last minutes), since a body
	// that was not stored is not shown. Not asked with LogAllEvents. Called by
	// several goroutines at once.
	Taken func(ev *pipeline.Event) bool
	// WebhookCalledTopic takes goflow's webhook_called records; with WebhookCalled
	// it must be named, and ParseEvent be set.
	WebhookCalledTopic string
	// DumpBodyBytes is how much of a request's body those records show.
	DumpBodyBytes int
	// Alone tells that the process neither routes nor delivers: the sink need not leave
	// the processors to that, and catches up as fast as ClickHouse takes it.
	Alone bool
	// Metrics may be nil.
	Metrics Metrics
	// Logger may be nil.
	Logger *slog.Logger
	// Now may be nil: time.Now.
	Now func() time.Time
}

// Metrics is what the sink reports; safe for concurrent use.
type Metrics interface {
	// SinkRows counts rows that ClickHouse has (hookline_sink_rows_total).
	SinkRows(table string, rows int)
	// SinkLag is the age of the oldest record that waits to be stored, 0 where
	// none does (hookline_sink_lag_seconds). Set about once a second.
	SinkLag(age time.Duration)
	// KafkaLag sets the number of records of the attempts topic, of our partitions,
	// that are not stored yet.
	KafkaLag(topic string, records int64)
	// SinkInsertError counts inserts that failed and are repeated
	// (hookline_sink_insert_errors_total).
	SinkInsertError(table string)
	// SinkMissing counts records of a topic that were removed before they were
	// stored (hookline_records_missing_total).
	SinkMissing(topic string, records int64)
	// SinkDead counts records that went to the dead topic, since they, or some of
	// their rows, cannot be stored (hookline_sink_dead_total).
	SinkDead(topic string)
}

type noMetrics struct{}

func (noMetrics) SinkRows(string, int)      {}
func (noMetrics) SinkLag(time.Duration)     {}
func (noMetrics) SinkInsertError(string)    {}
func (noMetrics) SinkMissing(string, int64) {}
func (noMetrics) SinkDead(string)           {}
func (noMetrics) KafkaLag(string, int64)    {}

// Sink stores attempts and events in ClickHouse. Make one with New, then Run it
// once.
type Sink struct {
	cfg    Config
	deps   Deps
	server *server
	begun  chan struct{} // closed by Run once client and admin are set, for kgo's callbacks
	client *kgo.Client
	admin  *kadm.Client
	caller *caller // nil: webhook_called records are not asked for
	health health
	builds chan struct{} // one token for each insert that may be under way
	reads  chan struct{} // one for each declared block that may be read
	grace  time.Duration // graceStop, but in tests
	blocks blockPool
	buffer buffer
	count  atomic.Int64 // of streams with partitions; read without mu by those who hold a stream's lock
	paced  atomic.Int64 // nanoseconds between two inserts of a stream, by how long inserts take; pace writes it
	// active is the number of streams with an insert lately, as of the last one, and
	// waiting that of those with records to store. Both are atomic as count is.
	active, waiting atomic.Int64
	spread          spread
	jobs            sync.WaitGroup // jobs and streams' goroutines

	healing   sync.Mutex         // held by who makes dropped tables anew; guards missing and missed
	missing   time.Time          // since when a table is gone
	missed    time.Time          // when it was last seen to be
	healAfter time.Duration      // the constant, but in tests
	mu        sync.Mutex         // guards what follows; taken before a stream's
	streams   map[string]*stream // by topic
	took      time.Duration      // an insert, about
	fatal     error
	running   context.Context    // Run's, for streams
	stop      context.CancelFunc // ends Run
	cluster   string             // the Kafka cluster's id
}

type partitionID struct {
	topic string
	id    int32
}

// New checks the configuration and prepares; it connects to nothing.
func New(cfg Config, deps Deps) (*Sink, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	switch {
	case deps.Group == "" || deps.AttemptsTopic == "" || deps.DeadTopic == "":
		return nil, errors.New("making the sink: group, attempts topic and dead topic must be named")
	case cfg.WebhookCalled && (deps.WebhookCalledTopic == "" || deps.ParseEvent == nil):
		return nil, errors.New("making the sink: webhook_called records need a topic and ParseEvent")
	case len(deps.EventTopics) > 0 && (deps.ParseEvent == nil || deps.Taken == nil && !cfg.LogAllEvents):
		return nil, errors.New("making the sink: event topics need ParseEvent and Taken")
	}
	if deps.Metrics == nil {
		deps.Metrics = noMetrics{}
	}
	if deps.Logger == nil {
		deps.Logger = slog.New(slog.DiscardHandler)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if cfg.LogAllEvents {
		deps.Taken = func(*pipeline.Event) bool { return true }
	}
	// One connection more than inserts: for the schema.
	srv, err := openServer(&cfg, cfg.Inserts+1)
	if err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, deps: deps, server: srv, begun: make(chan struct{}), builds: make(chan struct{}, cfg.Inserts), reads: make(chan struct{}, 1), grace: graceStop, healAfter: healAfter, streams: map[string]*stream{}}
	s.health.log, s.health.now = deps.Logger, deps.Now
	s.buffer.limit, s.buffer.eager, s.buffer.enough = int64(cfg.BufferBytes), deps.Alone, int64(cfg.BlockBytes)/blockShare
	s.blocks.events = func() *block { return newBlock(tableEvents, newEventRows(deps.ParseEvent, deps.Taken)) }
	return s, nil
}

// Run migrates the schema, as soon as ClickHouse can be reached, and stores
// until ctx ends. It returns nil on a graceful stop: blocks under way are
// finished or left declared, and the group is left. A ClickHouse that is away
// is waited for; an error is returned only where going on is of no use.
func (s *Sink) Run(ctx context.Context) error {
	defer s.server.close()
	if err := s.migrateUntil(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	ctx, s.stop = context.WithCancel(ctx)
	defer s.stop()
	s.running = ctx
	client, err := kgo.NewClient(s.clientOpts()...)
	if err != nil {
		return fmt.Errorf("making the sink's Kafka client: %w", err)
	}
	s.client, s.admin = client, kadm.NewClient(client)
	if s.cfg.WebhookCalled {
		if s.caller, err = newCaller(&s.deps); err != nil {
			client.Close()
			return err
		}
		defer s.caller.client.Close()
	}
	s.buffer.client = client
	close(s.begun)
	defer func() {
		if !closing.Within(closeTimeout, client.CloseAllowingRebalance) { // leaves the group
			s.deps.Logger.Warn("closing the sink's Kafka client takes long; the process does not wait for it")
		}
		s.end(s.take(nil), 0) // those assigned since poll returned
		s.jobs.Wait()
	}()

	var lag sync.WaitGroup
	lag.Go(func() { s.reportLag(ctx) })
	defer lag.Wait()
	s.poll(ctx)
	s.stop()
	s.end(s.take(nil), s.grace)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fatal
}

// migrateUntil repeats until the schema is there, ctx ends, or it is not the
// network's nor the server's passing fault.
func (s *Sink) migrateUntil(ctx context.Context) error {
	for wait := firstRetry; ctx.Err() == nil; wait = min(2*wait, lastRetry) {
		err := s.migrate(ctx)
		if err == nil {
			s.health.ok()
			return nil
		}
		if ctx.Err() != nil {
			break
		}
		s.health.failed(err)
		sleep(ctx, wait)
	}
	return nil
}

func (s *Sink) clientOpts() []kgo.Opt {
	topics := []string{s.deps.AttemptsTopic}
	opts := slices.Clone(s.deps.ClientOpts)
	if s.deps.EventRegex {
		topics[0] = "^" + regexp.QuoteMeta(s.deps.AttemptsTopic) + "$"
		opts = append(opts, kgo.ConsumeRegex())
	}
	return append(opts,
		kgo.ConsumerGroup(s.deps.Group),
		kgo.ConsumeTopics(append(topics, s.deps.EventTopics...)...),
		kgo.DisableAutoCommit(),
		// Aborted events were never routed.
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		// Beyond the log's start: retention passed, which onFetched reports. The
		// client's default would skip to a minute ago.
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchMaxBytes(fetchBytes),
		kgo.FetchMinBytes(fetchMinBytes),
		kgo.FetchMaxWait(s.fetchMaxWait()),
		kgo.FetchMaxPartitionBytes(fetchPartitionBytes),
		kgo.MaxConcurrentFetches(fetchesAtOnce),
		// Records that were polled before a revocation must not reach the partition
		// of a later assignment.
		kgo.BlockRebalanceOnPoll(),
		kgo.OnPartitionsRevoked(s.onRevoked),
		kgo.OnPartitionsLost(s.onLost),
		kgo.OnOffsetsFetched(s.onFetched),
		kgo.AdjustFetchOffsetsFn(s.adjustOffsets),
	)
}

// fetchMaxWait is how long a broker may wait until it has fetchMinBytes: little
// beside the time between two inserts. Answered whenever there is a record, as
// kgo asks by default, a sink under a tenth of the load that the machine could
// carry fetched 290 times a second, a few records at a time.
func (s *Sink) fetchMaxWait() time.Duration {
	return max(min(s.cfg.FlushInterval/4, maxFetchWait), minFetchWait)
}

// closeTimeout bounds the wait for the group's client to close.
const closeTimeout = 2 * time.Second

const (
	fetchMinBytes = 1 << 20
	maxFetchWait  = 250 * time.Millisecond
	minFetchWait  = 10 * time.Millisecond // the least that the client allows
)

// What a process fetches ahead, beside BufferBytes.
const (
	fetchBytes          = 4 << 20
	fetchPartitionBytes = 2 << 20
	fetchesAtOnce       = 3
)

// poll hands records to their partitions until ctx ends.
func (s *Sink) poll(ctx context.Context) {
	for ctx.Err() == nil {
		fetches := s.client.PollRecords(ctx, pollRecords)
		if fetches.IsClientClosed() {
			return
		}
		failed := false
		fetches.EachError(func(topic string, id int32, err error) {
			if ctx.Err() == nil {
				failed = true
				s.health.unreadable(fetchError(topic, id, err))
			}
		})
		if !failed && fetches.NumRecords() > 0 {
			s.health.read()
		}
		fetches.EachPartition(func(p kgo.FetchTopicPartition) {
			if len(p.Records) == 0 {
				return
			}
			if to := s.stream(p.Topic); to != nil {
				to.push(p.Partition, p.Records, p.LogStartOffset)
			}
		})
		s.client.AllowRebalance()
		s.throttle()
		s.hurry()
		if failed && fetches.NumRecords() == 0 {
			// Some failures, as that of a permission, come back at once, again and again.
			select {
			case <-time.After(fetchPause):
			case <-ctx.Done():
			}
		}
	}
}

// fetchError says what could not be fetched; kgo tells of its group without a topic.
func fetchError(topic string, partition int32, err error) error {
	if topic == "" {
		return fmt.Errorf("keeping up the group membership: %w", err)
	}
	return fmt.Errorf("fetching %s/%d: %w", topic, partition, err)
}

// fetchPause between two polls that bring nothing but errors.
const fetchPause = 250 * time.Millisecond

// blockShare: where little room is left, less than that part of a full block is not
// worth an insert.
const blockShare = 32

// pollRecords at most per poll, so that the buffer's limit is kept closely.
const pollRecords = 10_000

// throttle pauses fetching where too much waits to be stored.
func (s *Sink) throttle() {
	if !s.buffer.full() {
		return
	}
	var ids []partitionID
	for _, st := range s.all() {
		ids = append(ids, st.ids()...)
	}
	s.buffer.pause(ids)
}

// hurry wakes the streams that wait for their turn while little room is left: what
// fills the buffer may be another's, and then nobody else does. Called by the poll
// loop only, after throttle, and after each poll: between two there may have been room,
// and a stream that looked then waits for its interval.
func (s *Sink) hurry() {
	if !s.buffer.filling() {
		return
	}
	for _, st := range s.all() {
		st.nudge()
	}
}

// all gives the streams.
func (s *Sink) all() (list []*stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, st := range s.streams {
		list = append(list, st)
	}
	return list
}

// stream of a topic; nil: none of its partitions was ever ours.
func (s *Sink) stream(topic string) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.streams[topic]
}

// How much longer than FlushInterval an insert may be waited for. Each takes
// ClickHouse tens of milliseconds of CPU time however few rows it has: a part of
// each table, view and projection, which is merged with others later.
const (
	// insertShare: where inserts, one after another, take more than this share of the
	// time, they become fewer and larger.
	insertShare = 0.2
	// maxStretch of FlushInterval for that.
	maxStretch = 5
	// activeFor is how long a stream counts after an insert.
	activeFor = 10 * time.Second
)

// interval between two inserts of one stream that are not full.
func (s *Sink) interval() time.Duration {
	const atOnce = 16
	least := s.cfg.FlushInterval * time.Duration((s.count.Load()+atOnce-1)/atOnce)
	if s.buffer.filling() {
		return least
	}
	return max(least, min(time.Duration(s.paced.Load()), maxStretch*s.cfg.FlushInterval))
}

// turn is when a stream whose insert is due may have it: those of all streams
// are spread over the interval. Asked by those who hold a stream's lock.
//
// Where few ask, as after a pause, they need no more of it than inserts may take
// (insertShare): a lone event's rows are not kept for the whole interval.
func (s *Sink) turn(now time.Time) time.Time {
	interval, active := s.interval(), s.active.Load()
	enough := max(interval/time.Duration(max(1, s.count.Load())), time.Duration(s.paced.Load()/max(1, active)))
	return s.spread.next(now, min(enough, interval/time.Duration(max(1, active, s.waiting.Load()))), interval)
}

// spread hands out turns, in the order in which they are asked for. After a pause all
// streams of a process have their first records at once, and then are due at once
// again and again: inserts, one behind the other, take all processors of a
// small machine for half a second, and what is to be delivered waits.
type spread struct {
	mu   sync.Mutex // guards last
	last time.Time  // turn that was handed out
}

// next is the first turn that is at least gap after the last one, not before now, and
// not after the interval.
func (s *spread) next(now time.Time, gap, interval time.Duration) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = s.last.Add(gap)
	if s.last.Before(now) {
		s.last = now
	}
	if end := now.Add(interval); s.last.After(end) {
		s.last = end
	}
	return s.last
}

// pace notes how long an insert took, and with that how often each stream may
// have one.
func (s *Sink) pace(now time.Time, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	active := int64(0)
	for _, st := range s.streams {
		if now.UnixNano()-st.inserted.Load() < int64(activeFor) {
			active++
		}
	}
	s.active.Store(active)
	s.took += (took - s.took) / 8 // a mean of the last ones
	s.paced.Store(int64(float64(s.took) * float64(active) / insertShare))
}

// fail ends Run with err; the first one counts.
func (s *Sink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fatal == nil {
		s.fatal = err
	}
	s.stop()
}

// Lag is the age of the oldest record that waits to be stored; 0: none waits.
func (s *Sink) Lag() time.Duration {
	var oldest time.Time
	for _, st := range s.all() {
		if t := st.oldest(); !t.IsZero() && (oldest.IsZero() || t.Before(oldest)) {
			oldest = t
		}
	}
	if oldest.IsZero() {
		return 0
	}
	return max(0, s.deps.Now().Sub(oldest))
}

func (s *Sink) reportLag(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			s.deps.Metrics.SinkLag(s.Lag())
		}
		if n%kafkaLagEvery == 0 {
			s.reportKafkaLag(ctx)
		}
	}
}

// kafkaLagEvery is how often the lag in records is measured, in seconds.
const kafkaLagEvery = 5

func (s *Sink) reportKafkaLag(ctx context.Context) {
	topic := s.deps.AttemptsTopic
	ctx, cancel := context.WithTimeout(ctx, kafkaLagEvery*time.Second)
	defer cancel()
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		s.deps.Logger.Debug("measuring the lag", "error", err)
		return
	}
	var lag int64
	if st := s.stream(topic); st != nil {
		lag = st.lag(ends[topic])
	}
	s.deps.Metrics.KafkaLag(topic, lag)
}

// Ready tells whether ClickHouse has been reached since the start. It stays
// true when ClickHouse goes away: see Healthy.
func (s *Sink) Ready() bool { return s.health.ready() }

// Healthy returns nil, or why ClickHouse cannot be used now: the sink is
// degraded then, and catches up later.
func (s *Sink) Healthy() error { return s.health.err() }

// sleep waits for d or the end of ctx.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
