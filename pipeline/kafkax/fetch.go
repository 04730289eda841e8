package kafkax

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// scanBytes is how much one fetch of a Scan asks for.
const scanBytes = 4 << 20

// OutOfRangeError says that a log does not have an offset: it was removed by
// retention, or it was never written.
type OutOfRangeError struct {
	Topic     string
	Partition int32
	Offset    int64 // asked for
	Start     int64 // first offset of the log; -1: not told
}

func (e *OutOfRangeError) Error() string {
	return fmt.Sprintf("fetching %s/%d at %d: the log does not have this offset (it starts at %d)", e.Topic, e.Partition, e.Offset, e.Start)
}

// Unwrap makes errors.Is(err, kerr.OffsetOutOfRange) true.
func (e *OutOfRangeError) Unwrap() error { return kerr.OffsetOutOfRange }

// Fetcher reads partitions by offset, without a consumer. All methods are safe
// for concurrent use. Fetches of one client share a connection to each broker,
// which answers them in turn: give it a client that does not consume.
type Fetcher struct {
	cl  *kgo.Client
	adm *kadm.Client
	cat *catalog
	dec kgo.Decompressor
	// uncommitted: also what is open or aborted, and the markers of transactions.
	uncommitted bool
	wait        time.Duration // at the broker, where there is nothing to read yet
}

// NewFetcher makes a Fetcher on cl, which stays the caller's to close.
func NewFetcher(cl *kgo.Client) *Fetcher {
	return &Fetcher{cl: cl, adm: kadm.NewClient(cl), cat: newCatalog(cl), dec: kgo.DefaultDecompressor()}
}

// Waiting is a Fetcher whose reads wait at the broker for up to wait where there is
// nothing to read yet. Other fetches of its client wait behind them: it should have
// one of its own.
func (f *Fetcher) Waiting(wait time.Duration) *Fetcher {
	g := *f
	g.wait = wait
	return &g
}

// At reads committed records from offset on, at most about maxBytes of them but
// at least one batch, in offset order. next is where to go on: past everything
// that was read, aborted records and control records included. There being
// nothing to read yet is no error: no records, and next == offset. An offset that
// the log does not have is an *OutOfRangeError. It retries for up to 15 s.
func (f *Fetcher) At(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) (recs []*kgo.Record, next int64, err error) {
	deadline := time.Now().Add(patience)
	for tries := 0; ; tries++ {
		recs, next, err = f.once(ctx, topic, partition, offset, maxBytes)
		if err == nil {
			return recs, next, nil
		}
		if !retriable(err) || time.Now().After(deadline) {
			return nil, offset, fmt.Errorf("fetching %s/%d at %d: %w", topic, partition, offset, err)
		}
		if pause(ctx, tries) != nil {
			return nil, offset, fmt.Errorf("fetching %s/%d at %d: %w (last error: %w)", topic, partition, offset, ctx.Err(), err)
		}
		// A failed refresh is retried like the fetch, unless it is final.
		if _, err := f.cat.refresh(ctx, topic); err != nil && !retriable(err) && !errors.Is(err, kerr.UnknownTopicOrPartition) {
			return nil, offset, fmt.Errorf("fetching %s/%d at %d: %w", topic, partition, offset, err)
		}
	}
}

// once makes one fetch from the leader that the catalog knows.
func (f *Fetcher) once(ctx context.Context, topic string, partition int32, offset int64, maxBytes int32) ([]*kgo.Record, int64, error) {
	e, err := f.cat.get(ctx, topic)
	if err != nil {
		return nil, offset, err
	}
	leader, ok := e.leaders[partition]
	if !ok {
		return nil, offset, fmt.Errorf("it has no partition %d: %w", partition, kerr.UnknownTopicOrPartition)
	}
	if leader < 0 {
		return nil, offset, kerr.LeaderNotAvailable
	}
	req := kmsg.NewPtrFetchRequest()
	// A wait at the broker holds up the other fetches on this connection.
	req.MaxWaitMillis, req.MinBytes, req.MaxBytes = int32(f.wait.Milliseconds()), 1, maxBytes
	if !f.uncommitted {
		req.IsolationLevel = 1
	}
	req.SessionEpoch = -1 // no session
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, e.id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.Partition, rp.FetchOffset, rp.PartitionMaxBytes, rp.CurrentLeaderEpoch = partition, offset, maxBytes, -1
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	kresp, err := f.cl.Broker(int(leader)).Request(ctx, req)
	if err != nil {
		return nil, offset, err
	}
	return f.process(kresp.(*kmsg.FetchResponse), topic, partition, offset)
}

