package sink

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// firstRetry and lastRetry are the waits between tries of an insert.
	firstRetry = 250 * time.Millisecond
	lastRetry  = 10 * time.Second
	// commitRetry is the wait between tries of a commit.
	commitRetry = 200 * time.Millisecond
)

// part is what a job has of one partition.
type part struct {
	id    int32
	p     *partition // nil: of a block to be repeated, and not ours
	recs  []*kgo.Record
	bytes int64     // of recs
	since time.Time // when the oldest of recs came
}

// job stores one block in a goroutine of its own. It goes on while one of its
// partitions is ours: for those that are not any more nothing is committed, and their
// new owners repeat the block.
type job struct {
	st      *stream
	topicID [16]byte
	d       declaration
	parts   []part // as the declaration's spans are
	ctx     context.Context
	cancel  context.CancelFunc // when all are gone
	leave   chan struct{}      // closed when all of ours are leaving: begin nothing anew
	done    bool               // leave is closed; stream.mu guards it
	counted bool               // in stream.under; stream.mu guards it
	// failing tells that the insert is to be tried again; stream.mu guards it.
	failing bool
	// generation of the group in which something was committed last.
	generation int32
}

func newJob(st *stream, topicID [16]byte) *job {
	j := &job{st: st, topicID: topicID, leave: make(chan struct{})}
	j.ctx, j.cancel = context.WithCancel(context.Background())
	return j
}

// add makes records of a partition the job's. stream.mu is held, as in left and dropped,
// or nobody knows of the partition yet.
func (j *job) add(of part) {
	j.parts = append(j.parts, of)
	of.p.job = j
}

// left notes that one of the job's partitions is leaving.
func (j *job) left() {
	for _, part := range j.parts {
		if part.p != nil && !part.p.leaving {
			return
		}
	}
	if !j.done {
		j.done = true
		close(j.leave)
	}
}

// dropped notes that one of the job's partitions is gone.
func (j *job) dropped() {
	if len(j.ours()) == 0 {
		j.cancel()
	}
}

// ours are the partitions for which the job may still commit.
func (j *job) ours() (list []*partition) {
	for _, part := range j.parts {
		if part.p != nil && !part.p.gone {
			list = append(list, part.p)
		}
	}
	return list
}

// end releases the job's partitions.
func (j *job) end() {
	j.cancel()
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for _, part := range j.parts {
		if part.p != nil {
			part.p.release()
		}
	}
	j.st.nudge()
}

// begin commits where partitions begin that were never seen: what comes before their
// first block must not be skipped if this process ends before it.
func (j *job) begin() {
	defer j.end()
	j.commit(false, func(p *partition) int64 { return p.next }, "")
}

// store makes a block of the job's records. Where it does not come to its end, the
// partitions are to be left, the block perhaps declared.
func (j *job) store() {
	defer j.finished()
	j.d.storedAt = j.st.s.deps.Now().UTC().Truncate(time.Millisecond)
	b := j.st.s.blocks.get(j.st.table)
	defer j.st.s.blocks.put(b)
	used, bad := b.build(j.records(), j.origin(), int(j.st.s.cfg.BlockBytes))
	j.keep(used)
	if b.rows > 0 && !j.declare() {
		return
	}
	j.insertAndCommit(b, bad)
}

func (j *job) finished() {
	j.stored()
	j.end()
}

// stored notes that the stream need not wait for the job's insert any more.
func (j *job) stored() {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	if j.counted {
		j.counted = false
		j.st.under--
		j.st.flushed = time.Now()
		j.st.nudge()
	}
}

// repeat stores a block that was declared before.
func (j *job) repeat() {
	defer j.st.s.client.ResumeFetchPartitions(j.fetched()) // Sink.begin paused them
	defer j.end()
	// What is read waits for its insert in memory: one block at a time. Who cannot read
	// keeps nobody from inserting.
	if !j.hold(j.st.s.reads) {
		return
	}
	whole := j.read()
	if !whole || !j.hold(j.st.s.builds) {
		<-j.st.s.reads
		return
	}
	<-j.st.s.reads
	defer func() { <-j.st.s.builds }()
	b := j.st.s.blocks.get(j.st.table)
	defer j.st.s.blocks.put(b)
	_, bad := b.build(j.records(), j.origin(), math.MaxInt)
	j.insertAndCommit(b, bad)
}

