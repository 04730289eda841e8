package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/closing"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// heartbeats per session: often enough that the gate, at half the session,
// stays open through two lost ones.
const heartbeatsPerSession = 10

// closeTimeout bounds the wait for the member's client to close.
const closeTimeout = 2 * time.Second

// topicsPatience: how long the topics may take to become known at start.
const topicsPatience = 5 * time.Second

// recoveriesAtOnce is how many tasks are recovered at once.
const recoveriesAtOnce = 4

// open makes every client but the member.
func (d *Dispatcher) open(ctx context.Context) error {
	var err error
	d.fetch, err = kgo.NewClient(append(slices.Clone(d.base),
		kgo.ConsumePartitions(nil),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // skipping would be loss
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they tell how far retry.* has been read, where the last records are not to be read
		kgo.FetchMaxWait(fetchMaxWait),
		kgo.FetchMaxBytes(fetchMaxBytes),
		kgo.FetchMaxPartitionBytes(fetchMaxPartitionBytes),
	)...)
	if err != nil {
		return fmt.Errorf("making the fetch client: %w", err)
	}
	// A client of its own: a broker answers the requests of one connection in
	// turn, and the consumer's wait at the broker until there is something.
	d.reader, err = kgo.NewClient(d.base...)
	if err != nil {
		return fmt.Errorf("making the reading client: %w", err)
	}
	d.adm = kadm.NewClient(d.reader)
	d.fetcher = kafkax.NewFetcher(d.reader)
	if d.operator, err = kgo.NewClient(d.base...); err != nil {
		return fmt.Errorf("making the client for operators' commands: %w", err)
	}
	d.commands = kafkax.NewFetcher(d.operator).Waiting(controlWait)
	d.parked = newParkedCache(d.fetcher, d.topics.Parked())
	attempts, err := d.newAttemptsClient()
	if err != nil {
		return err
	}
	d.attempts.Store(attempts)
	waits := func(err error) { d.log.Warn("delivering waits until Kafka lets it begin", "err", err) }
	if d.attemptsPartitions, err = d.awaitTopics(ctx, waits); err != nil {
		return err
	}
	d.encoders = make([]*attemptEncoder, d.attemptsPartitions)
	d.lookAtRouter(ctx)
	var left kafkax.Left
	if err := kafkax.Recall(ctx, d.reader, waits, func() error { return d.restoreLeft(ctx, &left) }); err != nil && ctx.Err() == nil {
		d.log.Warn(kafkax.LeftUnknown, "err", err)
	}
	return kafkax.Persist(ctx, waits, func() error {
		d.txn, err = d.newTransactor(ctx)
		return err
	})
}