func (f *Fetcher) process(resp *kmsg.FetchResponse, topic string, partition int32, offset int64) ([]*kgo.Record, int64, error) {
	if err := kerr.ErrorForCode(resp.ErrorCode); err != nil {
		return nil, offset, err
	}
	if len(resp.Topics) != 1 || len(resp.Topics[0].Partitions) != 1 {
		return nil, offset, errors.New("the answer does not have the one partition asked for")
	}
	p := &resp.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
		if errors.Is(err, kerr.OffsetOutOfRange) {
			return nil, offset, &OutOfRangeError{Topic: topic, Partition: partition, Offset: offset, Start: p.LogStartOffset}
		}
		return nil, offset, err
	}
	opts := kgo.ProcessFetchPartitionOpts{Offset: offset, IsolationLevel: kgo.ReadCommitted(), Topic: topic, Partition: partition}
	if f.uncommitted {
		opts.IsolationLevel, opts.KeepControlRecords = kgo.ReadUncommitted(), true
	}
	out, next := kgo.ProcessFetchPartition(opts, p, f.dec, nil)
	if out.Err != nil {
		return nil, offset, &corruptError{out.Err}
	}
	return out.Records, next, nil
}

// corruptError is a batch that cannot be decoded; another try may bring it whole
// (a broken connection, a bad replica), so it is retried within patience.
type corruptError struct{ err error }

// IsCorrupt tells that the broker gave a batch that could not be decoded, in
// every one of the tries.
func IsCorrupt(err error) bool {
	_, ok := errors.AsType[*corruptError](err)
	return ok
}

func (e *corruptError) Error() string { return "decoding a batch: " + e.err.Error() }

