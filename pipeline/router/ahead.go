package router

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// A broker that is the only one, goes down and comes back can lose the end of a
// transaction in the group's offsets alone (see kafkax.Written): its deliveries are
// there, and its events do not count as routed. A process that lives knows what it
// committed, and makes it good; of one that was killed meanwhile nobody knows
// anything. So whoever is assigned a partition looks whether deliveries is ahead of
// the group's offsets, and leaves out what is there.
//
// That is looked for where it can be: in what was written, to partitions whose leader
// has changed (or was down) since, from the commit on that put the offsets where they
// are. Without such a change it costs three requests, and nothing is read.

const (
	// aheadSlack is how much later than what followed it a commit may seem: clocks of
	// two processes.
	aheadSlack = 5 * time.Second
	// eventSlack is how much later than its record in deliveries an event's may seem:
	// its time is the producer's.
	eventSlack = time.Minute
	// openPatience is how long a transaction that holds events of an assigned
	// partition is waited for. Its holder, if it lives, ends it as it hears that the
	// partition is not its own any more.
	openPatience = 3 * time.Second
	// aheadTimeout bounds all of it.
	aheadTimeout = time.Minute
)

const aheadOfOffsets = "events had been routed, but Kafka has lost that in the group's offsets, as a broker went down; they are not routed again"

// commitMark begins the metadata of an offset that a router commits: Unix time in
// milliseconds follows, and the member's id. Offsets that somebody else has set, to
// route again, do not have it.
const commitMark = "at="

func markCommit(now time.Time, member string) string {
	return commitMark + strconv.FormatInt(now.UnixMilli(), 10) + " by=" + member
}

// committedAt reads a mark.
func committedAt(metadata string) (at time.Time, ok bool) {
	mark, ok := strings.CutPrefix(metadata, commitMark)
	if !ok {
		return at, false
	}
	mark, _, _ = strings.Cut(mark, " ")
	milli, err := strconv.ParseInt(mark, 10, 64)
	return time.UnixMilli(milli), err == nil
}

// ahead is where deliveries has something, committed, of the events of one source
// partition that do not count as routed. A nil one has nothing.
//
// A bad event's letter in events.dead is not looked for: it does no harm twice.
type ahead struct{ at map[place]bool }

// place is a partition of deliveries with an event, by its offset: all that the event
// has there is of one transaction.
type place struct {
	event     int64
	partition int32
}

func (a *ahead) has(event int64, partition int32) bool {
	return a != nil && a.at[place{event, partition}]
}

// search is a look for what is ahead of the offsets of one topic's partitions.
type search struct {
	r         *Router
	fet       *kafkax.Fetcher
	aux       *kgo.Client
	topic     string
	id        [16]byte // the topic's
	committed map[int32]kafkax.Committed
	found     map[int32]*ahead
	open      map[int64][]kafkax.TopicPartition // by producer: where it has something without an end
}

// lookAhead searches for partitions of topic that are assigned and have something to
// read.
func (s *starter) lookAhead(ctx context.Context, fet *kafkax.Fetcher, topic string, id [16]byte, committed map[int32]kafkax.Committed) (map[int32]*ahead, error) {
	ctx, cancel := context.WithTimeout(ctx, aheadTimeout)
	defer cancel()
	x := &search{r: s.r, fet: fet, aux: s.aux, topic: topic, id: id, committed: committed}
	from, err := x.from(ctx)
	if err != nil || len(from) == 0 {
		return nil, err
	}
	tried := 0
	for began := time.Now(); ; {
		if err := x.read(ctx, from); err != nil {
			return nil, err
		}
		if len(x.open) == 0 {
			break
		}
		if time.Since(began) > x.r.openPatience {
			if tried++; tried > 1 {
				s.r.log.Error("transactions without an end have events that are routed anew, and cannot be ended", "topic", topic, "open", len(x.open),
					"remedy", "kafka-transactions.sh find-hanging, and abort what it finds in "+s.r.deliveries)
				break
			}
			if err := x.end(ctx); err != nil {
				return nil, err
			}
			began = time.Now()
		}
		if !sleep(ctx, minBackoff) {
			return nil, ctx.Err()
		}
	}
	for p, a := range x.found {
		s.r.log.Warn(aheadOfOffsets,
			"topic", topic, "partition", p, "records", len(a.at), "remedy", kafkax.LostRemedy)
	}
	return x.found, nil
}

// from gives where to read from: nothing where there is no need.
func (x *search) from(ctx context.Context) (map[kafkax.TopicPartition]int64, error) {
	for p, c := range x.committed {
		if _, ok := committedAt(c.Metadata); !ok {
			delete(x.committed, p)
		}
	}
	from, err := x.since(ctx, func(int32, time.Time) (time.Time, bool, error) { return time.Time{}, true, nil })
	if err != nil || len(from) == 0 {
		return nil, err
	}
	// A partition that was idle for long was not ahead of its next event's time.
	return x.since(ctx, func(p int32, at time.Time) (time.Time, bool, error) {
		rec, err := x.next(ctx, p)
		if err != nil || rec == nil {
			return at, false, err
		}
		return rec.Timestamp.Add(-eventSlack), true, nil
	})
}

