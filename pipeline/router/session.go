package router

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/closing"
	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// hookError carries a test hook's error through Run.
type hookError struct{ err error }

func (e *hookError) Error() string { return e.err.Error() }

// session is one life of a GroupTransactSession.
type session struct {
	r       *Router
	s       *kgo.GroupTransactSession
	aux     *kgo.Client // plain client for requests
	starter *starter
	batch   *batch
	specs   map[string]*TopicSpec
	bombs   []bomb // of this transaction
	settle  settling

	mu   sync.Mutex
	fail error // first error of producing in this transaction; written by kgo's goroutines
}

// session routes until ctx is done (nil) or this session is of no more use.
func (r *Router) session(ctx context.Context) error {
	aux, err := kgo.NewClient(r.opts...)
	if err != nil {
		return fmt.Errorf("making a Kafka client: %w", err)
	}
	defer aux.Close()
	r.mend(ctx, aux)
	if err := r.restore(ctx, aux); err != nil {
		return err
	}
	st := newStarter(r, aux)
	s, err := kgo.NewGroupTransactSession(r.sessionOpts(st)...)
	if err != nil {
		return fmt.Errorf("making a Kafka session: %w", err)
	}
	ses := &session{r: r, s: s, aux: aux, starter: st, batch: newBatch(r), specs: map[string]*TopicSpec{}}
	ses.batch.produce = func(rec *kgo.Record) { s.Produce(context.Background(), rec, ses.produced) }

	// What is under way when ctx ends gets stopTimeout more.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stopped := context.AfterFunc(ctx, func() {
		t := time.AfterFunc(stopTimeout, cancel)
		context.AfterFunc(work, func() { t.Stop() })
	})
	defer stopped()

	// Taking the transactional id ends what a former holder left open, on whose
	// offsets the partitions' assignment would wait else (up to 10 s).
	if _, _, err = s.Client().ProducerID(work); err != nil {
		err = fmt.Errorf("taking the transactional id %s: %w", r.txnID, err)
	} else {
		err = ses.watched(ctx, work, aux)
	}
	if _, crash := errors.AsType[*hookError](err); !crash {
		ses.leave(ctx, aux)
	}
	ses.close(ctx)
	return err
}

// close closes the client. At a stop it is not waited for: it would leave the
// group once more, which took 10 s in the middle of a rebalance, and the process
// is about to end.
func (ses *session) close(ctx context.Context) {
	if ctx.Err() == nil {
		ses.s.Close()
	} else if !closing.Within(closeTimeout, ses.s.Close) {
		ses.r.log.Warn("closing the router's Kafka client takes long; the process does not wait for it")
	}
}

// watched runs the loop; beside it the lag is measured, and whether the group's
// offsets are stable: where they stay unstable this session ends.
func (ses *session) watched(ctx, work context.Context, aux *kgo.Client) error {
	lctx, stop := context.WithCancelCause(ctx)
	var beside sync.WaitGroup
	beside.Go(func() { ses.r.watchLag(lctx, ses.s.Client(), aux) })
	beside.Go(func() { ses.r.watchStable(lctx, aux, func() { stop(errUnstable) }) })
	defer beside.Wait()
	defer stop(nil)
	err := ses.loop(lctx, work)
	if err == nil && errors.Is(context.Cause(lctx), errUnstable) {
		return errUnstable
	}
	return err
}

// leave leaves the group so that the partitions move at once.
func (ses *session) leave(ctx context.Context, aux *kgo.Client) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	err := ses.s.Client().LeaveGroupContext(bounded)
	cancel()
	k := ses.r.kafka
	// kgo does not leave for a static member. A session that is made anew is the
	// same member: it stays.
	if k.InstanceID != "" && !k.StayOnStop && ctx.Err() != nil {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
		defer cancel()
		err = errors.Join(err, kafkax.LeaveGroup(bounded, aux, k.RouterGroup(), k.InstanceID))
	}
	if err != nil {
		ses.r.log.Warn("leaving the group failed; its partitions move after the session timeout", "error", err)
	}
}

