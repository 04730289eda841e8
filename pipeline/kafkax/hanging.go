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

// TopicPartition is one partition of a topic.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Unstable gives those partitions of group whose committed offset waits for the
// end of a transaction, each with the offset that counts meanwhile. It does not
// wait.
func (f *Fetcher) Unstable(ctx context.Context, group string) (map[TopicPartition]int64, error) {
	stable, err := f.allOffsets(ctx, group, true)
	if err != nil {
		return nil, err
	}
	out := map[TopicPartition]int64{}
	for at, p := range stable {
		if p.ErrorCode == kerr.UnstableOffsetCommit.Code {
			out[at] = -1
		}
	}
	if len(out) == 0 {
		return nil, nil
	}
	counts, err := f.allOffsets(ctx, group, false)
	if err != nil {
		return nil, err
	}
	for at := range out {
		if p, ok := counts[at]; ok {
			out[at] = p.Offset
		}
	}
	return out, nil
}

// offsetsByName is a request for offsets that never goes out in a version above
// 9, which have topic ids in the place of names.
type offsetsByName struct{ *kmsg.OffsetFetchRequest }

func (offsetsByName) MaxVersion() int16 { return 9 }

func (f *Fetcher) allOffsets(ctx context.Context, group string, stable bool) (map[TopicPartition]*kmsg.OffsetFetchResponseGroupTopicPartition, error) {
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = stable
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.Topics = group, nil // nil: all
	req.Groups = append(req.Groups, g)
	found := f.adm.FindGroupCoordinators(ctx, group)[group]
	if found.Err != nil {
		return nil, fmt.Errorf("finding the coordinator of group %s: %w", group, found.Err)
	}
	kresp, err := f.cl.Broker(int(found.NodeID)).RetriableRequest(ctx, offsetsByName{req})
	if err != nil {
		return nil, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
	}
	resp := kresp.(*kmsg.OffsetFetchResponse)
	out := map[TopicPartition]*kmsg.OffsetFetchResponseGroupTopicPartition{}
	for i := range resp.Groups {
		if err := kerr.ErrorForCode(resp.Groups[i].ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
			return nil, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
		}
		for j := range resp.Groups[i].Topics {
			t := &resp.Groups[i].Topics[j]
			for k := range t.Partitions {
				out[TopicPartition{t.Topic, t.Partitions[k].Partition}] = &t.Partitions[k]
			}
		}
	}
	return out, nil
}

// Hanging says what AbortHanging is to end.
type Hanging struct {
	TxnID string // the transactional id whose transaction hangs
	Group string // the group whose committed offsets wait for it
	// Topics may have records of the same transaction. Of these, partitions are
	// ended in which the producer wrote last at Since or later.
	Topics []string
	Since  time.Time
}

// AbortHanging ends, as aborted, a transaction that Kafka takes for ended but
// that has no end in the group's offsets: a broker that comes back can drop the
// markers of an end that was decided (it takes partitions whose leader it does not
// know yet for deleted ones). A transaction of the same producer, of nothing but
// the partitions in question, is aborted: its markers count for everything that
// the producer has open there.
//
// cl must have the transactional id h.TxnID; whoever else uses that is fenced. It
// never commits: what the offsets wait for may have been aborted.
func AbortHanging(ctx context.Context, cl *kgo.Client, h Hanging) error {
	if err := abortHanging(ctx, cl, h); err != nil {
		return fmt.Errorf("aborting what hangs of transaction %s in the offsets of group %s: %w", h.TxnID, h.Group, err)
	}
	return nil
}

func abortHanging(ctx context.Context, cl *kgo.Client, h Hanging) error {
	var at []TopicPartition
	if len(h.Topics) > 0 && !h.Since.IsZero() {
		var err error
		if at, err = heldSince(ctx, cl, h.Since, h.Topics); err != nil {
			return err
		}
	}
	return EndHanging(ctx, cl, h.TxnID, h.Group, at, false)
}

// EndHanging is AbortHanging for who knows what hangs, and whether it was committed: in the
// partitions, and in the offsets of group if that is not empty. It makes a transaction
// that writes nothing, for its markers. cl must have the transactional id txnID, and is
// of no more use after it. Nothing to end is no error, and leaves cl as it is.
func EndHanging(ctx context.Context, cl *kgo.Client, txnID, group string, at []TopicPartition, commit bool) error {
	if group == "" && len(at) == 0 {
		return nil
	}
	e, err := newEnding(ctx, cl, txnID, group, at, commit)
	if err != nil {
		return err
	}
	return e.make(ctx, cl)
}

