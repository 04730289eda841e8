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

// CreateTopics makes topics with as many partitions and replicas each, and waits
// until every broker knows them: an answer to CreateTopics is the controller's, and
// a broker on a busy machine hears of it later. A client that looks for new
// metadata every 20 ms, as hookline's do, gives a record up after five such looks.
func CreateTopics(tb testing.TB, cl *kgo.Client, partitions int32, replicas int16, topics ...string) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), 30*time.Second)
	defer cancel()
	adm := kadm.NewClient(cl)
	created, err := adm.CreateTopics(ctx, partitions, replicas, nil, topics...)
	if err == nil {
		err = created.Error()
	}
	if err != nil {
		tb.Fatalf("creating topics %q: %v", topics, err)
	}
	brokers, err := adm.ListBrokers(ctx)
	if err != nil {
		tb.Fatalf("listing the brokers: %v", err)
	}
	for _, id := range brokers.NodeIDs() {
		for !knows(ctx, cl.Broker(int(id)), partitions, topics) {
			if ctx.Err() != nil {
				tb.Fatalf("waited 30 s for broker %d to know topics %q", id, topics)
			}
			time.Sleep(5 * time.Millisecond) // another process: no signal to wait for
		}
	}
}

// knows tells whether a broker knows a leader of each partition of the topics.
func knows(ctx context.Context, b *kgo.Broker, partitions int32, topics []string) bool {
	req := kmsg.NewPtrMetadataRequest()
	for _, name := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(name)
		req.Topics = append(req.Topics, rt)
	}
	kresp, err := b.RetriableRequest(ctx, req)
	if err != nil {
		return false
	}
	led := 0
	for _, t := range kresp.(*kmsg.MetadataResponse).Topics {
		for _, p := range t.Partitions {
			if kerr.ErrorForCode(p.ErrorCode) == nil && p.Leader >= 0 {
				led++
			}
		}
	}
	return led == int(partitions)*len(topics)
}
