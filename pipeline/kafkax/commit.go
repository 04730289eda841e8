package kafkax

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Member is a consumer group member at one generation.
type Member struct {
	ID         string
	Generation int32
	Instance   string // static membership; empty: dynamic
}

// Committer commits a group's offsets within a transaction of a producer that
// is not the group's consumer, fenced by the member's generation: what
// GroupTransactSession does not do. One transaction at a time, as the client.
type Committer struct {
	cl    *kgo.Client
	adm   *kadm.Client
	cat   *catalog
	txnID string
	group string

	mu sync.Mutex
	// version is the cluster's transaction.version; -1: not asked yet. Under mu.
	version int16
	// coordinator of group, for the old protocol only; -1: not known. Under mu.
	coordinator int32
}

// NewCommitter makes a Committer for the transactional client cl, which has the
// transactional id txnID and stays the caller's to close.
func NewCommitter(cl *kgo.Client, txnID, group string) *Committer {
	return &Committer{cl: cl, adm: kadm.NewClient(cl), cat: newCatalog(cl), txnID: txnID, group: group, version: -1, coordinator: -1}
}

// Commit adds offsets to the client's open transaction; they count when the
// transaction commits. Produce and flush a record before: kgo does not end a
// transaction that has none. It waits while the last transaction is being
// finished, until ctx is done. An error for which IsFenced is true is final for
// this member or producer; after any other the transaction must be aborted.
func (c *Committer) Commit(ctx context.Context, m Member, offsets map[string]map[int32]Committed) error {
	if m.Generation < 0 || m.ID == "" {
		panic("BUG: committing offsets without a member and generation (generation " + strconv.Itoa(int(m.Generation)) + "); Kafka would not fence it")
	}
	if len(offsets) == 0 {
		panic("BUG: committing a transaction without offsets; Kafka would not fence it")
	}
	if err := c.commit(ctx, m, offsets); err != nil {
		return fmt.Errorf("committing offsets of group %s in transaction %s: %w", c.group, c.txnID, err)
	}
	return nil
}

