package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// diagnose tells, when deliveries are stuck, what Kafka has open: transactions
// without an end hold back everyone who reads what is committed.
func (r *runner) diagnose(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	adm := kadm.NewClient(r.client)
	// With __consumer_offsets: a transaction without an end there holds back a group.
	topics, err := adm.ListTopicsWithInternal(ctx)
	if err != nil {
		fmt.Println("diagnosing:", err)
		return
	}
	ends, err1 := adm.ListEndOffsets(ctx, topics.Names()...)
	stable, err2 := adm.ListCommittedOffsets(ctx, topics.Names()...)
	if err1 != nil || err2 != nil {
		fmt.Println("diagnosing:", err1, err2)
		return
	}
	var held kadm.TopicsSet
	ends.Each(func(e kadm.ListedOffset) {
		if s, ok := stable.Lookup(e.Topic, e.Partition); ok && s.Offset < e.Offset {
			held.Add(e.Topic, e.Partition)
			fmt.Printf("  %s/%d ends at %d and is stable up to %d\n", e.Topic, e.Partition, e.Offset, s.Offset)
		}
	})
	if len(held) > 0 {
		producers, err := adm.DescribeProducers(ctx, held)
		fmt.Println("  producers with a transaction there:", err)
		producers.EachProducer(func(p kadm.DescribedProducer) {
			if p.CurrentTxnStartOffset >= 0 {
				fmt.Printf("    %s/%d: producer %d/%d since offset %d\n", p.Topic, p.Partition, p.ProducerID, p.ProducerEpoch, p.CurrentTxnStartOffset)
			}
		})
	}
	txns, err := adm.DescribeTransactions(ctx)
	fmt.Println("  transactions that have not ended:", err)
	for _, t := range txns {
		if t.State != "Empty" && !strings.HasPrefix(t.State, "Complete") {
			fmt.Printf("    %s: %s, producer %d/%d, since %v, %v\n", t.TxnID, t.State, t.ProducerID, t.ProducerEpoch, time.UnixMilli(t.StartTimestamp).Sub(r.began), t.Topics)
		}
	}
	for _, role := range []string{"router", "dispatcher", "sink"} {
		r.unstable(ctx, adm, r.vars["GROUP"]+"."+role)
	}
}

// unstable tells which committed offsets of a group wait for the end of a
// transaction, and how the group is.
func (r *runner) unstable(ctx context.Context, adm *kadm.Client, group string) {
	groups, err := adm.DescribeGroups(ctx, group)
	if g := groups[group]; err == nil {
		fmt.Printf("  group %s: %s", group, g.State)
		for _, m := range g.Members {
			name := m.ClientHost
			if m.InstanceID != nil {
				name = *m.InstanceID
			}
			c, _ := m.Assigned.AsConsumer()
			fmt.Printf("; %s: ", name)
			if c != nil {
				for _, t := range c.Topics {
					fmt.Print(t.Topic, t.Partitions, " ")
				}
			}
		}
		fmt.Println()
	}
	offsets, err := adm.FetchOffsets(ctx, group)
	if err != nil {
		fmt.Println("  ", group, err)
		return
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.Group, req.RequireStable = group, true
	for topic, ps := range offsets {
		t := kmsg.NewOffsetFetchRequestTopic()
		t.Topic = topic
		for p := range ps {
			t.Partitions = append(t.Partitions, p)
		}
		req.Topics = append(req.Topics, t)
	}
	resp, err := req.RequestWith(ctx, r.client)
	if err != nil {
		fmt.Println("  ", group, err)
		return
	}
	for _, t := range resp.Topics {
		for _, p := range t.Partitions {
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				fmt.Printf("    %s of %s/%d: %v\n", group, t.Topic, p.Partition, err)
			}
		}
	}
}
