package router

import (
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
)

// bomb is a batch of records that would decompress to more than the client
// allows. Nobody can tell its records apart, so it goes to events.dead as one
// letter without a value, and its partition goes on behind it.
type bomb struct {
	*kgo.ErrDecompressTooLarge
	routed bool
}

// routeBombs writes the letters of the batches that were found since the last call.
func (ses *session) routeBombs() {
	for i := range ses.bombs {
		b := &ses.bombs[i]
		spec := ses.spec(b.Topic)
		if b.routed || spec == nil {
			continue
		}
		b.routed = true
		id, _ := ses.starter.topicID(b.Topic)
		src := pipeline.Position{Cluster: ses.r.cluster, TopicID: id, Topic: b.Topic, Partition: b.Partition, Offset: b.Offset}
		ses.batch.dead(&kgo.Record{}, spec, &src,
			fmt.Errorf("the batch of offsets %d to %d decompresses to too many bytes; none of its records was read", b.Offset, b.NextOffset-1))
	}
}

// passBombs makes the transaction commit the offsets behind the bombs, which
// kgo, not having read them, would not.
func (ses *session) passBombs(req *kmsg.TxnOffsetCommitRequest) {
	for i := range ses.bombs {
		b := &ses.bombs[i]
		id, _ := ses.starter.topicID(b.Topic)
		commitAt(req, b, id)
	}
}

func commitAt(req *kmsg.TxnOffsetCommitRequest, b *bomb, id [16]byte) {
	var t *kmsg.TxnOffsetCommitRequestTopic
	for i := range req.Topics {
		if req.Topics[i].Topic == b.Topic {
			t = &req.Topics[i]
		}
	}
	if t == nil {
		rt := kmsg.NewTxnOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = b.Topic, id
		req.Topics = append(req.Topics, rt)
		t = &req.Topics[len(req.Topics)-1]
	}
	for i := range t.Partitions {
		if p := &t.Partitions[i]; p.Partition == b.Partition {
			p.Offset = max(p.Offset, b.NextOffset)
			return
		}
	}
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Partition, rp.Offset, rp.LeaderEpoch = b.Partition, b.NextOffset, b.Epoch
	t.Partitions = append(t.Partitions, rp)
}

// skipBombs lets the client read on behind the bombs; their offsets are committed.
func (ses *session) skipBombs() {
	for i := range ses.bombs {
		b := &ses.bombs[i]
		ses.s.Client().SetOffsets(map[string]map[int32]kgo.EpochOffset{b.Topic: {b.Partition: {Epoch: b.Epoch, Offset: b.NextOffset}}})
	}
}
