package replay

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// newRandom is the part of a replay's id that tells it from others: lower case,
// since it stands in headers and lane keys.
func newRandom() string { return strings.ToLower(rand.Text()[:13]) }

// ErrElsewhere says that another process runs the same replay.
var ErrElsewhere = errors.New("another process is running this replay (or ran it a moment ago: run it again)")

// enqueue enqueues what is planned, batch by batch.
func (u *run) enqueue(ctx context.Context, pl *planner) error {
	if len(pl.items) == 0 && !u.continued {
		u.progress.State = StateDone
		return nil
	}
	cl, err := u.producer(ctx)
	if err != nil {
		return err
	}
	defer cl.Close()
	u.lastOffset = map[int32]int64{}
	rd := newReader(u.r, pl.sources)
	rate := u.opts.Rate
	if rate <= 0 {
		rate = DefaultRate
	}
	next := u.r.now()
	for rest := pl.items; ; {
		if len(rest) > 0 {
			if err := u.hold(ctx); err != nil {
				return err
			}
		}
		b := &batch{u: u, pl: pl}
		n := 0
		for most := min(len(rest), batchEvents, max(1, rate/5)); n < most && b.bytes < batchBytes; n++ {
			if err := b.add(ctx, rd, rest[n]); err != nil {
				return err
			}
		}
		rest = rest[n:]
		if err := u.commit(ctx, cl, b, len(rest) == 0); err != nil {
			return err
		}
		u.tell(Waiting{})
		if len(rest) == 0 {
			return nil
		}
		next = next.Add(time.Duration(n) * time.Second / time.Duration(rate))
		if err := sleep(ctx, next.Sub(u.r.now())); err != nil {
			return err
		}
		next = laterOf(next, u.r.now().Add(-time.Second)) // what was held up is not made up for
	}
}

func laterOf(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(max(d, 0))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("interrupted: what was enqueued stays (run the same again to go on): %w", context.Cause(ctx))
	}
}

// producer becomes the one that runs this replay, and makes sure that nobody has
// brought it on since it was planned.
func (u *run) producer(ctx context.Context) (*kgo.Client, error) {
	// The one that is under way is not fenced where this one finds it in time.
	if err := u.alone(ctx); err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(slices.Clone(u.r.base),
		kgo.TransactionalID(u.r.topics.Prefix+"replay."+u.progress.Fingerprint), kgo.TransactionTimeout(transactionTimeout),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0),
		u.r.deps.Kafka.ProducerCompression())...)
	if err != nil {
		return nil, fmt.Errorf("making the replay's Kafka client: %w", err)
	}
	if _, _, err := cl.ProducerID(ctx); err != nil {
		cl.Close()
		return nil, fmt.Errorf("becoming the one that runs replay %s: %w", u.progress.ID, err)
	}
	err = u.alone(ctx)
	if err == nil && !u.continued { // from now on others find it
		err = u.commit(ctx, cl, &batch{u: u}, false)
	}
	if err != nil {
		cl.Close()
		return nil, err
	}
	return cl, nil
}

// alone makes sure that since the plan was made nobody has brought this replay on,
// or begun one of the same selection.
func (u *run) alone(ctx context.Context) error {
	all, err := u.r.List(ctx)
	if err != nil {
		return err
	}
	for i := range all {
		p := &all[i]
		if p.ID == u.progress.ID && p.Events != u.progress.Events ||
			p.ID != u.progress.ID && p.Fingerprint == u.progress.Fingerprint && !u.known[p.ID] {
			return ErrElsewhere
		}
	}
	return nil
}

// batch is what one transaction enqueues.
type batch struct {
	u        *run
	pl       *planner
	records  []*kgo.Record
	bytes    int
	events   int
	enqueued int
	passed   int
	next     map[string]int64
	matched  []*pipeline.Subscription
	subs     map[int32][]string
}

// add reads, parses and matches one event.
func (b *batch) add(ctx context.Context, rd *reader, it item) error {
	s := &b.pl.sources[it.source]
	if b.next == nil {
		b.next, b.subs = map[string]int64{}, map[int32][]string{}
	}
	b.events++
	b.next[sourceKey(s.Topic, s.Partition)] = it.offset + 1
	rec, _, err := rd.record(ctx, it.source, it.offset)
	if err != nil {
		return fmt.Errorf("reading an event again: %w", err)
	}
	src := s.Position
	src.Offset = it.offset
	if rec == nil {
		return b.fromDead(ctx, &src)
	}
	ev, err := b.u.r.deps.Parse(rec, &src)
	if err != nil {
		b.passed++
		return nil //nolint:nilerr // the configuration of its topic has changed
	}
	if b.matched = b.u.match(ev, b.matched[:0]); len(b.matched) == 0 {
		b.passed++
		return nil
	}
	env := pipeline.Envelope{
		Source: ev.Source, Format: ev.Format, EventID: ev.ID, Tenant: ev.Tenant, EventType: ev.Type, Entity: ev.Entity, Correlation: ev.Correlation,
		ContentType: ev.ContentType, Time: ev.Time, ProducedAt: rec.Timestamp, RegistryVersion: b.u.version, Replay: b.u.progress.ID,
		Trace:  kafkax.TraceOf(rec),
		Splice: ev.Splice, Attributes: ev.Attributes,
	}
	for _, m := range b.matched {
		p := kafkax.Partition(m.ID, b.u.r.deps.Kafka.Partitions)
		b.subs[p] = append(b.subs[p], m.ID)
	}
	b.fanOut(&env, ev.Payload)
	return nil
}

