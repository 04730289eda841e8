package sink

import (
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// recordOverhead in memory beside key and value, about.
const recordOverhead = 200

// partition is the queue of one Kafka partition, from its assignment until Sink.end
// has been told that it is taken away. At most one job at a time has its records.
type partition struct {
	st      *stream
	id      int32
	topicID [16]byte
	member  string // of the group, to whom it was assigned; under no other is anything committed for it
	moved   bool   // it begins elsewhere than Kafka says: never seen, or behind a block that is repeated
	noted   bool   // where it begins is to be committed before anything of it is stored
	polled  int64  // poll loop only, once it is assigned: the offset after the last record that was polled

	// Guarded by stream.mu.
	next    int64 // the offset after the last block, which is committed; after a declared one's, while that is repeated
	queue   []*kgo.Record
	rows    int           // in queue
	bytes   int64         // of queue and of the block under way
	queued  time.Time     // when the oldest of queue came
	stored  time.Time     // timestamp of the oldest record of the block under way; zero: none
	job     *job          // has records of it under way; nil: none
	behind  bool          // the last block left records that were due with it
	leaving bool          // no further job may take of it
	gone    bool          // nothing may be committed for it any more
	idle    chan struct{} // closed once it is leaving and no job has records of it
}

func newPartition(st *stream, id int32, topicID [16]byte) *partition {
	return &partition{st: st, id: id, topicID: topicID, idle: make(chan struct{})}
}

// place finds the partition's place in the log as it is now, before it gets records.
// It tells whether that is the one that was committed.
func (p *partition) place(start, end int64) bool {
	if p.next > end {
		p.st.s.deps.Logger.Error("storing the delivery log: the committed offset is beyond the log's end: the topic was made anew or lost records; it is read from its start",
			"topic", p.st.topic, "partition", p.id, "committed", p.next, "end", end)
		p.next, p.noted, p.moved, p.polled = start, true, true, start
		return false
	}
	p.polled = p.next
	p.missing(start)
	return true
}

// missing tells of records that were removed before they were polled.
func (p *partition) missing(start int64) {
	n := start - p.polled
	if n <= 0 {
		return
	}
	p.st.s.deps.Logger.Error("storing the delivery log: records were removed before they were stored (retention, or DeleteRecords)",
		"topic", p.st.topic, "partition", p.id, "from", p.polled, "missing", n)
	p.st.s.deps.Metrics.SinkMissing(p.st.topic, n)
	p.polled = start
}

// push queues records, in order; start is that of the log. Called by the poll loop
// only.
func (p *partition) push(recs []*kgo.Record, start int64) {
	// The log may have begun to move after these were fetched: they are there.
	p.missing(min(start, recs[0].Offset))
	p.polled = recs[len(recs)-1].Offset + 1
	bytes := sizeOf(recs)
	p.st.mu.Lock()
	defer p.st.mu.Unlock()
	if p.leaving {
		return
	}
	if len(p.queue) == 0 {
		p.queued = time.Now()
	}
	p.queue = append(p.queue, recs...)
	for _, rec := range recs {
		p.rows += p.st.rowsOf(rec)
	}
	p.bytes += bytes
	p.st.note()
	p.st.s.buffer.add(bytes)
	p.st.nudge()
}

func bytesOf(rec *kgo.Record) int64 { return int64(len(rec.Key) + len(rec.Value) + recordOverhead) }

func sizeOf(recs []*kgo.Record) (bytes int64) {
	for _, rec := range recs {
		bytes += bytesOf(rec)
	}
	return bytes
}

// off takes records off the queue until there are that many rows or bytes, at least
// one record. With mu held, as what follows.
func (p *partition) off(rows int, bytes int64) (of part, taken int) {
	of = part{id: p.id, p: p, since: p.queued}
	n := 0
	for n < len(p.queue) && (n == 0 || taken < rows && of.bytes < bytes) {
		taken += p.st.rowsOf(p.queue[n])
		of.bytes += bytesOf(p.queue[n])
		n++
	}
	of.recs = make([]*kgo.Record, n)
	copy(of.recs, p.queue)
	p.queue = append(p.queue[:0], p.queue[n:]...)
	clear(p.queue[len(p.queue):cap(p.queue)]) // free the records
	p.rows -= taken
	p.behind = false
	p.queued, p.stored = time.Now(), of.recs[0].Timestamp
	return of, taken
}

// back returns records to the head of the queue, of which the oldest came then.
func (p *partition) back(recs []*kgo.Record, since time.Time) {
	if p.leaving || len(recs) == 0 {
		return
	}
	p.queue, p.behind, p.queued = append(recs[:len(recs):len(recs)], p.queue...), true, since
	for _, rec := range recs {
		p.rows += p.st.rowsOf(rec)
	}
}

// settled notes that what a job had of it, up to an offset, is in ClickHouse and
// behind the committed one.
func (p *partition) settled(to, bytes int64) {
	p.next = to + 1
	if !p.leaving {
		p.bytes -= bytes
		p.st.s.buffer.add(-bytes)
	}
}

// ready tells whether a job may take records of it.
func (p *partition) ready() bool { return p.job == nil && !p.leaving && len(p.queue) > 0 }

// release ends the job's hold of it.
func (p *partition) release() {
	p.job, p.stored = nil, time.Time{}
	if p.leaving {
		close(p.idle)
	}
}

// oldest is the timestamp of the oldest record that is not stored; zero: none.
func (p *partition) oldest() time.Time {
	if p.stored.IsZero() && len(p.queue) > 0 {
		return p.queue[0].Timestamp
	}
	return p.stored
}

func (st *stream) rowsOf(rec *kgo.Record) int {
	if st.table == tableAttempts {
		return attemptlog.Count(rec.Value)
	}
	return 1
}
