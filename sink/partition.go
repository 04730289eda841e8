package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// linger after the first record of a block, when the last block is long ago.
	linger = 50 * time.Millisecond
	// firstRetry and lastRetry are the waits between tries of an insert.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	// commitRetry is the wait between tries of a commit.
	commitRetry = 200 * time.Millisecond
	// recordOverhead in memory beside key and value, about.
	recordOverhead = 200
)

// partition stores one Kafka partition, one block at a time, in a goroutine of
// its own (run) from its assignment until end has waited for it.
type partition struct {
	s       *Sink
	id      partitionID
	topicID [16]byte
	table   string
	member  string // of the group, to whom it was assigned; under no other is anything committed for it
	unseen  bool   // nothing was committed for it before
	ctx     context.Context
	cancel  context.CancelFunc
	leave   chan struct{} // closed by Sink.end: begin no further block
	done    chan struct{} // closed by run
	wake    chan struct{} // push to run: there are new records

	next     int64        // run only: the offset after the last block, which is committed
	polled   int64        // push only: the offset after the last record that was polled
	reached  atomic.Int64 // next, for others to read
	inserted atomic.Int64 // run writes: when the last insert ended, in nanoseconds since 1970
	flushed  time.Time    // run only: when the last block was stored
	turn     time.Time    // run only: when the block that is due may be inserted; zero: none is due

	mu       sync.Mutex   // guards what follows
	declared *declaration // of a block to repeat first; set before run, cleared by it
	queue    []*kgo.Record
	rows     int       // in queue
	bytes    int64     // of queue and of the block under way
	queued   time.Time // when the oldest of queue came
	stored   time.Time // timestamp of the oldest record of the block under way; zero: none
	waits    bool      // as noted in Sink.waiting: queue is not empty
	behind   bool      // the last block left records that were due with it
	closed   bool      // run has ended: nothing is taken any more
}

func newPartition(s *Sink, id partitionID, topicID [16]byte) *partition {
	p := &partition{s: s, id: id, topicID: topicID, table: tableEvents, leave: make(chan struct{}), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	if id.topic == s.deps.AttemptsTopic {
		p.table = tableAttempts
	}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	return p
}

// place finds the partition's place in the log as it is now, before run begins.
func (p *partition) place(start, end int64) {
	if p.next > end {
		p.s.deps.Logger.Error("storing the delivery log: the committed offset is beyond the log's end: the topic was made anew or lost records; it is read from its start",
			"topic", p.id.topic, "partition", p.id.id, "committed", p.next, "end", end)
		p.next, p.unseen, p.declared = start, true, nil
	}
	p.polled = p.next
	p.missing(start)
}

// missing tells of records that were removed before they were polled.
func (p *partition) missing(start int64) {
	n := start - p.polled
	if n <= 0 {
		return
	}
	p.s.deps.Logger.Error("storing the delivery log: records were removed before they were stored (retention, or DeleteRecords)",
		"topic", p.id.topic, "partition", p.id.id, "from", p.polled, "missing", n)
	p.s.deps.Metrics.SinkMissing(p.id.topic, n)
	p.polled = start
}

// push queues records, in order; start is that of the log. Called by the poll loop
// only.
func (p *partition) push(recs []*kgo.Record, start int64) {
	// The log may have begun to move after these were fetched: they are there.
	p.missing(min(start, recs[0].Offset))
	p.polled = recs[len(recs)-1].Offset + 1
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	if len(p.queue) == 0 {
		p.queued = time.Now()
	}
	p.queue = append(p.queue, recs...)
	p.note()
	var bytes int64
	for _, rec := range recs {
		p.rows += p.rowsOf(rec)
		bytes += bytesOf(rec)
	}
	p.bytes += bytes
	p.s.buffer.add(bytes)
	p.nudge()
}

// nudge has run look again whether there is something to store.
func (p *partition) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// note keeps the Sink's count of partitions that wait. mu is held.
func (p *partition) note() {
	if waits := len(p.queue) > 0; waits != p.waits {
		p.waits = waits
		if waits {
			p.s.waiting.Add(1)
		} else {
			p.s.waiting.Add(-1)
		}
	}
}

func bytesOf(rec *kgo.Record) int64 { return int64(len(rec.Key) + len(rec.Value) + recordOverhead) }

func sizeOf(recs []*kgo.Record) (bytes int64) {
	for _, rec := range recs {
		bytes += bytesOf(rec)
	}
	return bytes
}

func (p *partition) rowsOf(rec *kgo.Record) int {
	if p.table == tableAttempts {
		return attemptlog.Count(rec.Value)
	}
	return 1
}

// repeats tells whether a declared block is not repeated yet.
func (p *partition) repeats() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.declared != nil
}