// fromDead makes a delivery again of its copy in dead, where there is one.
func (b *batch) fromDead(ctx context.Context, src *pipeline.Position) error {
	at, ok := b.pl.dead[keyOf(src)]
	if !ok {
		b.passed++
		return nil
	}
	id, r := b.u.progress.Selection.Subscription, b.u.r
	p := kafkax.Partition(id, r.deps.Kafka.Partitions)
	recs, _, err := r.fetcher.At(ctx, r.topics.Dead(), p, at, readBytes)
	if err != nil {
		return fmt.Errorf("reading a dead letter: %w", err)
	}
	if len(recs) == 0 || recs[0].Offset != at {
		b.passed++
		return nil
	}
	d, err := kafkax.ParseDead(recs[0])
	if err != nil {
		b.passed++
		return nil //nolint:nilerr // it was readable when the plan was made
	}
	d.Envelope.Replay, d.Envelope.RegistryVersion = b.u.progress.ID, b.u.version
	b.subs[p] = append(b.subs[p], id)
	b.fanOut(&d.Envelope, d.Payload)
	return nil
}

func (b *batch) fanOut(env *pipeline.Envelope, payload []byte) {
	header := kafkax.EncodeEnvelope(nil, env)
	fits := len(header) <= kafkax.MaxEnvelopeBytes
	for p, ids := range b.subs {
		for ; len(ids) > 0 && fits; ids = ids[min(len(ids), kafkax.MaxSubs):] {
			part := ids[:min(len(ids), kafkax.MaxSubs)]
			b.records = append(b.records, &kgo.Record{
				Topic: b.u.r.topics.Deliveries(), Partition: p, Value: payload,
				Headers: []kgo.RecordHeader{
					{Key: kafkax.HeaderEnvelope, Value: header}, {Key: kafkax.HeaderSubs, Value: kafkax.EncodeSubs(nil, part)},
				},
			})
			b.enqueued += len(part)
			b.bytes += len(payload) + len(header)
		}
		delete(b.subs, p)
	}
	if !fits {
		b.passed++
	}
}

// commit enqueues a batch and notes the progress, in one transaction.
func (u *run) commit(ctx context.Context, cl *kgo.Client, b *batch, last bool) error {
	p := u.progress
	p.Next = map[string]int64{}
	for k, v := range u.progress.Next {
		p.Next[k] = v
	}
	for k, v := range b.next {
		p.Next[k] = v
	}
	p.Events, p.Enqueued, p.Passed = p.Events+b.events, p.Enqueued+b.enqueued, p.Passed+b.passed
	p.UpdatedAt = u.r.now().UTC().Truncate(time.Millisecond)
	records := b.records
	if last {
		p.State = StateDone
		e := audit.Entry{
			ID: p.ID, Time: p.UpdatedAt, Actor: u.opts.Who, Action: audit.ActionReplay, Subscription: p.Selection.Subscription,
			Delivery: p.Selection.Delivery, Result: audit.ResultDone, Node: u.r.deps.Node,
			Detail: fmt.Sprintf("%d deliveries of %d events enqueued, %d events passed over", p.Enqueued, p.Events, p.Passed),
		}
		records = append(records, &kgo.Record{Topic: u.r.topics.Audit(), Key: []byte(e.Subscription), Value: audit.Encode(&e)})
	}
	records = append(records, u.r.progressRecord(&p))
	if err := cl.BeginTransaction(); err != nil {
		return fmt.Errorf("beginning a transaction of the replay: %w", err)
	}
	if err := cl.ProduceSync(ctx, records...).FirstErr(); err != nil {
		return errors.Join(elsewhere(fmt.Errorf("enqueuing: %w", err)), cl.EndTransaction(context.WithoutCancel(ctx), kgo.TryAbort))
	}
	if err := cl.EndTransaction(context.WithoutCancel(ctx), kgo.TryCommit); err != nil {
		return elsewhere(fmt.Errorf("committing a part of the replay (run the same again to go on): %w", err))
	}
	for _, rec := range b.records {
		u.lastOffset[rec.Partition] = rec.Offset
	}
	u.progress = p
	return nil
}

// elsewhere names the errors by which Kafka tells a fenced producer.
func elsewhere(err error) error {
	for _, fenced := range []error{kerr.ProducerFenced, kerr.InvalidProducerEpoch, kerr.InvalidProducerIDMapping} {
		if errors.Is(err, fenced) {
			return fmt.Errorf("%w: %w", ErrElsewhere, err)
		}
	}
	return err
}

// hold waits while too much of the subscription waits already.
func (u *run) hold(ctx context.Context) error {
	id := u.subscription()
	if id == "" || u.r.now().Sub(u.statusAt) < statusEvery {
		return nil
	}
	for {
		st, err := u.r.status(ctx, u.opts.Who, id)
		if err != nil {
			return err
		}
		u.statusAt = u.r.now()
		w := Waiting{Silent: st == nil}
		if st != nil {
			w.Deliveries = st.Queued + st.Parked + st.Heads
			if u.progress.Selection.CatchUp {
				w.Deliveries = st.CatchUpDeliveries // the others wait for it
			}
			if last, ok := u.lastOffset[st.Partition]; ok && last >= st.Read {
				w.Deliveries += int(min(last-st.Read+1, int64(u.progress.Enqueued))) // not read yet
			}
		} else {
			w.Deliveries = u.progress.Enqueued // at most
		}
		if w.Deliveries < waitingMost {
			return nil
		}
		u.tell(w)
		if err := sleep(ctx, statusEvery); err != nil {
			return err
		}
	}
}

// subscription is the one that is replayed to; empty: several.
func (u *run) subscription() string {
	if s := u.progress.Selection.Subscription; s != "" {
		return s
	}
	return u.only
}

func (u *run) tell(w Waiting) {
	if u.opts.OnProgress != nil {
		u.opts.OnProgress(u.progress, w)
	}
}
