package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// fetchMaxWait is how long a broker waits where it has nothing of what is asked
	// for. A partition that is fetched from again, or is new, waits as long for its turn
	// behind a fetch of idle ones; what its task and ahead have then lasts for 20,000
	// records/s of a partition, or 230 MB.
	fetchMaxWait           = 150 * time.Millisecond
	fetchMaxBytes          = 4 << 20
	fetchMaxPartitionBytes = 512 << 10
	// pollRecords bounds what is decoded at once.
	pollRecords = 1000
	// aheadRecords, or aheadBytes, and what one poll brings beyond, may wait for room in
	// their task before their partition is no longer fetched from; half of it, and it is
	// again.
	aheadRecords = 1000
	aheadBytes   = 1 << 20
	// subBytes of memory are a subscription's id in a record, about.
	subBytes = 48
)

// fetchedRecords is one poll, decoded, in the order of the partitions' logs.
type fetchedRecords struct {
	deliveries []partitionRecord[*lane.Record]
	retry      [pipeline.MaxRetries][]partitionRecord[*retryRecord]
	ends       []partitionRecord[struct{}] // of transactions, in deliveries
	gaps       []partitionRecord[error]    // of which the error would be the end of the process
	poll       uint64                      // the number of the poll
}

// retryRecord is a record of a retry topic. Without a RetryRecord it is one that
// cannot be read (bad), or the end of a transaction: that tells where the log
// has been read to.
type retryRecord struct {
	*lane.RetryRecord
	offset int64
	bad    *lane.Raw
}

// partitionRecord is a record of a partition.
type partitionRecord[T any] struct {
	partition int32
	offset    int64
	record    T
}

// pollLoop reads deliveries and retry.* and decodes them for the loop.
func (d *Dispatcher) pollLoop(ctx context.Context) {
	for ctx.Err() == nil {
		pctx, number, cancel := d.polls.begin(ctx)
		fs := d.fetch.PollRecords(pctx, pollRecords)
		cancel()
		if fs.IsClientClosed() || ctx.Err() != nil {
			return
		}
		gaps, failed := d.fetchErrors(fs)
		b := fetchedRecords{gaps: gaps, poll: number}
		fs.EachRecord(func(r *kgo.Record) { d.decode(r, &b) })
		select {
		case d.fetched <- b:
		case <-d.loopDone:
			return
		case <-ctx.Done():
			return
		}
		if failed && fs.NumRecords() == 0 {
			// Some failures, as that of a permission, come back at once, again and again.
			select {
			case <-time.After(fetchPause):
			case <-ctx.Done():
			}
		}
	}
}

// fetchPause between two polls that bring nothing but errors.
const fetchPause = 250 * time.Millisecond

// polls numbers the polls, so that a task is begun only when those that might
// hold records for its predecessor are through.
//
// The interleaving that it is for: a poll has taken records of partition p from
// the fetch client; p is revoked, and its task dropped; p comes back, and a new
// task begins at the committed offset, below those records; only now does the
// poll reach the loop. Fed to the new task its records would leave out what
// lies between.
type polls struct {
	mu     sync.Mutex
	begun  uint64             // the number of the last poll that began; under mu
	cancel context.CancelFunc // of that poll; under mu
	seen   uint64             // the number of the last poll that reached the loop; the loop's
}

func (p *polls) begin(ctx context.Context) (context.Context, uint64, context.CancelFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	ctx, p.cancel = context.WithCancel(ctx)
	p.begun++
	return ctx, p.begun, p.cancel
}

// flush ends the poll under way and returns its number: once that poll has
// reached the loop, none is on its way that began before. In the loop.
func (p *polls) flush() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cancel != nil {
		p.cancel()
	}
	return p.begun
}

// fetchErrors logs what a poll could not read, and gives the gaps.
func (d *Dispatcher) fetchErrors(fs kgo.Fetches) (gaps []partitionRecord[error], failed bool) {
	for _, e := range fs.Errors() {
		if errors.Is(e.Err, context.Canceled) {
			continue
		}
		failed = true
		d.log.Warn("fetching", "topic", e.Topic, "partition", e.Partition, "err", e.Err)
		if _, lost := errors.AsType[*kgo.ErrDataLoss](e.Err); lost || errors.Is(e.Err, kerr.OffsetOutOfRange) {
			err := fmt.Errorf("%s/%d no longer has what must be read next: %w (somebody deleted from it or made it anew; start hookline again: it tells what is missing, and goes on where nothing is skipped silently)", e.Topic, e.Partition, e.Err)
			gaps = append(gaps, partitionRecord[error]{partition: e.Partition, record: err})
		}
	}
	return gaps, failed
}

