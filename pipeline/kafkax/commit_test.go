package kafkax_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// txnCase is a group with one member, and a transactional client beside it.
type txnCase struct {
	topic, group, txid string
	member             kafkax.Member
	tx                 *kgo.Client
	com                *kafkax.Committer
	fet                *kafkax.Fetcher
}

func newTxnCase(t *testing.T, addrs []string, instance string) *txnCase {
	t.Helper()
	plain := client(t, addrs)
	c := &txnCase{topic: topic(t, plain, "in", nil), group: testkit.Unique(t, "group"), fet: kafkax.NewFetcher(plain)}
	assigned := make(chan struct{}, 10)
	opts := []kgo.Opt{
		kgo.ConsumerGroup(c.group), kgo.ConsumeTopics(c.topic), kgo.DisableAutoCommit(), kgo.Balancers(kgo.StickyBalancer()),
		kgo.OnPartitionsAssigned(func(context.Context, *kgo.Client, map[string][]int32) { assigned <- struct{}{} }),
	}
	if instance != "" {
		opts = append(opts, kgo.InstanceID(instance))
	}
	cons := client(t, addrs, opts...)
	select {
	case <-assigned:
	case <-within(t).Done():
		t.Fatal("the group did not form")
	}
	id, gen := cons.GroupMetadata()
	c.member = kafkax.Member{ID: id, Generation: gen, Instance: instance}
	c.txid = testkit.Unique(t, "tx")
	c.tx = client(t, addrs, kgo.TransactionalID(c.txid))
	c.com = kafkax.NewCommitter(c.tx, c.txid, c.group)
	return c
}

func (c *txnCase) at(offset int64, metadata string) map[string]map[int32]kafkax.Committed {
	return map[string]map[int32]kafkax.Committed{c.topic: {0: {Offset: offset, Metadata: metadata}}}
}

func (c *txnCase) stable(t *testing.T, ctx context.Context) (kafkax.Committed, error) { //nolint:revive // t first, as everywhere in tests
	t.Helper()
	got, err := c.fet.StableOffsets(ctx, c.group, map[string][]int32{c.topic: {0}})
	return got[c.topic][0], err
}

// cycle commits two transactions and aborts one, watching what a reader sees.
func (c *txnCase) cycle(t *testing.T) {
	t.Helper()
	ctx := within(t)
	if got, err := c.stable(t, ctx); err != nil || got.Offset != -1 {
		t.Fatalf("before anything: %+v, %v", got, err)
	}
	for i, how := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		begin(t, c.tx)
		produce(t, c.tx, c.topic, "x")
		if err := c.com.Commit(ctx, c.member, c.at(int64(10+i), "m")); err != nil {
			t.Fatalf("transaction %d: %v", i, err)
		}
		short, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
		if got, err := c.stable(t, short); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("an offset of an open transaction was read: %+v, %v", got, err)
		}
		cancel()
		end(t, c.tx, how)
		want := kafkax.Committed{Offset: []int64{10, 10, 12}[i], Metadata: "m"}
		if got, err := c.stable(t, ctx); err != nil || got != want {
			t.Fatalf("after transaction %d: %+v, %v; want %+v", i, got, err, want)
		}
	}
}

func TestCommitInATransaction(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) { newTxnCase(t, addrs, "").cycle(t) })
}

func TestCommitOnAClusterWithTheOldProtocol(t *testing.T) {
	run := func(t *testing.T, addrs []string) {
		adm := kadm.NewClient(client(t, addrs))
		down := kadm.FeatureUpdate{Feature: "transaction.version", MaxVersionLevel: 1, UpgradeType: 2}
		resp, err := adm.UpdateFeatures(within(t), false, down)
		if err != nil || resp["transaction.version"].Err != nil {
			t.Fatal(err, resp)
		}
		newTxnCase(t, addrs, "").cycle(t)
	}
	t.Run("kfake", func(t *testing.T) { run(t, testkit.KFake(t).ListenAddrs()) })
	t.Run("kafka", func(t *testing.T) {
		if testing.Short() {
			t.Skip("starts real Kafka")
		}
		run(t, testkit.Kafka(t, 1).Addrs()) // its own: the cluster is changed
	})
}