// oldest is the timestamp of the oldest record that is not stored; zero: none.
func (p *partition) oldest() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.stored.IsZero() && len(p.queue) > 0 {
		return p.queue[0].Timestamp
	}
	return p.stored
}

func (p *partition) run() {
	defer close(p.done)
	defer p.shut()
	if p.unseen {
		// Noted at once: what comes before the first block must not be skipped if
		// this process ends before it.
		if !p.commit(p.next, "") {
			return
		}
	}
	for {
		recs, ok := p.await()
		if !ok || !p.store(recs) {
			return
		}
	}
}

// shut gives back the queue's memory.
func (p *partition) shut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	p.s.buffer.add(-p.bytes)
	p.queue, p.bytes, p.stored = nil, 0, time.Time{}
	p.note()
}

// await returns the records of the next block, or false when it is time to leave.
func (p *partition) await() ([]*kgo.Record, bool) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		recs, wait := p.cut()
		if recs != nil {
			return recs, true
		}
		timer.Reset(wait)
		select {
		case <-p.leave:
			return nil, false
		case <-p.wake:
		case <-timer.C:
		}
	}
}

// cut takes a block off the queue, if one is complete or due; else it says how
// long to wait for that.
func (p *partition) cut() (recs []*kgo.Record, wait time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := len(p.queue)
	if d := p.declared; d != nil {
		if n == 0 || p.queue[n-1].Offset < d.to {
			return nil, time.Hour
		}
		for n = 0; n < len(p.queue) && p.queue[n].Offset <= d.to; n++ {
		}
		return p.off(n), 0
	}
	if n == 0 {
		return nil, time.Hour
	}
	due := p.queued.Add(linger)
	if t := p.flushed.Add(p.s.interval()); t.After(due) {
		due = t
	}
	full := p.behind || p.rows >= p.s.cfg.BlockRows || p.bytes >= int64(p.s.cfg.BlockBytes) || p.s.buffer.needs(p.bytes, p.s.count.Load())
	if !full {
		if wait = p.untilTurn(time.Now(), due); wait > 0 {
			return nil, wait
		}
	}
	rows, bytes := 0, int64(0)
	for n = 0; n < len(p.queue) && rows < p.s.cfg.BlockRows && bytes < int64(p.s.cfg.BlockBytes); n++ {
		rows += p.rowsOf(p.queue[n])
		bytes += bytesOf(p.queue[n])
	}
	return p.off(n), 0
}

// untilTurn is how long a block that is due then has to wait for others.
func (p *partition) untilTurn(now, due time.Time) time.Duration {
	if wait := due.Sub(now); wait > 0 {
		return wait
	}
	if p.s.buffer.filling() {
		return 0
	}
	if p.turn.IsZero() {
		p.turn = p.s.turn(now)
	}
	return p.turn.Sub(now)
}

// off takes the first n records off the queue. It never returns nil.
func (p *partition) off(n int) []*kgo.Record {
	recs := make([]*kgo.Record, n)
	copy(recs, p.queue)
	p.queue = append(p.queue[:0], p.queue[n:]...)
	clear(p.queue[len(p.queue):cap(p.queue)]) // free the records
	p.queued, p.behind, p.turn = time.Now(), false, time.Time{}
	p.note()
	for _, rec := range recs {
		p.rows -= p.rowsOf(rec)
	}
	if n > 0 {
		p.stored = recs[0].Timestamp
	}
	return recs
}