// awaitTopics waits until the broker knows the topics: one that was made a
// moment ago may not have reached it yet. It returns the number of partitions
// of attempts.
func (d *Dispatcher) awaitTopics(ctx context.Context, waits func(error)) (int32, error) {
	var deadline time.Time
	for {
		needed := []string{d.topics.Deliveries(), d.topics.Attempts(), d.topics.Notices()}
		var md kadm.TopicDetails
		if err := kafkax.Persist(ctx, waits, func() (err error) {
			md, err = d.adm.ListTopics(ctx, needed...)
			return err
		}); err != nil {
			return 0, fmt.Errorf("reading metadata: %w", err)
		}
		if deadline.IsZero() { // it has answered
			deadline = time.Now().Add(topicsPatience)
		}
		missing := ""
		for _, t := range needed {
			if len(md[t].Partitions) == 0 {
				missing = t
			}
		}
		if missing == "" {
			return int32(len(md[d.topics.Attempts()].Partitions)), nil
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("reading metadata: topic %s does not exist (run `hookline topics`)", missing)
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// join makes the member client, which joins the group.
func (d *Dispatcher) join() error {
	session := time.Duration(d.cfg.SessionTimeout)
	opts := append(append(slices.Clone(d.base), kafkax.SessionOpts(session)...),
		kgo.ConsumerGroup(d.group),
		kgo.ConsumeTopics(d.topics.Deliveries()),
		kgo.DisableAutoCommit(),
		// A revoke waits for requests under way.
		kgo.RebalanceTimeout(d.deps.RequestTimeout+30*time.Second),
		kgo.WithHooks(manageErrors{d}),
		kgo.OnPartitionsAssigned(func(ctx context.Context, _ *kgo.Client, m map[string][]int32) {
			d.assigned(ctx, m[d.topics.Deliveries()])
		}),
		kgo.OnPartitionsRevoked(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			d.revoked(m[d.topics.Deliveries()])
		}),
		kgo.OnPartitionsLost(func(_ context.Context, _ *kgo.Client, m map[string][]int32) {
			d.lost(m[d.topics.Deliveries()])
		}),
	)
	// Static membership works with the eager sticky balancer alone: static with
	// cooperative, and with KIP-848, left partitions unowned after a crash.
	if id := d.deps.Kafka.InstanceID; id != "" {
		opts = append(opts, kgo.InstanceID(id), kgo.Balancers(kgo.StickyBalancer()))
	} else {
		opts = append(opts, kgo.Balancers(kgo.CooperativeStickyBalancer()))
	}
	cl, err := kgo.NewClient(opts...)
	if err != nil {
		return fmt.Errorf("making the group client: %w", err)
	}
	cl.PauseFetchTopics(d.topics.Deliveries())
	d.member.Store(cl)
	return nil
}

// membership is the member under which the tasks may commit. False: there is
// none at the moment, or it is not the one that they were assigned to.
//
// The interleaving that it is for: a rebalance is on; our join is on its way
// while we are frozen for longer than the session; another process gets our
// partitions and works; our join is answered with UNKNOWN_MEMBER_ID, upon which
// kgo joins as a new member without a word. Kafka would take the old tasks'
// commits under the new member's generation: it checks no ownership.
func (d *Dispatcher) membership() (kafkax.Member, bool) {
	if d.adrift {
		return kafkax.Member{}, false
	}
	id, generation := d.member.Load().GroupMetadata()
	if id == "" || generation < 0 {
		return kafkax.Member{}, false
	}
	if d.memberID != "" && id != d.memberID {
		d.expel(becameAnother)
		return kafkax.Member{}, false
	}
	return kafkax.Member{ID: id, Generation: generation, Instance: d.deps.Kafka.InstanceID}, true
}

// becameAnother is why tasks are dropped of a member that is another one now.
const becameAnother = "the session ended while the group was rebalancing"

// expel drops every task and joins anew with a new client: kgo would report no
// partition that the old member had and the new one gets again. In the loop.
func (d *Dispatcher) expel(why string) {
	d.log.Warn("partitions lost: "+why, "partitions", len(d.tasks))
	for p := range d.tasks {
		d.drop(p)
	}
	d.setMember("")
	d.adrift = false
	if d.stopping || d.rejoining {
		return
	}
	d.rejoining = true
	d.rejoins.Go(func() {
		d.member.Load().Close()
		select {
		case <-d.loopDone: // nobody would have what a new one is assigned
			return
		default:
		}
		err := d.join()
		d.call(func() {
			d.rejoining = false
			if err != nil {
				d.fail(err)
			}
		})
	})
}

// setMember notes whose tasks we have. In the loop.
func (d *Dispatcher) setMember(id string) {
	d.memberID = id
	d.knownID.Store(id)
}

// sameMember tells whether partitions were assigned to, or are taken from, the
// member whose tasks we have. In the loop.
func (d *Dispatcher) sameMember() bool {
	id, _ := d.member.Load().GroupMetadata()
	if d.memberID == "" || len(d.tasks) == 0 && d.recoveringCount.Load() == 0 {
		d.setMember(id)
	}
	return id == d.memberID
}

// recovery is the recovering of one partition; it goes on beside the group's
// callbacks, so that a partition that cannot be recovered holds up no other.
type recovery struct {
	cancel context.CancelFunc
	done   chan struct{}
}

// assigned begins to recover the partitions. It runs in the group's goroutine,
// as revoked and lost do: recoveries is theirs alone.
func (d *Dispatcher) assigned(_ context.Context, ps []int32) {
	same, member := true, ""
	if !d.call(func() {
		id, generation := d.member.Load().GroupMetadata()
		if d.adrift {
			ps = d.resume(id, generation, ps)
		}
		if same = d.sameMember(); !same {
			d.expel(becameAnother)
		}
		member, d.generation = d.memberID, generation
	}) || !same {
		return
	}
	d.started.Store(len(ps) == 0 && d.recoveringCount.Load() == 0)
	begun := time.Now()
	for _, p := range ps {
		d.recoveringCount.Add(1)
		ctx, cancel := context.WithCancel(d.recovering)
		r := &recovery{cancel: cancel, done: make(chan struct{})}
		d.recoveries[p] = r
		d.rejoins.Go(func() {
			defer close(r.done)
			defer cancel()
			select {
			case d.recoverySlots <- struct{}{}:
				// One that hangs keeps no other from being recovered.
				free := sync.OnceFunc(func() { <-d.recoverySlots })
				late := time.AfterFunc(d.patience(), free)
				d.recoverUntilDone(ctx, p, member)
				late.Stop()
				free()
			case <-ctx.Done():
			}
			if d.recoveringCount.Add(-1) == 0 && ctx.Err() == nil {
				d.started.Store(true)
				d.log.Info("partitions assigned", "partitions", len(ps), "took", time.Since(begun).Round(time.Millisecond))
			}
		})
	}
}

// endRecoveries ends those of ps and waits for them.
func (d *Dispatcher) endRecoveries(ps []int32) {
	for _, p := range ps {
		if r := d.recoveries[p]; r != nil {
			r.cancel()
			<-r.done
			delete(d.recoveries, p)
		}
	}
}

// manageErrors hears why the group cannot be managed.
type manageErrors struct{ d *Dispatcher }

// OnGroupManageError is kgo's hook. A second live process with our instance id
// is not to be waited out: the two would throw each other out for ever. The client
// would join anew once Kafka does not know the other for a moment, and throw it out:
// it goes on only when nothing is left but to close it.
func (m manageErrors) OnGroupManageError(err error) {
	if !errors.Is(err, kerr.FencedInstanceID) {
		m.d.log.Debug("managing the group", "err", err) // kgo warns of it
		return
	}
	err = fmt.Errorf("another live process has the instance id %q (give each process its own HOOKLINE_INSTANCE_ID): %w",
		m.d.deps.Kafka.InstanceID, err)
	m.d.call(func() { m.d.fail(err) })
	<-m.d.over
}

// release is a revocation: it waits until its tasks have no request under way
// and everything of them is committed.
type release struct {
	partitions []int32
	until      time.Time
	done       chan struct{}
}

// revoked gives partitions back: no new requests, wait for those under way,
// commit, forget. Thus no delivery is made twice.
func (d *Dispatcher) revoked(ps []int32) {
	if len(ps) == 0 {
		return
	}
	d.endRecoveries(ps)
	r := &release{partitions: ps, done: make(chan struct{})}
	if !d.call(func() {
		if !d.sameMember() { // they were taken from us long ago
			d.expel(becameAnother)
		}
		d.beginRelease(r)
	}) {
		return
	}
	select {
	case <-r.done:
		d.log.Info("partitions revoked", "partitions", len(ps))
	case <-d.loopDone:
	}
}

// lost is told that the session ended. Whether the partitions are lost is not
// known by that: kgo gives a session up too when no broker has answered for as
// long as one lasts. The tasks wait, see interrupt.
func (d *Dispatcher) lost(ps []int32) {
	if len(ps) == 0 {
		return
	}
	d.endRecoveries(ps)
	d.call(d.interrupt)
}

// interrupt lets the tasks wait for the next assignment, which tells whether
// they are still ours: nothing is sent or committed before. What was answered and
// not committed is kept, so that an outage of Kafka repeats no delivery. In the
// loop.
func (d *Dispatcher) interrupt() {
	if len(d.tasks) == 0 {
		d.setMember("") // what comes next is assigned to whom we become
		return
	}
	d.adrift = true
	d.started.Store(false)
	d.knownID.Store("")
	d.deps.Gate.shut()
	d.log.Warn("the session is interrupted: nothing is sent until the group has assigned the partitions anew", "partitions", len(d.tasks))
}

// resume is the first assignment after an interruption: it drops the tasks that
// are not ours any more and returns the partitions that have none. In the loop.
func (d *Dispatcher) resume(id string, generation int32, ps []int32) []int32 {
	d.adrift = false
	on := sessionGoesOn(d.memberID, d.generation, id, generation)
	dropped := 0
	for p := range d.tasks {
		if !on || !slices.Contains(ps, p) {
			d.drop(p)
			dropped++
		}
	}
	if !on {
		d.setMember("")
	}
	d.knownID.Store(d.memberID)
	if dropped > 0 {
		d.log.Warn("partitions lost: the session ended", "partitions", dropped)
	}
	d.log.Info("the session goes on", "partitions", len(d.tasks))
	return slices.DeleteFunc(slices.Clone(ps), func(p int32) bool { return d.tasks[p] != nil })
}

// sessionGoesOn tells whether nobody else can have had our partitions between
// two assignments: the member is the same, and no generation lies between them.
// A static member is kept in the group through generations that it knows nothing
// of, in which others had its partitions.
func sessionGoesOn(id string, generation int32, newID string, newGeneration int32) bool {
	return id != "" && id == newID && (newGeneration == generation || newGeneration == generation+1)
}

// leave ends the membership at a graceful stop. Who was thrown out by another holder
// of its instance id has none: it would end the other's.
func (d *Dispatcher) leave(ctx context.Context) {
	if id := d.deps.Kafka.InstanceID; id != "" {
		if !d.deps.Kafka.StayOnStop {
			// kgo does not leave for a static member.
			if err := kafkax.LeaveGroup(ctx, d.reader, d.group, id); err != nil {
				d.log.Warn("leaving the group", "err", err)
			}
		}
		return
	}
	if err := d.member.Load().LeaveGroupContext(ctx); err != nil {
		d.log.Warn("leaving the group", "err", err)
	}
}

// closeClients closes all clients. The member's is not waited for beyond closeTimeout:
// in the middle of a rebalance its join is answered when all others have joined, and
// the process is about to end.
func (d *Dispatcher) closeClients() {
	for _, c := range []*kgo.Client{d.fetch, d.reader, d.operator, d.attempts.Load()} {
		if c != nil {
			c.Close()
		}
	}
	if d.txn != nil {
		d.txn.close()
	}
	if member := d.member.Load(); member != nil && !closing.Within(closeTimeout, member.Close) {
		d.log.Warn("closing the dispatcher's Kafka client takes long; the process does not wait for it")
	}
}