func (ses *session) produced(_ *kgo.Record, err error) {
	if err == nil {
		return
	}
	ses.mu.Lock()
	defer ses.mu.Unlock()
	if ses.fail == nil {
		ses.fail = err
	}
}

// loop runs transactions, one begun at the earliest an interval after the last
// one: the first record after a pause is routed at once, and under load a
// transaction gathers for the interval.
//
// The client fetches ahead, once: what it has at hand when a transaction begins
// was fetched when the last one began, and what was written since stands at the
// broker. Routed as it is, an event would wait for a transaction and a half
// before its own. So such a transaction gathers also what the next fetch brings.
func (ses *session) loop(ctx, work context.Context) error {
	r := ses.r
	var began time.Time
	aborted := 0
	for ctx.Err() == nil {
		ahead := ses.s.Client().BufferedFetchRecords() > 0
		r.idle.Store(true)
		fetches := ses.s.PollRecords(ctx, pollRecords)
		r.idle.Store(false)
		if err := ses.fetchErrors(fetches); err != nil {
			return err
		}
		if fetches.NumRecords() == 0 && len(ses.bombs) == 0 {
			continue
		}
		g := gathering{until: began.Add(r.cfg.Interval)}
		if settled := ses.settle.until(); settled.After(g.until) {
			g.until = settled
		}
		began = time.Now()
		// Of a backlog a full poll is enough.
		if ahead && fetches.NumRecords() < pollRecords {
			g.fresh, g.freshUntil = len(fetches), began.Add(r.freshWait)
		}
		committed, err := ses.transaction(ctx, work, fetches, g)
		if err != nil {
			return err
		}
		if committed {
			aborted = 0
			continue
		}
		if err := r.intact(work, ses.aux); err != nil {
			return err
		}
		aborted++
		if !sleep(ctx, min(minBackoff<<min(aborted-1, 10), maxBackoff)) {
			return nil
		}
	}
	return nil
}

// gathering says for how long a transaction takes in more.
type gathering struct {
	until time.Time
	// fresh is the number of brokers' answers that it takes in beyond that, which
	// are waited for until freshUntil.
	fresh      int
	freshUntil time.Time
}

// left is until when to wait for more; not after now: no longer.
func (g *gathering) left() time.Time {
	if g.fresh > 0 && g.freshUntil.After(g.until) {
		return g.freshUntil
	}
	return g.until
}

// transaction routes fetches, and what else comes as g says.
func (ses *session) transaction(ctx, work context.Context, fetches kgo.Fetches, g gathering) (committed bool, err error) {
	if err := ses.s.Begin(); err != nil {
		return false, fmt.Errorf("beginning a transaction: %w", err)
	}
	b := ses.batch
	err = ses.route(ctx, fetches)
	for err == nil && !b.full() && ctx.Err() == nil && time.Now().Before(g.left()) {
		poll, cancel := context.WithDeadline(ctx, g.left())
		more := ses.s.PollRecords(poll, pollRecords)
		cancel()
		g.fresh -= len(more)
		if err = ses.fetchErrors(more); err != nil {
			// kgo tells of it once only: this session is of no more use.
			_, end := ses.end(work, err)
			return false, errors.Join(err, end)
		}
		err = ses.route(ctx, more)
	}
	if err == nil && ses.r.hook != nil {
		_ = ses.s.Client().Flush(work)
		if herr := ses.r.hook(ctx); herr != nil {
			return false, &hookError{herr}
		}
	}
	return ses.end(work, err)
}

