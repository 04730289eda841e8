package router

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// aheadSlack is how much later than what followed it a commit may seem: clocks of
	// two processes.
	aheadSlack = 5 * time.Second
	// openPatience is how long a transaction that holds events of an assigned
	// partition is waited for. Its holder, if it lives, ends it as it hears that the
	// partition is not its own any more.
	openPatience = 3 * time.Second
	// searchRecords bounds what is read before the leaders began, and the same again
	// behind that: what is looked for is the last that was written before a broker went
	// down, and its end.
	searchRecords = 500_000
	// searchTimeout bounds it all.
	searchTimeout = 15 * time.Second
	// searchTries is how often transactions without an end are ended.
	searchTries = 2
)

// search is a look for what is ahead of the offsets of assigned partitions. Where no
// leader has changed it costs four requests, and nothing is read.
type search struct {
	r      *Router
	fet    *kafkax.Fetcher
	aux    *kgo.Client
	bounds map[kafkax.TopicPartition]bound // of assigned partitions
	found  map[kafkax.TopicPartition]*ahead
	open   map[holder]int64 // the first offset of what has no end
}

// bound is where a source partition's events are not routed from, by its offset.
type bound struct {
	id     [16]byte // the topic's
	offset int64
	mark   string
	since  time.Time // no record of such an event was written before
}

// holder is a producer that has something in a partition of deliveries.
type holder struct {
	producer int64
	at       kafkax.TopicPartition
}

// run sets found.
func (x *search) run(ctx context.Context) error {
	if len(x.bounds) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, searchTimeout)
	defer cancel()
	where, err := x.ranges(ctx)
	if err != nil || len(where) == 0 {
		return err
	}
	for tries := 0; ; tries++ {
		if err := x.read(ctx, where); err != nil || len(x.open) == 0 {
			return err
		}
		if tries == searchTries {
			x.r.log.Error("transactions without an end have events that are routed anew, and cannot be ended", "open", len(x.open),
				"remedy", "kafka-transactions.sh find-hanging, and abort what it finds in "+x.r.deliveries)
			return nil
		}
		if err := x.await(ctx); err != nil {
			return err
		}
	}
}

// ranges gives where to read: what was written since the first of the partitions'
// commits, where another leader was then, or the same one before it was down.
func (x *search) ranges(ctx context.Context) (map[kafkax.TopicPartition]kafkax.Range, error) {
	var first time.Time
	for _, b := range x.bounds {
		if first.IsZero() || b.since.Before(first) {
			first = b.since
		}
	}
	began, err := x.fet.LeaderStarts(ctx, x.r.deliveries)
	if err != nil {
		return nil, err
	}
	after, err := x.fet.OffsetsAfter(ctx, first, x.r.deliveries)
	if err != nil {
		return nil, err
	}
	ends, err := x.fet.EndOffsets(ctx, x.r.deliveries)
	if err != nil {
		return nil, err
	}
	most := int64(searchRecords / max(len(ends[x.r.deliveries]), 1))
	out := map[kafkax.TopicPartition]kafkax.Range{}
	for p, end := range ends[x.r.deliveries] {
		fell, from := min(began[x.r.deliveries][p], end), after[x.r.deliveries][p]
		if from < fell {
			out[kafkax.TopicPartition{Topic: x.r.deliveries, Partition: p}] = kafkax.Range{From: max(from, fell-most), To: fell + most}
		}
	}
	return out, nil
}

// read sets found and open.
func (x *search) read(ctx context.Context, where map[kafkax.TopicPartition]kafkax.Range) error {
	x.found, x.open = map[kafkax.TopicPartition]*ahead{}, map[holder]int64{}
	return x.fet.Ends(ctx, where, x.concerns, func(rec *kgo.Record, end kafkax.End) {
		switch end {
		case kafkax.EndCommitted:
			x.find(rec)
		case kafkax.EndOpen:
			h := holder{rec.ProducerID, kafkax.TopicPartition{Topic: rec.Topic, Partition: rec.Partition}}
			if at, ok := x.open[h]; !ok || rec.Offset < at {
				x.open[h] = rec.Offset
			}
		case kafkax.EndAborted, kafkax.EndUnknown:
		}
	})
}

// concerns tells whether a router wrote a record for an event that does not count as
// routed, since it does not.
func (x *search) concerns(rec *kgo.Record) bool {
	env, ok := envelopeOf(rec)
	src := &env.Source
	if !ok || env.Replay != "" || src.Cluster != x.r.cluster {
		return false
	}
	b, mine := x.bounds[kafkax.TopicPartition{Topic: src.Topic, Partition: src.Partition}]
	return mine && b.id == src.TopicID && src.Offset >= b.offset && !rec.Timestamp.Before(b.since)
}

// find notes a record that concerns.
func (x *search) find(rec *kgo.Record) {
	env, _ := envelopeOf(rec)
	src := kafkax.TopicPartition{Topic: env.Source.Topic, Partition: env.Source.Partition}
	a := x.found[src]
	if a == nil {
		a = &ahead{at: map[place]bool{}, mark: x.bounds[src].mark}
		x.found[src] = a
	}
	a.at[place{env.Source.Offset, rec.Partition}] = true
	a.last = max(a.last, env.Source.Offset)
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

// await waits until what is open is so no more. What is still open after openPatience
// it aborts.
//
// The events of it are about to be routed by us, and the group's offsets are stable: no
// transaction that has them can commit any more. But it can wait for a marker that
// Kafka has lost, and be committed by the next one of the same producer.
func (x *search) await(ctx context.Context) error {
	for began := time.Now(); ; {
		if err := x.stillOpen(ctx); err != nil || len(x.open) == 0 {
			return err
		}
		if time.Since(began) > x.r.openPatience {
			return x.end(ctx)
		}
		if !sleep(ctx, minBackoff) {
			return ctx.Err()
		}
	}
}

// stillOpen leaves out of open what is not: its producer may have another transaction
// by now, which is none of ours.
func (x *search) stillOpen(ctx context.Context) error {
	var at []kafkax.TopicPartition
	for h := range x.open {
		at = append(at, h.at)
	}
	begun, err := x.fet.OpenTransactions(ctx, at)
	if err != nil {
		return err
	}
	for h, offset := range x.open {
		if first, ok := begun[h.at][h.producer]; !ok || first > offset {
			delete(x.open, h)
		}
	}
	return nil
}

// end aborts what is open.
func (x *search) end(ctx context.Context) error {
	listed, err := x.r.transactions(ctx, x.aux)
	if err != nil {
		return fmt.Errorf("listing the group's transactions: %w", err)
	}
	for _, txn := range listed {
		var at []kafkax.TopicPartition
		for h := range x.open {
			if h.producer == txn.ProducerID {
				at = append(at, h.at)
			}
		}
		if len(at) == 0 {
			continue
		}
		x.r.log.Warn("a transaction without an end has events that are routed anew; it is aborted", "transaction", txn.TxnID, "partitions", len(at))
		if err := x.r.endHanging(ctx, txn.TxnID, "", at, false); err != nil {
			return err
		}
	}
	return nil
}
