package dispatch

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Dispatcher owns tasks and makes their deliveries. Run it once.
type Dispatcher struct {
	cfg    Config
	lanes  lane.Config
	deps   Deps
	log    *slog.Logger
	topics kafkax.Topics
	// deliveriesTopic is made once: it is asked for with every record.
	deliveriesTopic string
	group           string
	txnID           string
	base            []kgo.Opt
	now             func() time.Time
	started         atomic.Bool // all partitions of the first assignment are recovered

	// Clients; made by open, closed by close.
	member   atomic.Pointer[kgo.Client] // membership; fetches nothing; written by join
	fetch    *kgo.Client                // deliveries/p and retry.k/p of our tasks
	attempts atomic.Pointer[kgo.Client] // the attempts topic, outside of transactions
	reader   *kgo.Client                // what is read by offset; admin requests
	operator *kgo.Client                // the topic of operators' commands
	txn      *transactor
	written  written     // what txn has committed
	suspect  atomic.Bool // something hangs that txn may have committed: it looks before it goes on
	fetcher  *kafkax.Fetcher
	commands *kafkax.Fetcher // waits at the broker for them
	adm      *kadm.Client

	attemptsPartitions int32

	// The loop's own; nobody else touches them.
	view        pipeline.Subscriptions
	tasks       map[int32]*ownedTask
	droppedAt   map[int32]uint64 // the number of the poll under way when a partition's last task was dropped
	memberID    string           // the member that the tasks were assigned to; empty: none yet
	generation  int32            // of the group, at the last assignment
	adrift      bool             // the session was interrupted: see interrupt
	uncommitted time.Time        // since when nothing that was cut has committed; zero: nothing waits
	sched       *lane.Scheduler
	slots       slots
	nworkers    int // goroutines of work
	mostBlocked int // jobs that workers had at once, since the last retire
	blocked     int // jobs that workers have
	rescans     int // under way
	lastCut     time.Time
	commit      *commitRun // under way; nil: none
	encoders    []*attemptEncoder
	releasing   []*release
	localRows   map[string]time.Time // delivery id -> last row of a local error
	stopping    bool

	noticeSecond               time.Time // the second in which so many notices were logged, and so many not
	noticesSaid, noticesUnsaid int

	final           *release       // the graceful stop's
	left            chan struct{}  // closed when the group has been left
	cutNow          bool           // a release waits for a commit
	committing      sync.WaitGroup // the commit under way; leaving
	fatal           error
	spareJobs       []*job
	tries           uint64           // attempts logged by this process
	row             pipeline.Attempt // the attempt being logged
	acks            *ackGroup        // of attempt batches since the last cut
	oldAcks         []*ackGroup      // of cuts that were aborted
	resends         sync.WaitGroup
	rescanning      sync.WaitGroup
	attemptBytes    atomic.Int64       // of attempt batches that wait for Kafka
	spareBatches    sync.Pool          // of *[]byte: the memory of batches that Kafka has
	abandon         context.CancelFunc // ends inner: a stop waits no longer for Kafka
	recovering      context.Context    // ends when a stop begins
	stopRecovering  context.CancelFunc
	knownID         atomic.Value        // string: memberID, for the gate; written by the loop
	recoveries      map[int32]*recovery // under way or done; the group callbacks' own
	recoverySlots   chan struct{}       // of partitions that are recovered at once
	rejoins         sync.WaitGroup      // recoveries; a rejoin
	rejoining       bool                // a new member client is being made; the loop's
	recoveringCount atomic.Int32        // partitions that are being recovered

	routed atomic.Pointer[routedAt] // written by open, then by the watchdog
	stable stability
	// For how long offsets and records may wait for a transaction; tests have shorter ones.
	unstableLimit, heldLimit time.Duration

	control controlState   // operators' commands
	testing sync.WaitGroup // test requests under way

	// What reaches the loop.
	finished mailbox[*job]
	fetched  chan fetchedRecords
	polls    polls
	calls    chan func()
	commits  chan *commitRun
	loopDone chan struct{} // closed when the loop has ended
	over     chan struct{} // closed when no request is under way any more after that

	// What leaves it.
	jobs     chan *job
	workers  sync.WaitGroup
	batch    pipeline.Batch  // of a sender that needs no worker for each request; else nil
	starting []*pipeline.Try // for it; the loop's own
	parked   *parkedCache
}

// ownedTask is a task with what of its input could not be fed yet.
type ownedTask struct {
	*lane.Task
	deliveries []*lane.Record    // fetched, not fed
	aheadBytes int               // of them
	retry      [3][]*retryRecord // fetched, not fed
	paused     [4]bool           // deliveries, retry.1..3
	passed     int64             // behind the last end of a transaction in deliveries, if that came last
	// controlRead is the next offset of operators' commands to take in; those
	// that were, and are for this task, wait in commands.
	controlRead int64
	commands    []*givenCommand
	// withdrawn: the task is no longer ours; asked by senders before the first byte.
	withdrawn atomic.Bool
}