func (c *Committer) commit(ctx context.Context, m Member, offsets map[string]map[int32]Committed) error {
	ids, byID, err := topicIDs(ctx, c.cat, offsets)
	if err != nil {
		return err
	}
	id, epoch, err := c.cl.ProducerID(ctx)
	if err != nil {
		return fmt.Errorf("getting the producer id: %w", err)
	}
	version, err := c.transactionVersion(ctx)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch = c.txnID, c.group, id, epoch
	req.MemberID, req.Generation = m.ID, m.Generation
	if m.Instance != "" {
		req.InstanceID = &m.Instance
	}
	for t, ps := range offsets {
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = t, ids[t]
		for p, o := range ps {
			rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.Metadata = p, o.Offset, &o.Metadata
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	send := c.send
	if version < 2 {
		if err := whileConcurrent(ctx, func() error { return c.addOffsets(ctx, id, epoch) }); err != nil {
			return err
		}
		send = c.sendPinned
	}
	return whileConcurrent(ctx, func() error {
		resp, err := send(ctx, req)
		if err != nil {
			return err
		}
		return commitError(resp, byID)
	})
}

// whileConcurrent repeats try while Kafka is still finishing the last transaction.
func whileConcurrent(ctx context.Context, try func() error) error {
	for wait := txnBackoff; ; wait = min(wait*3/2, 100*time.Millisecond) {
		err := try()
		if !errors.Is(err, kerr.ConcurrentTransactions) {
			return err
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("waiting for the last transaction to be finished: %w", ctx.Err())
		}
	}
}

func (c *Committer) send(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) (*kmsg.TxnOffsetCommitResponse, error) {
	return req.RequestWith(ctx, c.cl)
}

// commitError picks the worst of the partitions' errors: a fence before others.
func commitError(resp *kmsg.TxnOffsetCommitResponse, byID map[[16]byte]string) error {
	var first error
	for i := range resp.Topics {
		t := &resp.Topics[i]
		name := t.Topic
		if name == "" { // v6 has ids only
			name = byID[t.TopicID]
		}
		for j := range t.Partitions {
			err := kerr.ErrorForCode(t.Partitions[j].ErrorCode)
			if err != nil && (first == nil || IsFenced(err) && !IsFenced(first)) {
				first = fmt.Errorf("%s/%d: %w", name, t.Partitions[j].Partition, err)
			}
		}
	}
	return first
}

// transactionVersion asks once which protocol of transactions the cluster has.
// A cluster that is upgraded meanwhile goes on accepting the old one.
func (c *Committer) transactionVersion(ctx context.Context) (int16, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.version >= 0 {
		return c.version, nil
	}
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "hookline", "1"
	resp, err := req.RequestWith(ctx, c.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return 0, fmt.Errorf("asking for the transaction version: %w", err)
	}
	c.version = 0
	for i := range resp.FinalizedFeatures {
		if f := &resp.FinalizedFeatures[i]; f.Name == "transaction.version" {
			c.version = f.MaxVersionLevel
		}
	}
	return c.version, nil
}

// addOffsets makes the group a part of the transaction, which below
// transaction.version 2 a commit does not do by itself.
func (c *Committer) addOffsets(ctx context.Context, id int64, epoch int16) error {
	req := kmsg.NewPtrAddOffsetsToTxnRequest()
	req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = c.txnID, id, epoch, c.group
	resp, err := req.RequestWith(ctx, c.cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("adding the group to the transaction: %w", err)
	}
	return nil
}

// pinnedCommit is a commit that never goes out in a version above 4: version 5
// means transaction.version 2 to a broker.
type pinnedCommit struct{ *kmsg.TxnOffsetCommitRequest }

func (pinnedCommit) MaxVersion() int16 { return 4 }

// sendPinned sends to the coordinator by hand, since kgo knows which requests
// have one by their type.
func (c *Committer) sendPinned(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) (*kmsg.TxnOffsetCommitResponse, error) {
	deadline := time.Now().Add(patience)
	for tries := 0; ; tries++ {
		resp, err := c.sendToCoordinator(ctx, req)
		if err == nil {
			err = commitError(resp, nil)
		}
		if err == nil || !retriable(err) || errors.Is(err, kerr.ConcurrentTransactions) || time.Now().After(deadline) {
			return resp, err
		}
		c.mu.Lock()
		c.coordinator = -1
		c.mu.Unlock()
		if pause(ctx, tries) != nil {
			return nil, fmt.Errorf("%w (last error: %w)", ctx.Err(), err)
		}
	}
}

func (c *Committer) sendToCoordinator(ctx context.Context, req *kmsg.TxnOffsetCommitRequest) (*kmsg.TxnOffsetCommitResponse, error) {
	c.mu.Lock()
	node := c.coordinator
	c.mu.Unlock()
	if node < 0 {
		found := c.adm.FindGroupCoordinators(ctx, c.group)[c.group]
		if found.Err != nil {
			return nil, fmt.Errorf("finding the coordinator: %w", found.Err)
		}
		node = found.NodeID
		c.mu.Lock()
		c.coordinator = node
		c.mu.Unlock()
	}
	resp, err := c.cl.Broker(int(node)).Request(ctx, pinnedCommit{req})
	if err != nil {
		return nil, err
	}
	return resp.(*kmsg.TxnOffsetCommitResponse), nil
}

// fences are the answers by which Kafka says that another one has taken over:
// the member's partitions, or the transactional id.
var fences = [...]*kerr.Error{
	kerr.IllegalGeneration, kerr.UnknownMemberID, kerr.FencedInstanceID, kerr.StaleMemberEpoch, kerr.FencedMemberEpoch,
	kerr.GroupIDNotFound, kerr.InvalidProducerEpoch, kerr.ProducerFenced, kerr.InvalidProducerIDMapping,
	kerr.TransactionalIDNotFound,
}

// IsFenced tells whether err says that this member or this producer has been
// replaced: what it holds in memory is another one's now.
func IsFenced(err error) bool {
	ke, ok := errors.AsType[*kerr.Error](err)
	if !ok {
		return false
	}
	for _, f := range fences {
		if ke.Code == f.Code {
			return true
		}
	}
	return false
}