// ending is a transaction that is made for its markers. It can be made again: Kafka
// takes a repetition by the same producer for the same.
type ending struct {
	txnID, group string
	at           []TopicPartition
	commit       bool
	id           int64
	epoch        int16
}

func newEnding(ctx context.Context, cl *kgo.Client, txnID, group string, at []TopicPartition, commit bool) (*ending, error) {
	id, epoch, err := cl.ProducerID(ctx) // ends what is open by Kafka's books
	if err != nil {
		return nil, fmt.Errorf("getting the producer id: %w", err)
	}
	return &ending{txnID, group, at, commit, id, epoch}, nil
}

// make asks cl for brokers only.
func (e *ending) make(ctx context.Context, cl *kgo.Client) error {
	found := kadm.NewClient(cl).FindTxnCoordinators(ctx, e.txnID)[e.txnID]
	if found.Err != nil {
		return fmt.Errorf("finding the coordinator: %w", found.Err)
	}
	broker := cl.Broker(int(found.NodeID))
	for _, req := range e.requests() {
		if err := whileConcurrent(ctx, func() error { return ended(broker.RetriableRequest(ctx, req)) }); err != nil {
			return fmt.Errorf("ending what hangs of transaction %s: %w", e.txnID, err)
		}
	}
	return nil
}

func (e *ending) requests() (steps []kmsg.Request) {
	if e.group != "" {
		offsets := kmsg.NewPtrAddOffsetsToTxnRequest()
		offsets.TransactionalID, offsets.ProducerID, offsets.ProducerEpoch, offsets.Group = e.txnID, e.id, e.epoch, e.group
		steps = append(steps, offsets)
	}
	if len(e.at) > 0 {
		records := kmsg.NewPtrAddPartitionsToTxnRequest()
		records.TransactionalID, records.ProducerID, records.ProducerEpoch = e.txnID, e.id, e.epoch
		parts := map[string][]int32{}
		for _, p := range e.at {
			parts[p.Topic] = append(parts[p.Topic], p.Partition)
		}
		for t, ps := range parts {
			rt := kmsg.NewAddPartitionsToTxnRequestTopic()
			rt.Topic, rt.Partitions = t, ps
			records.Topics = append(records.Topics, rt)
		}
		steps = append(steps, oldPartitions{records})
	}
	end := kmsg.NewPtrEndTxnRequest()
	end.TransactionalID, end.ProducerID, end.ProducerEpoch, end.Commit = e.txnID, e.id, e.epoch, e.commit
	return append(steps, oldEnd{end})
}

// Left is what the last transaction of a process that is gone may have left hanging.
type Left struct {
	committed bool // by Kafka's books, as they were before the id was taken anew
	ending    *ending
}

// Commit is EndHanging for a process that begins: for what the last transaction of
// txnID left hanging in the topics and in the offsets of group, where Kafka's books
// say that it was committed. It gives the number of partitions that had something. cl
// has the transactional id and has not been used, and is of no more use after it.
// Where it fails it can be tried again, with another client.
func (l *Left) Commit(ctx context.Context, cl *kgo.Client, txnID, group string, topics ...string) (int, error) {
	n, err := l.commit(ctx, cl, txnID, group, topics)
	if err != nil {
		return 0, fmt.Errorf("looking what hangs of transaction %s: %w", txnID, err)
	}
	return n, nil
}

func (l *Left) commit(ctx context.Context, cl *kgo.Client, txnID, group string, topics []string) (int, error) {
	if l.ending != nil {
		// To take the id anew would abort what a former try may have begun to commit.
		if err := l.ending.make(ctx, cl); err != nil {
			return 0, fmt.Errorf("committing again in %v: %w", l.ending.at, err)
		}
		return len(l.ending.at), nil
	}
	if !l.committed { // taking the id, which a former try may have done, wipes it out of the books
		state, err := transactionState(ctx, cl, txnID)
		if err != nil || state != "PrepareCommit" && state != "CompleteCommit" {
			return 0, err
		}
		l.committed = true
	}
	at, err := HeldBy(ctx, cl, topics...) // the producer id waits until a commit that is decided has its markers
	if err != nil {
		return 0, err
	}
	unstable, err := NewFetcher(cl).Unstable(ctx, group)
	if err != nil {
		return 0, err
	}
	if len(unstable) == 0 {
		group = ""
	}
	if group == "" && len(at) == 0 {
		return 0, nil
	}
	if l.ending, err = newEnding(ctx, cl, txnID, group, at, true); err != nil {
		return 0, err
	}
	return len(at), l.ending.make(ctx, cl)
}

