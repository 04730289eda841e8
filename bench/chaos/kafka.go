package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/proof"
)

// produce writes events for as long as the load is on, as many as are wanted:
// at most o.rate deliveries a second, and none while o.backlog of them wait.
// Every event is acknowledged before it returns.
func (r *runner) produce(ctx context.Context) error {
	const step = 10 * time.Millisecond
	tick := time.NewTicker(step)
	defer tick.Stop()
	var flying sync.WaitGroup
	var mu sync.Mutex
	var failed error
	seq, budget := 0, 0.0
	var unacked atomic.Int64 // deliveries of events on their way
	for ctx.Err() == nil {
		<-tick.C
		open, _, _, err := r.track.state()
		if err != nil {
			break
		}
		open += int(unacked.Load())
		for budget += float64(r.o.rate) * step.Seconds(); budget > 0 && open < r.o.backlog; {
			seq++
			n := seq
			takers := r.world.takers[typeOf(n)]
			budget, open = budget-float64(takers), open+takers
			rec := &kgo.Record{Key: strconv.AppendInt(nil, int64(n%64), 10), Value: appendBody(nil, n)}
			flying.Add(1)
			unacked.Add(int64(takers))
			// Without ctx: an event of which nobody knows whether Kafka has it
			// would prove nothing.
			r.client.Produce(context.Background(), rec, func(rec *kgo.Record, err error) {
				defer flying.Done()
				defer unacked.Add(-int64(takers))
				if err == nil {
					err = r.journal.Event(&proof.Event{Seq: n, Type: typeOf(n), Entity: entityOf(n), Partition: rec.Partition, Offset: rec.Offset, At: r.now()})
				}
				if err != nil {
					mu.Lock()
					failed = err
					mu.Unlock()
					return
				}
				r.track.ack(n)
			})
		}
		budget = min(budget, float64(r.o.rate)) // what was not produced for a second is not made up for
	}
	flying.Wait()
	mu.Lock()
	defer mu.Unlock()
	if failed != nil {
		return fmt.Errorf("producing events: %w", failed)
	}
	return nil
}

// tails follows the topics dead and lanes, as far as they are committed.
type tails struct {
	r      *runner
	cl     *kgo.Client
	cancel context.CancelFunc
	work   sync.WaitGroup

	mu   sync.Mutex
	next map[string]map[int32]int64 // under mu
}

func (r *runner) prefixed(topic string) string { return r.vars["TOPIC_PREFIX"] + topic }

func follow(addrs []string, r *runner) (*tails, error) {
	dead, lanes := r.prefixed("dead"), r.prefixed("lanes")
	// With the markers of transactions, so that the last offset is seen.
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.ConsumeTopics(dead, lanes), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	if err != nil {
		return nil, fmt.Errorf("making the consumer: %w", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	t := &tails{r: r, cl: cl, cancel: cancel, next: map[string]map[int32]int64{dead: {}, lanes: {}}}
	t.work.Go(func() {
		for ctx.Err() == nil {
			for rec := range cl.PollFetches(ctx).RecordsAll() {
				t.take(rec)
			}
		}
	})
	return t, nil
}

func (t *tails) close() error {
	t.cancel()
	t.work.Wait()
	t.cl.Close()
	return nil
}

func (t *tails) take(rec *kgo.Record) {
	switch {
	case rec.Attrs.IsControl():
	case rec.Topic == t.r.prefixed("dead"):
		t.bury(rec)
	case string(rec.Key) == "#d":
		t.r.failing(t.r.journal.Commit(&proof.Commit{
			Partition: rec.Partition, Producer: fmt.Sprintf("%d/%d", rec.ProducerID, rec.ProducerEpoch), At: rec.Timestamp.Sub(t.r.began),
		}))
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next[rec.Topic][rec.Partition] = rec.Offset + 1
}

// bury notes a dead letter, by the headers that users are told of.
func (t *tails) bury(rec *kgo.Record) {
	h := map[string]string{}
	for _, x := range rec.Headers {
		h[x.Key] = string(x.Value)
	}
	sub, known := t.r.world.byID[string(rec.Key)]
	seq := seqOf(string(rec.Value))
	attempts, err := strconv.Atoi(h["hookline-attempts"])
	if !known || err != nil || seq == 0 {
		t.r.stray(fmt.Sprintf("dead letter %d/%d for %q: %v", rec.Partition, rec.Offset, rec.Key, h))
		return
	}
	t.r.failing(t.r.journal.Letter(&proof.Letter{
		Sub: sub, Seq: seq, Attempts: attempts, ID: h["webhook-id"], Reason: h["hookline-reason"], At: rec.Timestamp.Sub(t.r.began),
	}))
	t.r.track.settle(sub, seq)
}

// drain returns when everything that is committed has been read.
func (t *tails) drain(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 60*time.Second)
	defer cancel()
	for topic := range t.next {
		ends, err := kadm.NewClient(t.r.client).ListCommittedOffsets(ctx, topic)
		if err = errors.Join(err, ends.Error()); err != nil {
			return fmt.Errorf("reading the end of %s: %w", topic, err)
		}
		for !t.reached(topic, ends) {
			if ctx.Err() != nil {
				return fmt.Errorf("reading %s to its end: %w", topic, ctx.Err())
			}
			wait(ctx, 50*time.Millisecond)
		}
	}
	return nil
}

func (t *tails) reached(topic string, ends kadm.ListedOffsets) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := true
	ends.Each(func(o kadm.ListedOffset) { all = all && t.next[topic][o.Partition] >= o.Offset })
	return all
}