// Scan calls fn for every committed record in [max(from, log start), to), in
// offset order. Where a transaction that began below to is still open, it waits
// for it to be decided: give ctx a limit above the transaction timeout. It does
// not end before to was reached, so to must not be above the high watermark. An
// error of fn ends it and is returned unchanged.
func (f *Fetcher) Scan(ctx context.Context, topic string, partition int32, from, to int64, fn func(*kgo.Record) error) error {
	idle := 0
	for from < to {
		recs, next, err := f.At(ctx, topic, partition, max(from, 0), scanBytes)
		if oor, ok := errors.AsType[*OutOfRangeError](err); ok {
			if next, err = f.afterOutOfRange(ctx, oor, to); err != nil {
				return err
			}
		}
		if err != nil {
			return err
		}
		for _, r := range recs {
			if r.Offset >= to {
				return nil
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		if next > from {
			from, idle = next, 0
			continue
		}
		if err := pause(ctx, min(idle, 2)); err != nil {
			return fmt.Errorf("scanning %s/%d: waiting at %d of %d for an open transaction to end: %w", topic, partition, from, to, err)
		}
		idle++
	}
	return nil
}

// afterOutOfRange finds where a scan goes on that asked for removed offsets.
func (f *Fetcher) afterOutOfRange(ctx context.Context, oor *OutOfRangeError, to int64) (int64, error) {
	start, err := f.StartOffset(ctx, oor.Topic, oor.Partition)
	if err != nil {
		return 0, err
	}
	if start <= oor.Offset {
		return 0, fmt.Errorf("scanning to %d: %w", to, oor) // above the log's end
	}
	return start, nil
}

// StartOffset is the first offset of a partition's log.
func (f *Fetcher) StartOffset(ctx context.Context, topic string, partition int32) (int64, error) {
	return f.listed(ctx, "start", topic, partition, f.adm.ListStartOffsets)
}

// EndOffset is a partition's high watermark: the offset after its last record,
// also where open transactions hide that record from readers.
func (f *Fetcher) EndOffset(ctx context.Context, topic string, partition int32) (int64, error) {
	return f.listed(ctx, "end", topic, partition, f.adm.ListEndOffsets)
}

func (f *Fetcher) listed(ctx context.Context, what, topic string, partition int32, list func(context.Context, ...string) (kadm.ListedOffsets, error)) (int64, error) {
	deadline := time.Now().Add(patience)
	for tries := 0; ; tries++ {
		all, err := list(ctx, topic)
		if err == nil {
			o, ok := all.Lookup(topic, partition)
			if err = o.Err; err == nil && ok {
				return o.Offset, nil
			}
			if !ok {
				err = kerr.UnknownTopicOrPartition
			}
		}
		if !retriable(err) || time.Now().After(deadline) {
			return 0, fmt.Errorf("asking for the %s of %s/%d: %w", what, topic, partition, err)
		}
		if pause(ctx, tries) != nil {
			return 0, fmt.Errorf("asking for the %s of %s/%d: %w (last error: %w)", what, topic, partition, ctx.Err(), err)
		}
	}
}

// StartOffsets and EndOffsets are the same for every partition of the topics.
func (f *Fetcher) StartOffsets(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	return flatten(f.adm.ListStartOffsets(ctx, topics...))
}

// EndOffsets gives every partition's high watermark.
func (f *Fetcher) EndOffsets(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	return flatten(f.adm.ListEndOffsets(ctx, topics...))
}

// StableEnds gives every partition's last stable offset: below it, every
// transaction is decided.
func (f *Fetcher) StableEnds(ctx context.Context, topics ...string) (map[string]map[int32]int64, error) {
	return flatten(f.adm.ListCommittedOffsets(ctx, topics...))
}

// Held gives those partitions of the topics that readers of what is committed
// cannot read to the end of, since a transaction is open there; each with the
// offset from which on they wait.
func (f *Fetcher) Held(ctx context.Context, topics ...string) (map[TopicPartition]int64, error) {
	ends, err := f.EndOffsets(ctx, topics...) // first: what is stable later only grows
	if err != nil {
		return nil, err
	}
	stable, err := f.StableEnds(ctx, topics...)
	if err != nil {
		return nil, err
	}
	held := map[TopicPartition]int64{}
	for t, ps := range ends {
		for p, end := range ps {
			if at, ok := stable[t][p]; ok && at < end {
				held[TopicPartition{t, p}] = at
			}
		}
	}
	return held, nil
}

// OffsetsAfter gives for every partition the offset of the first record at or
// after a time, or the partition's end where there is none.
func (f *Fetcher) OffsetsAfter(ctx context.Context, at time.Time, topics ...string) (map[string]map[int32]int64, error) {
	return flatten(f.adm.ListOffsetsAfterMilli(ctx, at.UnixMilli(), topics...))
}

// TopicID gives a topic's id: the one that it had when this Fetcher first used it.
func (f *Fetcher) TopicID(ctx context.Context, topic string) ([16]byte, error) {
	e, err := f.cat.get(ctx, topic)
	if err != nil {
		return [16]byte{}, err
	}
	return e.id, nil
}

func flatten(all kadm.ListedOffsets, err error) (map[string]map[int32]int64, error) {
	if err == nil {
		err = all.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("listing offsets: %w", err)
	}
	out := make(map[string]map[int32]int64, len(all))
	for t, ps := range all {
		out[t] = make(map[int32]int64, len(ps))
		for p, o := range ps {
			out[t][p] = o.Offset
		}
	}
	return out, nil
}