// store makes a block of recs, or the declared one again, and commits behind
// it. False: the partition is to be left, its block perhaps declared.
func (p *partition) store(recs []*kgo.Record) bool {
	select {
	case p.s.builds <- struct{}{}:
		defer func() { <-p.s.builds }()
	case <-p.leave:
		return false
	}
	p.mu.Lock()
	again := p.declared
	p.mu.Unlock()
	d, limit := declaration{from: p.next, storedAt: p.s.deps.Now().UTC().Truncate(time.Millisecond)}, int(p.s.cfg.BlockBytes)
	if again != nil {
		d, limit = *again, math.MaxInt
		p.checkWhole(recs, d)
	}
	b := p.s.blocks.get(p.table)
	defer p.s.blocks.put(b)
	used, bad := b.build(recs, origin{topicID: p.topicID, cluster: p.s.clusterID(), storedAt: d.storedAt}, limit)
	if again == nil {
		d.to = recs[used-1].Offset
		recs = p.back(recs, used)
	}
	bytes := sizeOf(recs)
	if p.s.caller == nil {
		recs = nil // all of it stands in the block: a second copy of what waits for ClickHouse
	}
	if b.rows > 0 {
		if again == nil && !p.commit(d.from, d.String()) {
			return false
		}
		p.hit(failpoint.BlockDeclared)
		begun := time.Now()
		if !p.insert(b, d) {
			return false
		}
		now := time.Now()
		p.inserted.Store(now.UnixNano())
		p.s.pace(now, now.Sub(begun))
		p.hit(failpoint.BlockInserted)
	}
	if !p.call(recs) || !p.bury(bad) || !p.commit(d.to+1, "") {
		return false
	}
	p.s.deps.Metrics.SinkRows(p.table, b.rows)
	p.settled(bytes, d)
	return true
}

// hit hits a failpoint in blocks of attempts.
func (p *partition) hit(point failpoint.Point) {
	if p.table == tableAttempts {
		failpoint.Hit(point)
	}
}

// back returns what did not fit into the block to the queue.
func (p *partition) back(recs []*kgo.Record, used int) []*kgo.Record {
	if used == len(recs) {
		return recs
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.behind = true
	p.queue = slices.Insert(p.queue, 0, recs[used:]...)
	p.note()
	for _, rec := range recs[used:] {
		p.rows += p.rowsOf(rec)
	}
	return recs[:used]
}

// settled notes that the block, of that many bytes of records, is in ClickHouse
// and behind the committed offset.
func (p *partition) settled(bytes int64, d declaration) {
	p.next, p.flushed = d.to+1, time.Now()
	p.reached.Store(p.next)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.declared, p.stored = nil, time.Time{}
	p.bytes -= bytes
	p.s.buffer.add(-bytes)
}

// checkWhole reports a declared block of which records are gone.
func (p *partition) checkWhole(recs []*kgo.Record, d declaration) {
	if len(recs) == 0 || p.table == tableAttempts && recs[0].Offset != d.from {
		p.s.deps.Logger.Error("storing the delivery log: records of a block under way were removed", "topic", p.id.topic, "partition", p.id.id, "from", d.from, "to", d.to)
	}
}

// insert repeats until ClickHouse has the block, or the partition is left.
func (p *partition) insert(b *block, d declaration) bool {
	if err := b.encode(); err != nil {
		panic("BUG: " + err.Error()) // columns of different lengths
	}
	token := d.token(p.topicID, p.id.id)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		ctx, cancel := context.WithTimeout(p.ctx, p.s.cfg.InsertTimeout)
		err := p.s.server.insert(ctx, b, token)
		cancel()
		if err == nil {
			p.s.health.ok()
			return true
		}
		if p.ctx.Err() != nil {
			return false
		}
		p.s.deps.Metrics.SinkInsertError(b.table)
		p.s.health.failed(err)
		if missingOf(err) != nil {
			p.s.heal(p.ctx)
		}
		if !p.pause(wait) {
			return false
		}
	}
}