// New makes a Dispatcher. Nothing is started.
func New(cfg Config, deps Deps) (*Dispatcher, error) {
	if err := errors.Join(cfg.Validate(), deps.validate()); err != nil {
		return nil, err
	}
	base, err := deps.Kafka.ClientOpts(deps.Log)
	if err != nil {
		return nil, err
	}
	d := &Dispatcher{
		cfg: cfg, lanes: cfg.Lane(), deps: deps, log: deps.Log, topics: deps.Kafka.Topics(), deliveriesTopic: deps.Kafka.Topics().Deliveries(),
		group: deps.Kafka.DispatcherGroup(), base: base, now: time.Now,
		recoveries: map[int32]*recovery{}, recoverySlots: make(chan struct{}, recoveriesAtOnce), tasks: map[int32]*ownedTask{}, droppedAt: map[int32]uint64{}, sched: &lane.Scheduler{}, localRows: map[string]time.Time{},
		fetched: make(chan fetchedRecords), calls: make(chan func()), commits: make(chan *commitRun, 1),
		loopDone: make(chan struct{}), over: make(chan struct{}), jobs: make(chan *job, cfg.MaxInFlight+cfg.MaxSlow), acks: newAckGroup(),
		control: newControlState(), unstableLimit: cmp.Or(deps.unstableLimit, unstableLimit), heldLimit: cmp.Or(deps.unstableLimit, heldLimit),
	}
	d.finished.init()
	d.slots.init(&d.cfg)
	d.txnID = transactionalID(d.group, deps.Kafka.InstanceID)
	return d, nil
}

// transactionalID names the process's transactions: by its instance id, so
// that its successor fences it and ends what it left open, else at random.
func transactionalID(group, instance string) string {
	if instance != "" {
		return group + "." + instance
	}
	var b [8]byte
	_, _ = rand.Read(b[:]) // crypto/rand.Read never fails
	return group + "." + hex.EncodeToString(b[:])
}

// Ready tells that every partition of the current assignment is recovered, and
// that the session is not interrupted.
func (d *Dispatcher) Ready() bool { return d.started.Load() }

// Run delivers until ctx ends, then stops gracefully: no new requests, those
// under way are waited for (at most the request timeout), everything is
// committed, the group is left. It returns nil then, and an error where the
// dispatcher cannot go on.
func (d *Dispatcher) Run(ctx context.Context) error {
	d.view = d.deps.Registry.View()
	if d.view == nil {
		return errors.New("BUG: the dispatcher was started before the registry was read")
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	d.abandon = cancel
	d.recovering, d.stopRecovering = context.WithCancel(inner)
	if err := d.open(ctx); err != nil {
		d.closeClients()
		if ctx.Err() != nil {
			return nil // told to stop before it had begun
		}
		return fmt.Errorf("starting the dispatcher: %w", err)
	}
	if b, ok := d.deps.Sender.(pipeline.Batcher); ok {
		if b, ok := b.Batch(d.ended); ok {
			d.batch = b
			defer b.Close() // nothing is left in it by then
		}
	}
	var side sync.WaitGroup
	side.Go(func() { d.pollLoop(inner) })
	side.Go(func() { d.housekeep(inner) })
	if err := d.join(); err == nil {
		side.Go(func() { d.keepGate(inner) })
		side.Go(func() { d.readControl(inner) })
		side.Go(func() { d.watchStable(inner) })
		side.Go(func() { (&watchdog{d: d, since: map[int32]time.Time{}}).run(inner) })
		d.loop(ctx, inner)
	} else {
		d.fatal = err
		close(d.loopDone)
	}
	d.flushLast()
	cancel()
	close(d.jobs)
	d.workers.Wait()
	close(d.over)
	d.rejoins.Wait()
	d.rescanning.Wait()
	d.testing.Wait()
	d.closeClients()
	side.Wait()
	d.resends.Wait()
	return d.fatal
}

// flushLast gives attempts that no transaction waited for a last chance.
func (d *Dispatcher) flushLast() {
	ctx, cancel := context.WithTimeout(context.Background(), leaveTimeout)
	defer cancel()
	if err := d.attempts.Load().Flush(ctx); err != nil {
		d.log.Warn("writing the last attempts", "err", err)
	}
}

// call runs f in the loop and waits for it; false: the loop has ended.
func (d *Dispatcher) call(f func()) bool {
	done := make(chan struct{})
	select {
	case d.calls <- func() { f(); close(done) }:
	case <-d.loopDone:
		return false
	}
	select {
	case <-done:
		return true
	case <-d.loopDone:
		return false
	}
}

// mailbox collects values for the loop; a value in C says that there are some.
type mailbox[T any] struct {
	mu    sync.Mutex
	items []T
	C     chan struct{}
}

func (m *mailbox[T]) init() { m.C = make(chan struct{}, 1) }

// put adds vs, of which there is at least one. Called by workers.
func (m *mailbox[T]) put(vs ...T) {
	m.mu.Lock()
	first := len(m.items) == 0
	m.items = append(m.items, vs...)
	m.mu.Unlock()
	if first {
		select {
		case m.C <- struct{}{}:
		default:
		}
	}
}

// take swaps what is there for spare, which is reused. Called by the loop.
func (m *mailbox[T]) take(spare []T) []T {
	m.mu.Lock()
	defer m.mu.Unlock()
	items := m.items
	m.items = spare[:0]
	return items
}
