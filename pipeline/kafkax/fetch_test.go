package kafkax_test

import (
	"context"
	"errors"
	"strconv"
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

func values(recs []*kgo.Record) string {
	out := make([]string, len(recs))
	for i, r := range recs {
		out[i] = string(r.Value)
	}
	return strings.Join(out, " ")
}

func TestFetcherReadsByOffset(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		ctx, cl := within(t), client(t, addrs)
		name := topic(t, cl, "at", nil)
		produce(t, cl, name, "1", "2", "3")
		f := kafkax.NewFetcher(cl)
		recs, next, err := f.At(ctx, name, 0, 2, 1) // within the batch of three
		if err != nil || values(recs) != "2 3" || recs[0].Offset != 2 || next != 4 {
			t.Fatalf("at 2: %q, next %d, %v", values(recs), next, err)
		}
		if recs, next, err = f.At(ctx, name, 0, 4, 1<<20); err != nil || len(recs) != 0 || next != 4 {
			t.Fatalf("at the end: %q, next %d, %v", values(recs), next, err)
		}
		if _, _, err = f.At(ctx, name, 9, 0, 1); !errors.Is(err, kerr.UnknownTopicOrPartition) {
			t.Fatalf("no such partition: %v", err)
		}
	})
}

func TestFetcherOutOfRange(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		ctx, cl := within(t), client(t, addrs)
		name := topic(t, cl, "range", nil)
		produce(t, cl, name, "1", "2", "3")
		var cut kadm.Offsets
		cut.Add(kadm.Offset{Topic: name, Partition: 0, At: 2})
		if _, err := kadm.NewClient(cl).DeleteRecords(ctx, cut); err != nil {
			t.Fatal(err)
		}
		f := kafkax.NewFetcher(cl)
		for _, offset := range []int64{1, 50} {
			_, _, err := f.At(ctx, name, 0, offset, 1)
			oor, ok := errors.AsType[*kafkax.OutOfRangeError](err)
			if !ok || oor.Offset != offset || !errors.Is(err, kerr.OffsetOutOfRange) {
				t.Fatalf("at %d: %v", offset, err)
			}
		}
		var got []*kgo.Record
		keep := func(r *kgo.Record) error { got = append(got, r); return nil }
		if err := f.Scan(ctx, name, 0, 0, 4, keep); err != nil || values(got) != "2 3" {
			t.Fatalf("a scan from below the start gave %q, %v", values(got), err)
		}
		if err := f.Scan(ctx, name, 0, 60, 70, keep); !errors.Is(err, kerr.OffsetOutOfRange) {
			t.Fatalf("a scan from above the end: %v", err)
		}
		start, err := f.StartOffset(ctx, name, 0)
		all, err2 := f.EndOffsets(ctx, name)
		if start != 2 || all[name][0] != 4 || err != nil || err2 != nil {
			t.Fatalf("log is %d to %d, %v %v", start, all[name][0], err, err2)
		}
	})
}

func TestScanSkipsAbortedAndWaitsForOpenTransactions(t *testing.T) {
	onEach(t, func(t *testing.T, addrs []string) {
		ctx, cl := within(t), client(t, addrs)
		name := topic(t, cl, "scan", nil)
		tx := client(t, addrs, kgo.TransactionalID(testkit.Unique(t, "tx")))
		for i, how := range []kgo.TransactionEndTry{kgo.TryAbort, kgo.TryCommit, kgo.TryAbort} {
			begin(t, tx)
			produce(t, tx, name, strconv.Itoa(i+1))
			end(t, tx, how)
		}
		f := kafkax.NewFetcher(cl)
		stop, err := f.EndOffset(ctx, name, 0)
		if err != nil {
			t.Fatal(err)
		}
		var got []*kgo.Record
		keep := func(r *kgo.Record) error { got = append(got, r); return nil }
		if err := f.Scan(ctx, name, 0, -1, stop, keep); err != nil || values(got) != "0 2" {
			t.Fatalf("got %q, %v (records of aborted transactions, or the scan stuck on control records)", values(got), err)
		}

		begin(t, tx)
		produce(t, tx, name, "4")
		from := stop // a real broker may write the last marker only now, there
		if stop, err = f.EndOffset(ctx, name, 0); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		defer cancel()
		if err := f.Scan(short, name, 0, from, stop, keep); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("the scan did not wait for the open transaction: %v", err)
		}
		done := make(chan error, 1)
		got = nil
		go func() { done <- f.Scan(ctx, name, 0, from, stop, keep) }()
		end(t, tx, kgo.TryCommit)
		if err := <-done; err != nil || values(got) != "4" {
			t.Fatalf("after the commit: %q, %v", values(got), err)
		}
		boom := errors.New("enough")
		if err := f.Scan(ctx, name, 0, 0, stop, func(*kgo.Record) error { return boom }); !errors.Is(err, boom) {
			t.Fatalf("the callback's error became %v", err)
		}
	})
}

func TestScanEndsOnACompactedLog(t *testing.T) {
	c := testkit.KFake(t)
	ctx, cl := within(t), client(t, c.ListenAddrs())
	compact, small := "compact", "200"
	name := topic(t, cl, "compacted", map[string]*string{"cleanup.policy": &compact, "segment.bytes": &small})
	for range 20 {
		produce(t, cl, name, "a", "b")
	}
	c.Compact()
	f := kafkax.NewFetcher(cl)
	stop, err := f.EndOffset(ctx, name, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, last := 0, int64(-1)
	err = f.Scan(ctx, name, 0, 0, stop, func(r *kgo.Record) error {
		if r.Offset <= last {
			t.Errorf("offset %d after %d", r.Offset, last)
		}
		n, last = n+1, r.Offset
		return nil
	})
	if err != nil || n >= 41 || last != stop-1 {
		t.Fatalf("%d records up to %d of %d, %v", n, last, stop, err)
	}
}

func TestFetcherFollowsTheLeader(t *testing.T) {
	c := testkit.KFake(t, kfake.NumBrokers(3))
	ctx, cl := within(t), client(t, c.ListenAddrs())
	name := topic(t, cl, "leader", nil)
	f := kafkax.NewFetcher(cl)
	for node := range int32(3) {
		if err := c.MoveTopicPartition(name, 0, node); err != nil {
			t.Fatal(err)
		}
		if recs, _, err := f.At(ctx, name, 0, 0, 1); err != nil || values(recs) != "0" {
			t.Fatalf("with the leader moved to %d: %q, %v", node, values(recs), err)
		}
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.FencedLeaderEpoch, Count: 3})
	if _, _, err := f.At(ctx, name, 0, 0, 1); err != nil {
		t.Fatalf("after three errors that pass: %v", err)
	}
	c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Err: kerr.TopicAuthorizationFailed, Count: 1})
	if _, _, err := f.At(ctx, name, 0, 0, 1); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("an error that does not pass: %v", err)
	}
}

func TestFetcherRefusesARecreatedTopic(t *testing.T) {
	c := testkit.KFake(t)
	ctx, cl := within(t), client(t, c.ListenAddrs())
	name := topic(t, cl, "again", nil)
	f := kafkax.NewFetcher(cl)
	if _, _, err := f.At(ctx, name, 0, 0, 1); err != nil {
		t.Fatal(err)
	}
	if err := c.DeleteTopic(name); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateTopic(name, 1, nil); err != nil {
		t.Fatal(err)
	}
	_, _, err := f.At(ctx, name, 0, 0, 1)
	if _, ok := errors.AsType[*kafkax.RecreatedError](err); !ok {
		t.Fatalf("got %v", err)
	}
}