// hold takes a token, or returns false when the partitions are to be left.
func (j *job) hold(tokens chan struct{}) bool {
	select {
	case tokens <- struct{}{}:
		return true
	case <-j.leave:
	case <-j.ctx.Done():
	}
	return false
}

// fetched names the job's partitions that were ours as it began, for the client.
func (j *job) fetched() map[string][]int32 {
	ids := map[string][]int32{}
	for _, part := range j.parts {
		if part.p != nil {
			ids[j.st.topic] = append(ids[j.st.topic], part.id)
		}
	}
	return ids
}

func (j *job) origin() origin {
	return origin{topicID: j.topicID, cluster: j.st.s.clusterID(), storedAt: j.d.storedAt}
}

// records of all parts, in the order of the block.
func (j *job) records() (recs []*kgo.Record) {
	for _, part := range j.parts {
		recs = append(recs, part.recs...)
	}
	return recs
}

// keep returns what is beyond the first used records to the queues, and notes what
// the block is.
func (j *job) keep(used int) {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	parts := j.parts[:0]
	for _, part := range j.parts {
		n := min(used, len(part.recs))
		used -= n
		if n < len(part.recs) {
			part.p.back(part.recs[n:], part.since)
			part.bytes -= sizeOf(part.recs[n:])
		}
		if n == 0 {
			part.p.release()
			continue
		}
		part.recs = part.recs[:n]
		parts = append(parts, part)
		j.d.spans = append(j.d.spans, span{part.id, part.p.next, part.recs[n-1].Offset})
	}
	clear(j.parts[len(parts):])
	j.parts = parts
	j.st.note()
	j.left() // those that stay may all be leaving
	j.dropped()
}

// insertAndCommit brings the block, which is declared or empty, to ClickHouse and
// commits behind it.
func (j *job) insertAndCommit(b *block, bad []badRecord) {
	rows := j.rowsOfOurs(b.rows)
	if j.st.s.caller == nil {
		j.forget() // all of it stands in the block: a second copy of what waits for ClickHouse
	}
	if b.rows > 0 {
		j.hit(failpoint.BlockDeclared)
		begun := time.Now()
		if !j.insert(b) {
			return
		}
		now := time.Now()
		j.st.inserted.Store(now.UnixNano())
		j.st.s.pace(now, now.Sub(begun))
		j.hit(failpoint.BlockInserted)
	}
	j.stored()
	if !j.call() || !j.bury(bad) {
		return
	}
	if j.commit(false, func(p *partition) int64 { return j.d.of(p.id).to + 1 }, "") != nil {
		return
	}
	j.st.s.deps.Metrics.SinkRows(j.st.table, rows)
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for _, part := range j.parts {
		if part.p != nil && !part.p.gone {
			part.p.settled(j.d.of(part.id).to, part.bytes)
		}
	}
}

// rowsOfOurs are those of a block's rows that are of our partitions, about: all, but of a
// block that several repeat.
func (j *job) rowsOfOurs(rows int) int {
	if !slices.ContainsFunc(j.parts, func(part part) bool { return part.p == nil }) {
		return rows
	}
	of := 0
	for _, part := range j.parts {
		if part.p == nil {
			continue
		}
		for _, rec := range part.recs {
			of += j.st.rowsOf(rec)
		}
	}
	return min(rows, of)
}

func (j *job) forget() {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for i := range j.parts {
		j.parts[i].recs = nil
	}
}

// hit hits a failpoint in blocks of attempts.
func (j *job) hit(point failpoint.Point) {
	if j.st.table == tableAttempts {
		failpoint.Hit(point)
	}
}

// insert repeats until ClickHouse has the block, or the partitions are left.
func (j *job) insert(b *block) bool {
	if err := b.encode(); err != nil {
		panic("BUG: " + err.Error()) // columns of different lengths
	}
	s, token := j.st.s, j.d.token(j.topicID)
	for wait := firstRetry; ; wait = min(2*wait, lastRetry) {
		ctx, cancel := context.WithTimeout(j.ctx, s.cfg.InsertTimeout)
		err := s.server.insert(ctx, b, token)
		cancel()
		if err == nil {
			s.health.ok()
			return true
		}
		if j.ctx.Err() != nil {
			return false
		}
		s.deps.Metrics.SinkInsertError(b.table)
		s.health.failed(err)
		if missingOf(err) != nil {
			s.heal(j.ctx)
		}
		j.fails(true)
		again := j.pause(wait)
		j.fails(false)
		if !again {
			return false
		}
	}
}