// since gives what was written since the first of the partitions' commits, each of
// which notBefore may call later or leave out; only where there was another leader.
func (x *search) since(ctx context.Context, notBefore func(int32, time.Time) (time.Time, bool, error)) (map[kafkax.TopicPartition]int64, error) {
	var first time.Time
	for p, c := range x.committed {
		at, _ := committedAt(c.Metadata)
		later, has, err := notBefore(p, at)
		if err != nil {
			return nil, err
		}
		if !has {
			continue
		}
		if at = at.Add(-aheadSlack); later.After(at) {
			at = later
		}
		if first.IsZero() || at.Before(first) {
			first = at
		}
	}
	if first.IsZero() {
		return nil, nil
	}
	began, err := x.fet.LeaderStarts(ctx, x.r.deliveries)
	if err != nil {
		return nil, err
	}
	after, err := x.fet.OffsetsAfter(ctx, first, x.r.deliveries)
	if err != nil {
		return nil, err
	}
	from := map[kafkax.TopicPartition]int64{}
	for p, offset := range after[x.r.deliveries] {
		if offset < began[x.r.deliveries][p] {
			from[kafkax.TopicPartition{Topic: x.r.deliveries, Partition: p}] = offset
		}
	}
	return from, nil
}

// next gives a partition's first event that does not count as routed; nil: there is
// none that can be read.
func (x *search) next(ctx context.Context, p int32) (*kgo.Record, error) {
	for at := x.committed[p].Offset; ; {
		recs, next, err := x.fet.At(ctx, x.topic, p, at, 1)
		if err != nil || len(recs) > 0 || next == at {
			return first(recs), err
		}
		at = next
	}
}

func first(recs []*kgo.Record) *kgo.Record {
	if len(recs) == 0 {
		return nil
	}
	return recs[0]
}

// read sets found and open.
func (x *search) read(ctx context.Context, from map[kafkax.TopicPartition]int64) error {
	x.found, x.open = map[int32]*ahead{}, map[int64][]kafkax.TopicPartition{}
	err := x.fet.Ends(ctx, from, x.concerns, func(rec *kgo.Record, end kafkax.End) {
		switch end {
		case kafkax.EndCommitted:
			src, _ := sourceOf(rec)
			a := x.found[src.Partition]
			if a == nil {
				a = &ahead{at: map[place]bool{}}
				x.found[src.Partition] = a
			}
			a.at[place{src.Offset, rec.Partition}] = true
		case kafkax.EndOpen:
			if at := (kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}); !slices.Contains(x.open[rec.ProducerID], at) {
				x.open[rec.ProducerID] = append(x.open[rec.ProducerID], at)
			}
		case kafkax.EndAborted, kafkax.EndUnknown:
		}
	})
	if err != nil {
		return fmt.Errorf("looking for what was routed ahead of the group's offsets: %w", err)
	}
	return nil
}

// concerns tells whether a router wrote a record for an event that does not count as
// routed.
func (x *search) concerns(rec *kgo.Record) bool {
	env, ok := envelopeOf(rec)
	src := &env.Source
	if !ok || env.Replay != "" || src.Topic != x.topic || src.TopicID != x.id || src.Cluster != x.r.cluster {
		return false
	}
	c, mine := x.committed[src.Partition]
	return mine && src.Offset >= c.Offset
}

// envelopeOf takes a record of deliveries apart.
func envelopeOf(rec *kgo.Record) (env pipeline.Envelope, ok bool) {
	for _, h := range rec.Headers {
		if h.Key == kafkax.HeaderEnvelope {
			return env, kafkax.DecodeEnvelope(h.Value, &env) == nil
		}
	}
	return env, false
}

// end aborts what has no end: its events are about to be routed. Nobody may do that any
// more but us, so who holds it is gone, or hears that it is fenced.
func (x *search) end(ctx context.Context) error {
	listed, err := kadm.NewClient(x.aux).ListTransactions(ctx, nil, nil)
	if err != nil {
		return fmt.Errorf("listing the group's transactions: %w", err)
	}
	for _, txn := range listed {
		at := x.open[txn.ProducerID]
		if len(at) == 0 || !strings.HasPrefix(txn.TxnID, x.r.kafka.RouterGroup()+".") {
			continue
		}
		x.r.log.Warn("a transaction without an end has events that are routed anew; it is aborted", "transaction", txn.TxnID, "partitions", len(at))
		if err := x.abort(ctx, txn.TxnID, at); err != nil {
			return err
		}
	}
	return nil
}

func (x *search) abort(ctx context.Context, id string, at []kafkax.TopicPartition) error {
	cl, err := x.r.transactional(id)
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafkax.EndHanging(ctx, cl, id, "", at, false)
}

// ahead gives what is known of an assigned partition; nil: nothing.
func (s *starter) ahead(topic string, p int32) *ahead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aheads[topic][p]
}

// marked has the transaction commit its offsets with the time of the commit.
func (ses *session) marked(req *kmsg.TxnOffsetCommitRequest) {
	mark := markCommit(time.Now(), req.MemberID)
	for i := range req.Topics {
		for j := range req.Topics[i].Partitions {
			req.Topics[i].Partitions[j].Metadata = &mark
		}
	}
}
