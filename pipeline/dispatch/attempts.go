package dispatch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

const (
	// attemptsBufferedBytes bounds the attempts that wait for Kafka: beyond it
	// no request is begun.
	attemptsBufferedBytes = 64 << 20
	// localRowEvery: at most one row of a local error per delivery in this time.
	localRowEvery = time.Minute
	// localRowsKept bounds the memory of that rule; beyond it, it starts anew.
	localRowsKept = 10_000
	// resendPause between two tries to write a batch that Kafka refused.
	resendPause = time.Second
)

// attemptEncoder collects the attempts of one partition of the attempts topic.
type attemptEncoder struct {
	enc attemptlog.Encoder
}

// logAttempt puts a finished try into the log. In the loop.
func (d *Dispatcher) logAttempt(now time.Time, j *job, v lane.Verdict) {
	w, res, id := j.work, &j.Result, j.Request.DeliveryID
	if w.Envelope == nil { // a parked record that could not be read: nothing is known of it
		return
	}
	if res.Outcome == pipeline.OutcomeLocalError && !d.localRowDue(now, id) {
		return
	}
	a := &d.row // not on the stack: the ports take its address
	*a = attemptOf(res)
	a.AttemptID = attemptID(id, w.Attempt, w.Round, w.Task.Incarnation(), d.tries)
	a.DeliveryID, a.SubscriptionID, a.Envelope = id, pipeline.LaneSubscription(w.LaneKey()), w.Envelope
	a.Attempt, a.Round, a.Final, a.NextAttemptAt, a.Node = w.Attempt, w.Round, v.Final, v.NextAttemptAt, d.deps.Node
	if a.URL = res.URL; a.URL == "" && w.Subscription != nil {
		a.URL = d.deps.RedactURL(w.Subscription.URL)
	}
	d.tries++
	d.appendAttempt(w.Task.Partition(), a)
	d.deps.Metrics.Attempted(a)
	if w.Attempt == 1 && w.Round == 0 && w.Envelope.Replay == "" && !w.Envelope.ProducedAt.IsZero() {
		d.deps.Metrics.FirstAttemptLag(a)
	}
	if v.Final {
		d.endDelivery(a)
	}
	*a = pipeline.Attempt{}
}

// attemptOf begins the row of a try with what came of it.
func attemptOf(res *pipeline.Result) pipeline.Attempt {
	return pipeline.Attempt{
		Outcome: res.Outcome, StatusCode: res.StatusCode, Error: res.Error, StartedAt: res.StartedAt, Elapsed: res.Elapsed,
		DNS: res.DNS, Connect: res.Connect, TLS: res.TLS, TTFB: res.TTFB, RequestHeaders: res.RequestHeaders,
		RequestBytes: res.RequestBytes, RequestWritten: res.RequestWritten, ResponseHeaders: res.ResponseHeaders,
		ResponseBody: res.ResponseBody, ResponseTruncated: res.ResponseTruncated, Resends: res.Resends, AckID: res.AckID,
	}
}

// logCancelled puts the end of a delivery that came without a try into the log.
func (d *Dispatcher) logCancelled(now time.Time, t *lane.Task, o *lane.Out) {
	id := pipeline.DeliveryID(&o.Envelope.Source, o.Subscription)
	a := pipeline.Attempt{
		AttemptID:  attemptID(id, 0, o.Round, t.Incarnation(), d.tries),
		DeliveryID: id, SubscriptionID: o.Subscription, Envelope: o.Envelope, Round: o.Round,
		Outcome: pipeline.OutcomeCancelled, Error: o.Error, StartedAt: now, RequestBytes: len(o.Payload), Final: true,
		Node: d.deps.Node,
	}
	if s := d.view.Get(o.Subscription); s != nil {
		a.URL = d.deps.RedactURL(s.URL)
	}
	d.tries++
	d.appendAttempt(t.Partition(), &a)
	d.deps.Metrics.Attempted(&a)
	d.endDelivery(&a)
}

func (d *Dispatcher) localRowDue(now time.Time, deliveryID string) bool {
	if last, ok := d.localRows[deliveryID]; ok && now.Sub(last) < localRowEvery {
		return false
	}
	if len(d.localRows) >= localRowsKept {
		clear(d.localRows)
	}
	d.localRows[deliveryID] = now
	return true
}

// attemptID names one try. The number of the try in this process is part of it
// since a local error repeats an attempt's number.
func attemptID(delivery string, attempt, round int, incarnation, try uint64) string {
	b := make([]byte, 0, len(delivery)+48)
	b = append(b, delivery...)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(attempt), 10)
	b = append(b, '-')
	b = strconv.AppendInt(b, int64(round), 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, incarnation, 36)
	b = append(b, '-')
	return string(strconv.AppendUint(b, try, 36))
}

