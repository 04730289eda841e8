package testkit

import (
	"context"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// HangProperties is what KafkaWith needs for HangOffset.
const HangProperties = "transaction.partition.verification.enable=false"

// oldCommit is a commit that does not make the group a part of its transaction.
type oldCommit struct{ *kmsg.TxnOffsetCommitRequest }

func (oldCommit) MaxVersion() int16 { return 3 }

// HangOffset commits 0 as group's offset of partition 0 of topic, and then leaves
// another offset waiting for a transaction of txnID that Kafka knows nothing of: on a broker that does not verify transactions
// it is enough not to tell the transaction's coordinator. That is how a broker leaves
// it that has dropped the markers of an end. The group may have no members.
func HangOffset(tb testing.TB, addrs []string, group, txnID, topic string, offset int64) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.TransactionalID(txnID))
	if err != nil {
		tb.Fatal(err)
	}
	defer cl.Close()
	adm := kadm.NewClient(cl)
	commitZero(ctx, tb, adm, group, topic)
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		tb.Fatalf("asking for a producer id: %v", err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = txnID, group, id, epoch, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rt.Topic, rp.Offset = topic, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	found := adm.FindGroupCoordinators(ctx, group)[group]
	if found.Err != nil {
		tb.Fatalf("finding the coordinator of %s: %v", group, found.Err)
	}
	resp, err := cl.Broker(int(found.NodeID)).RetriableRequest(ctx, oldCommit{req})
	if err != nil {
		tb.Fatalf("sending the commit: %v", err)
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
		tb.Fatalf("committing in a transaction: %v", err)
	}
	open, err := adm.DescribeTransactions(ctx, txnID)
	if err != nil || open[txnID].State != "Empty" {
		tb.Fatalf("Kafka knows of a transaction: %v, %v", open, err)
	}
}

// commitZero commits 0 as group's offset of partition 0 of topic. It waits until the
// broker knows both topics: an answer to CreateTopics is the controller's, and the
// topic of the offsets is created for the first commit.
func commitZero(ctx context.Context, tb testing.TB, adm *kadm.Client, group, topic string) {
	tb.Helper()
	var zero kadm.Offsets
	zero.AddOffset(topic, 0, 0, -1)
	err := adm.CommitAllOffsets(ctx, group, zero)
	for kerr.IsRetriable(err) && ctx.Err() == nil {
		time.Sleep(10 * time.Millisecond)
		err = adm.CommitAllOffsets(ctx, group, zero)
	}
	if err != nil {
		tb.Fatalf("committing 0 as group %s's offset of %s: %v", group, topic, err)
	}
}
