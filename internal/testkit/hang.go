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

// HangOffset leaves group's offset of partition 0 of topic waiting for a transaction
// of txnID that Kafka knows nothing of: on a broker that does not verify transactions
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
	id, epoch, err := cl.ProducerID(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = txnID, group, id, epoch, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rt.Topic, rp.Offset = topic, offset
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	adm := kadm.NewClient(cl)
	found := adm.FindGroupCoordinators(ctx, group)[group]
	if found.Err != nil {
		tb.Fatal(found.Err)
	}
	resp, err := cl.Broker(int(found.NodeID)).RetriableRequest(ctx, oldCommit{req})
	if err != nil {
		tb.Fatal(err)
	}
	if err := kerr.ErrorForCode(resp.(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode); err != nil {
		tb.Fatal(err)
	}
	open, err := adm.DescribeTransactions(ctx, txnID)
	if err != nil || open[txnID].State != "Empty" {
		tb.Fatalf("Kafka knows of a transaction: %v, %v", open, err)
	}
}