func (d *Dispatcher) decode(r *kgo.Record, b *fetchedRecords) {
	if r.Topic == d.deliveriesTopic {
		if r.Attrs.IsControl() {
			b.ends = append(b.ends, partitionRecord[struct{}]{partition: r.Partition, offset: r.Offset})
			return
		}
		rec, err := decodeDelivery(r)
		switch {
		case errors.Is(err, kafkax.ErrNewer):
			d.log.Error("a record cannot be read by this version: its partition waits", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
			rec = heldRecord(r.Offset)
		case err != nil:
			d.log.Error("a record cannot be read: it goes to dead as it is", "topic", r.Topic, "partition", r.Partition, "offset", r.Offset, "err", err)
			rec = &lane.Record{Offset: r.Offset, Envelope: &pipeline.Envelope{}, Unreadable: rawOf(r)}
		}
		b.deliveries = append(b.deliveries, partitionRecord[*lane.Record]{r.Partition, r.Offset, rec})
		return
	}
	for k := 1; k <= pipeline.MaxRetries; k++ {
		if r.Topic != d.topics.Retry(k) {
			continue
		}
		rec := &retryRecord{}
		if !r.Attrs.IsControl() {
			var err error
			if rec.RetryRecord, err = decodeRetry(r); err != nil {
				d.log.Error("a record cannot be read: the delivery is made again of its origin", "topic", r.Topic,
					"partition", r.Partition, "offset", r.Offset, "err", err)
				rec.bad = rawOf(r)
			}
		}
		rec.offset = r.Offset
		b.retry[k-1] = append(b.retry[k-1], partitionRecord[*retryRecord]{r.Partition, r.Offset, rec})
	}
}

// heldRecord stands for a record that a newer hookline wrote: it waits, with all
// behind it, for a version of the registry that never comes. Nothing is settled by
// a process that cannot read it; whoever can goes on from there.
func heldRecord(offset int64) *lane.Record {
	return &lane.Record{Offset: offset, Envelope: &pipeline.Envelope{RegistryVersion: math.MaxInt64}}
}

func header(r *kgo.Record, key string) []byte {
	for i := range r.Headers {
		if r.Headers[i].Key == key {
			return r.Headers[i].Value
		}
	}
	return nil
}

func decodeDelivery(r *kgo.Record) (*lane.Record, error) {
	rec := &lane.Record{Offset: r.Offset, Envelope: new(pipeline.Envelope), Header: header(r, kafkax.HeaderEnvelope), Payload: r.Value}
	if err := kafkax.DecodeEnvelope(rec.Header, rec.Envelope); err != nil {
		return nil, err
	}
	var err error
	rec.Subs, err = kafkax.DecodeSubs(header(r, kafkax.HeaderSubs), nil)
	if err == nil && len(rec.Subs) > lane.MaxPositions {
		err = errors.New("too many subscriptions")
	}
	return rec, err
}

func decodeRetry(r *kgo.Record) (*lane.RetryRecord, error) {
	c, err := kafkax.ParseCopy(r)
	if err != nil {
		return nil, err
	}
	env := new(pipeline.Envelope)
	if err := kafkax.DecodeEnvelope(c.Envelope, env); err != nil {
		return nil, err
	}
	return &lane.RetryRecord{
		Offset: r.Offset, Lane: c.Lane, Origin: c.Origin, Attempts: c.Attempts, Round: c.Round, FailedAt: c.FailedAt,
		Envelope: env, Header: c.Envelope, Payload: c.Payload,
	}, nil
}

// accept takes a poll in. Records of tasks that are gone are dropped: whoever
// has them now reads them again. In the loop.
func (d *Dispatcher) accept(b fetchedRecords) {
	d.polls.seen = b.poll
	for _, g := range b.gaps {
		if d.isGap(g.partition) {
			d.fail(g.record)
		}
	}
	for _, r := range b.deliveries {
		if t := d.tasks[r.partition]; t != nil && r.offset >= t.nextDelivery() {
			t.deliveries = append(t.deliveries, r.record)
			t.aheadBytes += heldBytes(r.record)
		}
	}
	for _, r := range b.ends {
		if t := d.tasks[r.partition]; t != nil && r.offset >= t.nextDelivery() {
			t.passed = max(t.passed, r.offset+1)
		}
	}
	for k := range b.retry {
		for _, r := range b.retry[k] {
			t := d.tasks[r.partition]
			if t == nil || r.offset < t.nextRetry(k+1) {
				continue
			}
			t.retry[k] = append(t.retry[k], r.record)
		}
	}
}

// isGap tells whether what a poll no longer found in a log is a gap. In a log that
// hookline alone deletes from it is fatal: going on would skip deliveries
// silently. But not where the partition is not ours any more, or nobody knows
// whether it is:
//
// We are frozen for longer than a session, while the broker is away; another
// process goes on, commits, and deletes what no task needs any more. We wake, and
// our fetches ask for what it deleted, before the group has told us that we are
// out. Where the partition is still ours the next poll says the same again.
func (d *Dispatcher) isGap(partition int32) bool {
	return d.tasks[partition] != nil && !d.adrift && d.deps.Gate.Open()
}

// nextDelivery is the lowest offset that has not been taken in.
func (t *ownedTask) nextDelivery() int64 {
	if n := len(t.deliveries); n > 0 {
		return t.deliveries[n-1].Offset + 1
	}
	return t.ReadPosition()
}

// behind is the offset of deliveries up to which nothing is left to be fed.
func (t *ownedTask) behind() int64 {
	if len(t.deliveries) > 0 {
		return t.ReadPosition()
	}
	return max(t.ReadPosition(), t.passed)
}

func (t *ownedTask) nextRetry(k int) int64 {
	if n := len(t.retry[k-1]); n > 0 {
		return t.retry[k-1][n-1].offset + 1
	}
	return t.RetryPosition(k)
}

// feed gives tasks what they have room for, and pauses or resumes the fetching
// of their partitions. One that drains gets nothing more: that would have to be
// committed, too, before the partition can be given back. In the loop.
func (d *Dispatcher) feed(now time.Time) {
	version := d.view.Version()
	for p, t := range d.tasks {
		d.command(now, t)
		n := 0
		for n < len(t.deliveries) && !t.Full() && !t.Draining() {
			r := t.deliveries[n]
			if r.Envelope.RegistryVersion > version {
				break // matched with subscriptions that we have not read yet
			}
			t.aheadBytes -= heldBytes(r)
			t.Deliver(now, r)
			t.deliveries[n] = nil
			n++
		}
		if t.deliveries = t.deliveries[n:]; len(t.deliveries) == 0 {
			t.deliveries = nil
		}
		d.pause(t, p, 0, t.ahead())
		for k := range t.retry {
			d.feedRetry(now, t, k)
			d.pause(t, p, k+1, len(t.retry[k]) > 0)
		}
	}
}

// heldBytes is what a record that waits takes in memory, about.
func heldBytes(r *lane.Record) int {
	n := len(r.Payload) + len(r.Header) + subBytes*len(r.Subs)
	if raw := r.Unreadable; raw != nil {
		n += len(raw.Key) + len(raw.Value)
	}
	return n
}

// ahead tells whether so much waits for room in the task that nothing more should be
// fetched.
func (t *ownedTask) ahead() bool {
	records, bytes := aheadRecords, aheadBytes
	if t.paused[0] {
		records, bytes = records/2, bytes/2
	}
	return len(t.deliveries) > records || t.aheadBytes > bytes
}

func (d *Dispatcher) feedRetry(now time.Time, t *ownedTask, k int) {
	n := 0
	for n < len(t.retry[k]) && !t.RetryFull(k+1) && !t.Draining() {
		if r := t.retry[k][n]; r.RetryRecord == nil {
			t.RetryPassed(now, k+1, r.offset, r.bad)
		} else {
			t.Retry(now, k+1, r.RetryRecord)
		}
		t.retry[k][n] = nil
		n++
	}
	if t.retry[k] = t.retry[k][n:]; len(t.retry[k]) == 0 {
		t.retry[k] = nil
	}
}

// pause stops or resumes the fetching of partition p of the which-th topic.
func (d *Dispatcher) pause(t *ownedTask, p int32, which int, on bool) {
	if t.paused[which] == on {
		return
	}
	t.paused[which] = on
	m := map[string][]int32{d.inputTopic(which): {p}}
	if on {
		d.fetch.PauseFetchPartitions(m)
	} else {
		d.fetch.ResumeFetchPartitions(m)
	}
}

func (d *Dispatcher) inputTopic(which int) string {
	if which == 0 {
		return d.topics.Deliveries()
	}
	return d.topics.Retry(which)
}

// resumeAll undoes what an earlier task of the partition had paused.
func (d *Dispatcher) resumeAll(p int32) {
	m := map[string][]int32{}
	for which := 0; which <= pipeline.MaxRetries; which++ {
		m[d.inputTopic(which)] = []int32{p}
	}
	d.fetch.ResumeFetchPartitions(m)
}