// transactionState gives the state of a transactional id's last transaction by Kafka's
// books, in its words; "": it does not know the id. It waits for a coordinator, which
// a new cluster does not have yet.
func transactionState(ctx context.Context, cl *kgo.Client, id string) (string, error) {
	for tries := 0; ; tries++ {
		got, err := kadm.NewClient(cl).DescribeTransactions(ctx, id)
		err = errors.Join(err, got[id].Err)
		switch {
		case err == nil:
			return got[id].State, nil
		case errors.Is(err, kerr.TransactionalIDNotFound):
			return "", nil
		case !errors.Is(err, kerr.CoordinatorNotAvailable) && !errors.Is(err, kerr.CoordinatorLoadInProgress):
			return "", err
		}
		if pause(ctx, tries) != nil {
			return "", err
		}
	}
}

// HeldBy gives the partitions of topics in which the producer id of cl has something
// open.
func HeldBy(ctx context.Context, cl *kgo.Client, topics ...string) ([]TopicPartition, error) {
	return heldSince(ctx, cl, time.UnixMilli(0), topics)
}

// heldSince is HeldBy for partitions in which the producer wrote last at since or later.
func heldSince(ctx context.Context, cl *kgo.Client, since time.Time, names []string) ([]TopicPartition, error) {
	id, _, err := cl.ProducerID(ctx)
	if err != nil {
		return nil, fmt.Errorf("getting the producer id: %w", err)
	}
	adm := kadm.NewClient(cl)
	topics, err := adm.ListTopics(ctx, names...)
	if err != nil {
		return nil, fmt.Errorf("listing the topics: %w", err)
	}
	described, err := describeProducers(ctx, adm, topics.TopicsSet())
	// A partition that cannot be asked is not one that has nothing.
	topics.EachError(func(t kadm.TopicDetail) {
		if !errors.Is(t.Err, kerr.UnknownTopicOrPartition) {
			err = fmt.Errorf("describing the producers of %s: %w", t.Topic, t.Err)
		}
	})
	if err != nil {
		return nil, err
	}
	var held []TopicPartition
	described.EachProducer(func(p kadm.DescribedProducer) {
		if p.ProducerID == id && p.CurrentTxnStartOffset >= 0 && p.LastTimestamp >= since.UnixMilli() {
			held = append(held, TopicPartition{p.Topic, p.Partition})
		}
	})
	return held, nil
}

// describeProducers gives an error, too, where one of the partitions cannot be asked.
func describeProducers(ctx context.Context, adm *kadm.Client, at kadm.TopicsSet) (kadm.DescribedProducersTopics, error) {
	described, err := adm.DescribeProducers(ctx, at)
	if err != nil {
		return nil, fmt.Errorf("describing the producers: %w", err)
	}
	described.EachPartition(func(p kadm.DescribedProducersPartition) {
		if p.Err != nil {
			err = fmt.Errorf("describing the producers of %s/%d: %w", p.Topic, p.Partition, p.Err)
		}
	})
	return described, err
}

// Requests in versions that a client without transaction.version 2 uses: they add
// to and end a transaction without records, on every cluster.
type (
	oldPartitions struct {
		*kmsg.AddPartitionsToTxnRequest
	}
	oldEnd struct{ *kmsg.EndTxnRequest }
)

func (oldPartitions) MaxVersion() int16 { return 3 }
func (oldEnd) MaxVersion() int16        { return 4 }

// ended is the error in an answer to a step of a transaction.
func ended(resp kmsg.Response, err error) error {
	if err != nil {
		return err
	}
	switch resp := resp.(type) {
	case *kmsg.AddOffsetsToTxnResponse:
		return kerr.ErrorForCode(resp.ErrorCode)
	case *kmsg.EndTxnResponse:
		return kerr.ErrorForCode(resp.ErrorCode)
	case *kmsg.AddPartitionsToTxnResponse:
		for i := range resp.Topics {
			for j := range resp.Topics[i].Partitions {
				p := &resp.Topics[i].Partitions[j]
				if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
					return fmt.Errorf("adding %s/%d: %w", resp.Topics[i].Topic, p.Partition, err)
				}
			}
		}
	}
	return nil
}