func TestCommitIsFenced(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		c := newTxnCase(t, addrs, "")
		for name, m := range map[string]kafkax.Member{
			"older generation": {ID: c.member.ID, Generation: c.member.Generation - 1},
			"other member":     {ID: "nobody", Generation: c.member.Generation},
		} {
			begin(t, c.tx)
			produce(t, c.tx, c.topic, "x")
			err := c.com.Commit(within(t), m, c.at(1, ""))
			if !kafkax.IsFenced(err) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("%s: %v", name, err)
			}
			end(t, c.tx, kgo.TryAbort)
		}
		if got, err := c.stable(t, within(t)); err != nil || got.Offset != -1 {
			t.Fatalf("a fenced commit counted: %+v, %v", got, err)
		}
	})
}

func TestCommitByAReplacedProducerIsFenced(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		c := newTxnCase(t, addrs, "")
		begin(t, c.tx)
		produce(t, c.tx, c.topic, "x")
		if _, _, err := client(t, addrs, kgo.TransactionalID(c.txid)).ProducerID(within(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.com.Commit(within(t), c.member, c.at(1, "")); !kafkax.IsFenced(err) {
			t.Fatalf("got %v", err)
		}
	})
}

func TestCommitWaitsForTheLastTransaction(t *testing.T) {
	k := testkit.KFake(t)
	c := newTxnCase(t, k.ListenAddrs(), "")
	h := k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ConcurrentTransactions, Count: 5})
	begin(t, c.tx)
	produce(t, c.tx, c.topic, "x")
	if err := c.com.Commit(within(t), c.member, c.at(3, "")); err != nil || h.Hits() != 5 {
		t.Fatalf("%v after %d refusals", err, h.Hits())
	}
	k.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: kerr.ConcurrentTransactions, Count: 1 << 20})
	short, cancel := context.WithTimeout(within(t), 50*time.Millisecond)
	defer cancel()
	if err := c.com.Commit(short, c.member, c.at(3, "")); !errors.Is(err, context.DeadlineExceeded) || kafkax.IsFenced(err) {
		t.Fatalf("got %v", err)
	}
}

func TestCommitWithoutAFenceIsABug(t *testing.T) {
	c := kafkax.NewCommitter(nil, "tx", "g")
	offsets := map[string]map[int32]kafkax.Committed{"t": {0: {}}}
	for name, f := range map[string]func(){
		"generation": func() { _ = c.Commit(t.Context(), kafkax.Member{ID: "m", Generation: -1}, offsets) },
		"member":     func() { _ = c.Commit(t.Context(), kafkax.Member{Generation: 1}, offsets) },
		"offsets":    func() { _ = c.Commit(t.Context(), kafkax.Member{ID: "m", Generation: 1}, nil) },
	} {
		func() {
			defer func() {
				if s, _ := recover().(string); !strings.HasPrefix(s, "BUG: ") {
					t.Errorf("%s: recovered %q", name, s)
				}
			}()
			f()
		}()
	}
}

func TestLeaveGroupOfAStaticMember(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		c := newTxnCase(t, addrs, "pod-0")
		cl := client(t, addrs)
		for range 2 { // once more: it is not there any more, which is fine
			if err := kafkax.LeaveGroup(within(t), cl, c.group, "pod-0"); err != nil {
				t.Fatal(err)
			}
		}
		begin(t, c.tx)
		produce(t, c.tx, c.topic, "x")
		if err := c.com.Commit(within(t), c.member, c.at(1, "")); !kafkax.IsFenced(err) {
			t.Fatalf("a member that left could commit: %v", err)
		}
	})
}
