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

// Committed is an offset that a group committed, or is to commit.
type Committed struct {
	Offset   int64 // next to read; -1: nothing committed
	Metadata string
}

// StableOffsets reads the committed offsets of group, waiting while any of them
// is part of a transaction that is not decided. The result has every partition
// that was asked for. Give ctx a limit above the transaction timeout.
func (f *Fetcher) StableOffsets(ctx context.Context, group string, partitions map[string][]int32) (map[string]map[int32]Committed, error) {
	ids, byID, err := topicIDs(ctx, f.cat, partitions)
	if err != nil {
		return nil, err
	}
	req := kmsg.NewPtrOffsetFetchRequest()
	req.RequireStable = true
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group = group
	for t, ps := range partitions {
		rt := kmsg.NewOffsetFetchRequestGroupTopic()
		rt.Topic, rt.TopicID, rt.Partitions = t, ids[t], ps
		g.Topics = append(g.Topics, rt)
	}
	req.Groups = append(req.Groups, g)

	deadline := time.Now().Add(patience)
	for tries := 0; ; tries++ {
		resp, err := req.RequestWith(ctx, f.cl)
		var out map[string]map[int32]Committed
		if err == nil {
			out, err = readOffsets(resp, byID, partitions)
		}
		if err == nil {
			return out, nil
		}
		unstable := errors.Is(err, kerr.UnstableOffsetCommit)
		if !unstable && (!retriable(err) || time.Now().After(deadline)) {
			return nil, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
		}
		if unstable {
			tries = 0 // decided within milliseconds, mostly
		}
		if pause(ctx, tries) != nil {
			return nil, fmt.Errorf("fetching the offsets of group %s: %w (last error: %w)", group, ctx.Err(), err)
		}
	}
}

// UpTo gives how far group has come in every topic that it has committed offsets
// of: the next offset, by partition; -1: none is committed. It does not wait for
// transactions under way: what those commit is not in it.
func UpTo(ctx context.Context, cl *kgo.Client, group string) (map[string][]int64, error) {
	got, err := kadm.NewClient(cl).FetchOffsets(ctx, group)
	if err == nil {
		err = got.Error()
	}
	if errors.Is(err, kerr.GroupIDNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("fetching the offsets of group %s: %w", group, err)
	}
	out := map[string][]int64{}
	got.Each(func(o kadm.OffsetResponse) {
		for len(out[o.Topic]) <= int(o.Partition) {
			out[o.Topic] = append(out[o.Topic], -1)
		}
		out[o.Topic][o.Partition] = o.At
	})
	return out, nil
}

func readOffsets(resp *kmsg.OffsetFetchResponse, byID map[[16]byte]string, want map[string][]int32) (map[string]map[int32]Committed, error) {
	if len(resp.Groups) != 1 {
		return nil, fmt.Errorf("the answer has %d groups", len(resp.Groups))
	}
	g := &resp.Groups[0]
	err := kerr.ErrorForCode(g.ErrorCode)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return nil, err
	}
	out := make(map[string]map[int32]Committed, len(want))
	for i := range g.Topics {
		t := &g.Topics[i]
		name := t.Topic
		if name == "" { // v10 has ids only
			name = byID[t.TopicID]
		}
		out[name] = make(map[int32]Committed, len(t.Partitions))
		for j := range t.Partitions {
			p := &t.Partitions[j]
			if err := kerr.ErrorForCode(p.ErrorCode); err != nil {
				return nil, fmt.Errorf("%s/%d: %w", name, p.Partition, err)
			}
			c := Committed{Offset: p.Offset}
			if p.Metadata != nil {
				c.Metadata = *p.Metadata
			}
			out[name][p.Partition] = c
		}
	}
	for t, ps := range want {
		if out[t] == nil {
			out[t] = make(map[int32]Committed, len(ps))
		}
		for _, p := range ps {
			if _, ok := out[t][p]; !ok {
				out[t][p] = Committed{Offset: -1}
			}
		}
	}
	return out, nil
}

// LeaveGroup makes the static member instance leave group at once, instead of
// after its session timeout; kgo does not do so. A member that is not (any more)
// in the group is no error.
func LeaveGroup(ctx context.Context, cl *kgo.Client, group, instance string) error {
	if instance == "" {
		panic("BUG: leaving a group without an instance id")
	}
	b := kadm.LeaveGroup(group).InstanceIDs(instance).Reason("hookline stops")
	resp, err := kadm.NewClient(cl).LeaveGroup(ctx, b)
	if err == nil {
		err = resp[instance].Err
	}
	if err != nil && !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("leaving group %s as %s: %w", group, instance, err)
	}
	return nil
}

// CommitOffsets commits offsets of group outside any transaction, as its member
// m, which fences the commit. IsFenced tells whether m has been replaced.
func (f *Fetcher) CommitOffsets(ctx context.Context, group string, m Member, offsets map[string]map[int32]Committed) error {
	if m.Generation < 0 || m.ID == "" {
		panic("BUG: committing offsets without a member and generation; Kafka would not fence it")
	}
	ids, byID, err := topicIDs(ctx, f.cat, offsets)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.MemberID, req.Generation = group, m.ID, m.Generation
	if m.Instance != "" {
		req.InstanceID = &m.Instance
	}
	for t, ps := range offsets {
		rt := kmsg.NewOffsetCommitRequestTopic()
		rt.Topic, rt.TopicID = t, ids[t]
		for p, o := range ps {
			rp := kmsg.NewOffsetCommitRequestTopicPartition()
			rp.Partition, rp.Offset, rp.Metadata = p, o.Offset, &o.Metadata
			rt.Partitions = append(rt.Partitions, rp)
		}
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, f.cl)
	if err != nil {
		return fmt.Errorf("committing offsets of group %s: %w", group, err)
	}
	for i := range resp.Topics {
		t := &resp.Topics[i]
		name := t.Topic
		if name == "" { // v10 has ids only
			name = byID[t.TopicID]
		}
		for j := range t.Partitions {
			if err := kerr.ErrorForCode(t.Partitions[j].ErrorCode); err != nil {
				return fmt.Errorf("committing offsets of group %s: %s/%d: %w", group, name, t.Partitions[j].Partition, err)
			}
		}
	}
	return nil
}