// end commits what was routed, or aborts it all.
func (ses *session) end(work context.Context, routing error) (committed bool, err error) {
	try := kgo.TryCommit
	if routing == nil {
		begun := time.Now()
		routing = ses.s.Client().Flush(work)
		if ses.batch.records > 0 {
			ses.settle.wrote(time.Since(begun))
		}
	}
	if routing == nil {
		routing = ses.takeFailure()
	}
	if routing != nil {
		try = kgo.TryAbort
		ses.r.warn("routing a batch failed; it is aborted and tried again", "error", routing)
	}
	if ses.batch.records > 0 {
		failpoint.Hit(failpoint.Routed)
	}
	committed, err = ses.s.End(kgo.PreTxnCommitFnContext(work, func(req *kmsg.TxnOffsetCommitRequest) error {
		ses.passBombs(req)
		ses.marked(req)
		return nil
	}), try)
	ses.settle.ended = time.Now()
	_ = ses.takeFailure() // an abort fails what was buffered
	ses.batch.settle(committed)
	ses.batch.endSpans(committed)
	ses.r.written.note(time.Now(), ses.batch, try, committed)
	if committed {
		ses.batch.publish()
		ses.skipBombs()
	} else {
		ses.starter.rewind(ses.s.Client().CommittedOffsets())
	}
	ses.bombs = ses.bombs[:0]
	ses.batch.reset(err == nil)
	if err != nil {
		return false, fmt.Errorf("ending a transaction: %w", err)
	}
	return committed, nil
}

func (ses *session) takeFailure() error {
	ses.mu.Lock()
	defer ses.mu.Unlock()
	err := ses.fail
	ses.fail = nil
	return err
}

// route adds everything in fetches to the batch. Where it stops at an error the
// transaction must be aborted.
func (ses *session) route(ctx context.Context, fetches kgo.Fetches) error {
	if ses.batch.matcher = ses.r.current(ctx); ses.batch.matcher == nil {
		return fmt.Errorf("waiting for the subscriptions: %w", context.Cause(ctx))
	}
	ses.routeBombs()
	for i := range fetches {
		for j := range fetches[i].Topics {
			t := &fetches[i].Topics[j]
			if err := ses.routeTopic(t); err != nil {
				return err
			}
		}
	}
	return nil
}

func (ses *session) routeTopic(t *kgo.FetchTopic) error {
	spec := ses.spec(t.Topic)
	for i := range t.Partitions {
		p := &t.Partitions[i]
		ses.starter.seen(p, t.Topic)
		if len(p.Records) == 0 {
			continue
		}
		id, ok := ses.starter.topicID(t.Topic)
		if spec == nil || !ok {
			return fmt.Errorf("routing records of topic %s: it is not one of EVENTS_TOPICS or was not assigned", t.Topic)
		}
		m := ses.starter.memory(t.Topic, p.Partition)
		if m == nil && spec.Options.DedupeWindow > 0 {
			return fmt.Errorf("routing records of %s/%d: the partition was taken away", t.Topic, p.Partition)
		}
		ses.batch.use(m, ses.starter.ahead(t.Topic, p.Partition))
		for _, rec := range p.Records {
			ses.batch.add(rec, spec, id)
		}
	}
	return nil
}

func (ses *session) spec(topic string) *TopicSpec {
	s, ok := ses.specs[topic]
	if !ok {
		s = ses.r.cfg.EventsTopics.find(topic)
		ses.specs[topic] = s
	}
	return s
}

// fetchErrors sorts out what a poll brought besides records. An error means that
// the session must be made anew.
func (ses *session) fetchErrors(fetches kgo.Fetches) error {
	var fatal error
	fetches.EachError(func(topic string, partition int32, err error) {
		switch {
		case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		case errors.Is(err, kgo.ErrClientClosed):
			fatal = err
		default:
			if large, ok := errors.AsType[*kgo.ErrDecompressTooLarge](err); ok {
				ses.bombs = append(ses.bombs, bomb{ErrDecompressTooLarge: large})
				return
			}
			if loss, ok := errors.AsType[*kgo.ErrDataLoss](err); ok {
				ses.r.log.Error("an event topic lost records that were read already; going on where the logs part, or at its start", "error", loss)
				return
			}
			if ge, ok := errors.AsType[*kgo.ErrGroupSession](err); ok {
				// kgo says so itself and joins again, unless another process has this identity.
				ses.r.log.Debug("the consumer group's session failed", "error", ge)
				if errors.Is(err, kerr.FencedInstanceID) {
					fatal = err
				}
				return
			}
			fatal = fmt.Errorf("fetching %s/%d: %w", topic, partition, err)
		}
	})
	return fatal
}