// fails notes that the insert waits to be tried again: who takes a partition away need
// not wait for it.
func (j *job) fails(now bool) {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	j.failing = now
}

// pause waits, or returns false when the partitions are to be left.
func (j *job) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-j.leave:
		return false
	case <-j.ctx.Done():
		return false
	}
}

// read fetches a declared block's records, also those of partitions that are not ours.
func (j *job) read() bool {
	cl, err := kgo.NewClient(j.st.s.deps.ClientOpts...)
	if err != nil {
		panic("BUG: " + err.Error()) // the options are those of a client that there is
	}
	defer cl.Close()
	for i, s := range j.d.spans {
		for {
			recs, err := j.scan(kafkax.NewFetcher(cl), s) // a new one: the topic may have been made anew
			if err == nil {
				j.got(i, recs)
				break
			}
			j.st.s.health.kafka(fmt.Errorf("reading a block that was declared: %w", err))
			if j.ctx.Err() != nil || !j.pause(commitRetry) {
				return false
			}
		}
	}
	return true
}

// got notes the records of a part.
func (j *job) got(i int, recs []*kgo.Record) {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	j.parts[i].recs = recs
	if p := j.parts[i].p; p != nil && len(recs) > 0 {
		p.stored = recs[0].Timestamp
	}
}

// scan reads a span of the log, and reports where records of it are gone.
func (j *job) scan(f *kafkax.Fetcher, s span) (recs []*kgo.Record, err error) {
	end, err := f.EndOffset(j.ctx, j.st.topic, s.partition)
	if err != nil {
		return nil, err
	}
	err = f.Scan(j.ctx, j.st.topic, s.partition, s.from, min(s.to+1, end), func(rec *kgo.Record) error {
		recs = append(recs, rec)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(recs) == 0 || end <= s.to || j.st.table == tableAttempts && recs[0].Offset != s.from {
		j.st.s.deps.Logger.Error("storing the delivery log: records of a block under way were removed", "topic", j.st.topic, "partition", s.partition, "from", s.from, "to", s.to)
	}
	return recs, nil
}

// bury produces records that cannot be stored to the dead topic, if they are of our
// partitions. After a crash they may be there twice.
func (j *job) bury(bad []badRecord) bool {
	s := j.st.s
	for _, b := range bad {
		if !j.isOurs(b.rec.Partition) {
			continue
		}
		dead := &kgo.Record{
			Topic: s.deps.DeadTopic, Key: b.rec.Key, Value: b.rec.Value, Timestamp: b.rec.Timestamp,
			Headers: append(b.rec.Headers[:len(b.rec.Headers):len(b.rec.Headers)],
				kgo.RecordHeader{Key: kafkax.HeaderError, Value: []byte(kafkax.CleanError(b.why.Error()))},
				kgo.RecordHeader{Key: kafkax.HeaderSource, Value: fmt.Appendf(nil, "%s/%d/%d", b.rec.Topic, b.rec.Partition, b.rec.Offset)}),
		}
		s.deps.Logger.Warn("storing the delivery log: a record cannot be stored: it goes to "+dead.Topic, "topic", b.rec.Topic, "partition", b.rec.Partition, "offset", b.rec.Offset, "error", b.why)
		for {
			err := s.client.ProduceSync(j.ctx, dead).FirstErr()
			if err == nil {
				s.deps.Metrics.SinkDead(b.rec.Topic)
				break
			}
			if errors.Is(err, kerr.MessageTooLarge) {
				dead.Value = nil // its place is in the headers
			}
			s.health.kafka(fmt.Errorf("producing to %s: %w", dead.Topic, err))
			if j.ctx.Err() != nil || !j.pause(commitRetry) {
				return false
			}
		}
	}
	return true
}

// isOurs tells whether the job may commit for the partition.
func (j *job) isOurs(id int32) bool {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for _, p := range j.ours() {
		if p.id == id {
			return true
		}
	}
	return false
}
