package dispatch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// transactionTimeout after which the coordinator aborts what a killed
	// process left open. Until then everyone's last stable offset waits.
	transactionTimeout = 10 * time.Second
	// stepTimeout bounds everything of a transaction before its end, so that we
	// abort it ourselves before the coordinator does.
	stepTimeout = 7 * time.Second
	// endTimeout bounds the end of a transaction; what came of it is looked up
	// after that.
	endTimeout = 20 * time.Second
)

// transactor makes one transaction at a time.
type transactor struct {
	cl        *kgo.Client
	committer *kafkax.Committer
}

func (t *transactor) close() { t.cl.Close() }

// newTransactor makes the transactional client. Getting its producer id ends
// whatever a predecessor with the same transactional id left open.
func (d *Dispatcher) newTransactor(ctx context.Context) (*transactor, error) {
	cl, err := d.newTransactional()
	if err != nil {
		return nil, err
	}
	if _, _, err := cl.ProducerID(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("getting a producer id for %s: %w", d.txnID, err)
	}
	return &transactor{cl: cl, committer: kafkax.NewCommitter(cl, d.txnID, d.group)}, nil
}

// newTransactional makes a client with our transactional id, and asks nothing yet.
func (d *Dispatcher) newTransactional() (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(slices.Clone(d.base),
		kgo.TransactionalID(d.txnID),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		d.deps.Kafka.ProducerCompression(),
	)...)
	if err != nil {
		return nil, fmt.Errorf("making the transactional client: %w", err)
	}
	return cl, nil
}

// transact makes one transaction of c. committed tells what came of it; err
// says why it did not commit.
func (d *Dispatcher) transact(ctx context.Context, c *commitRun) (committed bool, err error) {
	if d.suspect.Swap(false) {
		if err := d.lookAtOurs(ctx, c); err != nil {
			return false, err
		}
	}
	if len(c.batches) == 0 {
		return true, nil
	}
	if err := d.txn.cl.BeginTransaction(); err != nil {
		return false, errors.Join(fmt.Errorf("beginning a transaction: %w", err), d.renew(ctx), d.restore(ctx, c))
	}
	d.written.begin(c)
	if err := d.fill(ctx, c); err != nil {
		d.parked.doubts.Add(1)
		defer d.parked.doubts.Add(-1)
		return false, errors.Join(err, d.abort(ctx), d.restore(ctx, c))
	}
	d.hitRetry(c, failpoint.RetryProduced)
	ectx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	if err = d.txn.cl.EndTransaction(ectx, kgo.TryCommit); err == nil {
		d.hitRetry(c, failpoint.RetryCommitted)
		d.noteWritten(c)
		return true, nil
	}
	d.parked.doubts.Add(1)
	defer d.parked.doubts.Add(-1)
	err = fmt.Errorf("ending a transaction: %w", err)
	committed, lookup := d.lookup(ctx, c)
	return committed, errors.Join(err, lookup)
}

// hitRetry hits a failpoint in transactions that have a retry in them.
func (d *Dispatcher) hitRetry(c *commitRun, p failpoint.Point) {
	if failpoint.Enabled && slices.ContainsFunc(c.records, func(r *kgo.Record) bool { return r.Topic == d.topics.Retry(1) }) {
		failpoint.Hit(p)
	}
}

// fill does everything of a transaction but its end.
func (d *Dispatcher) fill(ctx context.Context, c *commitRun) error {
	ctx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	var mu sync.Mutex
	var first error
	for _, r := range c.records {
		d.txn.cl.Produce(ctx, r, func(r *kgo.Record, err error) {
			if err == nil {
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = fmt.Errorf("producing to %s/%d: %w", r.Topic, r.Partition, err)
			}
		})
	}
	if err := d.txn.cl.Flush(ctx); err != nil {
		return fmt.Errorf("flushing: %w", err)
	}
	mu.Lock()
	err := first
	mu.Unlock()
	if err != nil {
		return err
	}
	if err := d.txn.committer.Commit(ctx, c.member, c.offsets); err != nil {
		return err
	}
	for _, g := range c.acks {
		if err := g.wait(ctx); err != nil {
			return fmt.Errorf("waiting until the attempts are written: %w", err)
		}
	}
	return nil
}

// abort ends the open transaction so that nothing of it counts, by a new
// producer id if need be.
func (d *Dispatcher) abort(ctx context.Context) error {
	actx, cancel := context.WithTimeout(ctx, stepTimeout)
	defer cancel()
	err := d.txn.cl.AbortBufferedRecords(actx)
	if err == nil {
		err = d.txn.cl.EndTransaction(actx, kgo.TryAbort)
	}
	if err == nil {
		return nil
	}
	return errors.Join(fmt.Errorf("aborting: %w", err), d.renew(ctx))
}

// renew replaces the transactional client. When it returns nil, the open
// transaction of the old one has been ended: aborted, unless its commit had
// been decided.
func (d *Dispatcher) renew(ctx context.Context) error {
	var refused error
	err := d.untilDone(ctx, func() error {
		t, err := d.newTransactor(ctx)
		if errors.Is(err, kerr.TransactionalIDAuthorizationFailed) {
			refused = err // it stays so
			return nil
		}
		if err == nil {
			old := d.txn
			d.txn = t
			old.close()
		}
		return err
	})
	return errors.Join(err, refused)
}

// lookup finds out whether a transaction whose end was not answered has
// committed: once a new producer id is given it is decided.
func (d *Dispatcher) lookup(ctx context.Context, c *commitRun) (bool, error) {
	if err := d.renew(ctx); err != nil {
		return false, err
	}
	c.unsure = true
	if err := d.restore(ctx, c); err != nil || !c.unsure {
		return c.decided, err
	}
	return d.marked(ctx, c)
}

// marked tells whether the committed offsets carry the mark of c, which is that of
// the transaction that wrote them: the mark of any batch will do, as another owner
// may have committed to some of the partitions since. It waits until the offsets
// are stable.
func (d *Dispatcher) marked(ctx context.Context, c *commitRun) (bool, error) {
	want, topic := map[string][]int32{}, d.topics.Deliveries()
	for _, b := range c.batches {
		want[topic] = append(want[topic], b.Task.Partition())
	}
	var marked bool
	err := d.untilDone(ctx, func() error {
		got, err := d.fetcher.StableOffsets(ctx, d.group, want)
		marked = err == nil && slices.ContainsFunc(c.batches, func(b *lane.Batch) bool {
			return got[topic][b.Task.Partition()].Metadata == batchMark(b)
		})
		return err
	})
	return marked, err
}

// untilDone repeats try until it succeeds, or until ctx or the loop ends: then it
// gives the last error.
func (d *Dispatcher) untilDone(ctx context.Context, try func() error) error {
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, 2*time.Second) {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-d.loopDone:
			return err
		case <-time.After(pause):
		}
	}
}

// batchMark names a task's part of one transaction.
func batchMark(b *lane.Batch) string {
	return strconv.FormatUint(b.Task.Incarnation(), 36) + "/" + strconv.FormatUint(b.Seq, 36)
}