func (d *Dispatcher) appendAttempt(task int32, a *pipeline.Attempt) {
	p := task % d.attemptsPartitions
	e := d.encoders[p]
	if e == nil {
		e = new(attemptEncoder)
		e.enc.Reset(d.batchMemory(), attemptlog.Options{})
		d.encoders[p] = e
	}
	e.enc.Append(a)
	if e.enc.Full() {
		d.produceAttempts(p)
	}
}

// flushAttempts produces every batch that has something in it.
func (d *Dispatcher) flushAttempts() {
	for p, e := range d.encoders {
		if e != nil && e.enc.Count() > 0 {
			d.produceAttempts(int32(p))
		}
	}
}

// produceAttempts hands a batch to the attempts client. The next transaction
// commits only when it is acknowledged.
func (d *Dispatcher) produceAttempts(p int32) {
	e := d.encoders[p]
	batch := e.enc.Bytes()
	e.enc.Reset(d.batchMemory(), attemptlog.Options{}) // batch belongs to the client now
	d.acks.add()
	d.attemptBytes.Add(int64(len(batch)))
	d.sendAttempts(p, batch, d.acks)
}

// batchMemory is room for a batch: that of one which Kafka has.
func (d *Dispatcher) batchMemory() []byte {
	if b, ok := d.spareBatches.Get().(*[]byte); ok {
		return *b
	}
	return nil
}

func (d *Dispatcher) newAttemptsClient() (*kgo.Client, error) {
	cl, err := kgo.NewClient(append(slices.Clone(d.base),
		kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0),
		d.deps.Kafka.ProducerCompression(),
		kgo.MaxBufferedRecords(math.MaxInt32), // Produce must not block the loop; see attemptsBufferedBytes
	)...)
	if err != nil {
		return nil, fmt.Errorf("making the attempts client: %w", err)
	}
	return cl, nil
}

// renewAttempts replaces a client that can produce no more: kgo keeps a refusal
// of its producer id for good, also when the permission is there again.
func (d *Dispatcher) renewAttempts(broken *kgo.Client) {
	cl, err := d.newAttemptsClient()
	if err != nil {
		d.log.Error("writing attempts", "err", err)
		return
	}
	if d.attempts.CompareAndSwap(broken, cl) {
		broken.Close() // what it still had comes back as ErrClientClosed, and is sent again
		return
	}
	cl.Close() // another has done it
}

// refusedForGood tells that a producer got no id, and never will.
func refusedForGood(err error) bool {
	return errors.Is(err, kerr.ClusterAuthorizationFailed) || errors.Is(err, kerr.TransactionalIDAuthorizationFailed)
}

// sendAttempts produces batch until Kafka has it. A batch that is too large for
// the topic goes without bodies and headers.
func (d *Dispatcher) sendAttempts(p int32, batch []byte, acks *ackGroup) {
	rec := &kgo.Record{Topic: d.topics.Attempts(), Partition: p, Value: batch}
	cl := d.attempts.Load()
	cl.Produce(context.Background(), rec, func(_ *kgo.Record, err error) {
		if err == nil {
			d.attemptBytes.Add(-int64(len(batch)))
			d.spareBatches.Put(&batch)
			acks.done()
			return
		}
		if errors.Is(err, kgo.ErrClientClosed) && cl == d.attempts.Load() {
			return // nobody waits any more
		}
		again := batch
		if errors.Is(err, kerr.MessageTooLarge) {
			if bare, err := attemptlog.WithoutBodies(nil, batch); err == nil {
				again = bare
				d.attemptBytes.Add(int64(len(bare) - len(batch)))
			}
		}
		d.log.Error("writing attempts; it is tried again", "topic", rec.Topic, "partition", p, "err", err)
		// Not from within the promise: Produce may block while the buffer is full.
		d.resends.Go(func() {
			select {
			case <-time.After(resendPause):
				if refusedForGood(err) && cl == d.attempts.Load() {
					d.renewAttempts(cl)
				}
				d.sendAttempts(p, again, acks)
			case <-d.loopDone:
			}
		})
	})
}

// ackGroup counts the attempt batches that were produced between two cuts and
// are not acknowledged yet.
type ackGroup struct {
	mu     sync.Mutex
	open   int           // under mu
	sealed bool          // nothing more is added; under mu
	idle   chan struct{} // closed when sealed and open is 0
}

func newAckGroup() *ackGroup { return &ackGroup{idle: make(chan struct{})} }

func (g *ackGroup) add() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.open++
}

func (g *ackGroup) done() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.open--; g.open == 0 && g.sealed {
		close(g.idle)
	}
}

// seal says that nothing more is added.
func (g *ackGroup) seal() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.sealed = true; g.open == 0 {
		close(g.idle)
	}
}

// wait waits until everything of a sealed group is acknowledged.
func (g *ackGroup) wait(ctx context.Context) error {
	select {
	case <-g.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