// pause waits, or returns false when the partition is to be left.
func (p *partition) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-p.leave:
		return false
	}
}

// commit repeats until the offset and the metadata are committed. False: the
// partition is lost or left, and nothing may be assumed.
func (p *partition) commit(offset int64, metadata string) bool {
	for p.ctx.Err() == nil {
		err := p.tryCommit(offset, metadata)
		switch {
		case err == nil:
			return true
		case p.ctx.Err() != nil:
			return false
		case errors.Is(err, kerr.FencedInstanceID):
			p.s.fail(fmt.Errorf("storing the delivery log: another process uses this INSTANCE_ID: %w", err))
			return false
		}
		// A stale generation too: kgo learns of it by its heartbeat, and then ends
		// this partition.
		p.s.health.kafka(fmt.Errorf("committing %s/%d: %w", p.id.topic, p.id.id, err))
		if !p.pause(commitRetry) {
			return false
		}
	}
	return false
}

// errNoMember: a commit without a generation would not be fenced. Nor would one
// under another membership than the partition was assigned to: Kafka does not
// check who owns a partition.
//
// The interleaving that the latter is for: we are frozen for longer than the
// session, and another sink stores what follows; we are told to stop, wake, and
// join anew while this partition finishes what it has: its next declaration would
// be taken, and its rows stored twice.
var errNoMember = errors.New("not the member of the group that the partition was assigned to")

func (p *partition) tryCommit(offset int64, metadata string) error {
	ctx := kgo.PreCommitFnContext(p.ctx, func(req *kmsg.OffsetCommitRequest) error {
		if req.MemberID == "" || req.Generation < 0 || req.MemberID != p.member {
			return errNoMember
		}
		for i := range req.Topics {
			for j := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[j].Metadata = &metadata
			}
		}
		return nil
	})
	done := make(chan error, 1)
	at := map[string]map[int32]kgo.EpochOffset{p.id.topic: {p.id.id: {Epoch: -1, Offset: offset}}}
	p.s.client.CommitOffsets(ctx, at, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err == nil {
			for i := range resp.Topics {
				for j := range resp.Topics[i].Partitions {
					err = errors.Join(err, kerr.ErrorForCode(resp.Topics[i].Partitions[j].ErrorCode))
				}
			}
		}
		done <- err
	})
	return <-done
}

// bury produces records that cannot be stored to the dead topic. After a crash
// they may be there twice.
func (p *partition) bury(bad []badRecord) bool {
	for _, b := range bad {
		dead := &kgo.Record{
			Topic: p.s.deps.DeadTopic, Key: b.rec.Key, Value: b.rec.Value, Timestamp: b.rec.Timestamp,
			Headers: append(b.rec.Headers[:len(b.rec.Headers):len(b.rec.Headers)],
				kgo.RecordHeader{Key: kafkax.HeaderError, Value: []byte(kafkax.CleanError(b.why.Error()))},
				kgo.RecordHeader{Key: kafkax.HeaderSource, Value: fmt.Appendf(nil, "%s/%d/%d", b.rec.Topic, b.rec.Partition, b.rec.Offset)}),
		}
		p.s.deps.Logger.Warn("storing the delivery log: a record cannot be stored: it goes to "+dead.Topic, "topic", b.rec.Topic, "partition", b.rec.Partition, "offset", b.rec.Offset, "error", b.why)
		for {
			err := p.s.client.ProduceSync(p.ctx, dead).FirstErr()
			if err == nil {
				p.s.deps.Metrics.SinkDead(b.rec.Topic)
				break
			}
			if errors.Is(err, kerr.MessageTooLarge) {
				dead.Value = nil // its place is in the headers
			}
			p.s.health.kafka(fmt.Errorf("producing to %s: %w", dead.Topic, err))
			if p.ctx.Err() != nil || !p.pause(commitRetry) {
				return false
			}
		}
	}
	return true
}
