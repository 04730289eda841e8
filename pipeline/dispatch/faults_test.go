package dispatch

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
)

// faulty runs a load on a kfake whose broker fails now and then in one way, and
// checks that nothing is lost, overtaken or sent twice.
func faulty(t *testing.T, inject func(c *kfake.Cluster)) {
	t.Helper()
	ids, subs := churnSubs()
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 4, subs...)
	b.ledger.setAnswer(flaky)
	r := b.start(nil)
	b.event(ids...)
	b.ledger.await(t, "the first event", func() bool { return b.ledger.successes() == len(ids) })
	inject(c)
	for range 120 {
		b.event(ids...)
	}
	b.ledger.await(t, "everything", func() bool { return b.ledger.successes() == 121*len(ids) })
	r.stop(t)
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
	b.checkOnce(t)
}

func TestCommitsThatAreRefused(t *testing.T) {
	for name, refusal := range map[string]*kerr.Error{
		"generation": kerr.IllegalGeneration, "loading": kerr.CoordinatorLoadInProgress,
		"moved": kerr.NotCoordinator, "concurrent": kerr.ConcurrentTransactions,
	} {
		t.Run(name, func(t *testing.T) {
			faulty(t, func(c *kfake.Cluster) {
				c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.TxnOffsetCommit}, Err: refusal, Count: 3})
			})
		})
	}
}

func TestConnectionsThatBreakAtTheEndOfATransaction(t *testing.T) {
	var n atomic.Int32
	faulty(t, func(c *kfake.Cluster) {
		c.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			if i := n.Add(1); i%3 == 1 && i < 10 {
				return nil, errors.New("cut"), true
			}
			return nil, nil, false
		})
	})
	if n.Load() < 4 {
		t.Errorf("only %d ends of transactions were seen", n.Load())
	}
}

func TestProducesThatFail(t *testing.T) {
	faulty(t, func(c *kfake.Cluster) {
		c.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Err: kerr.NotEnoughReplicas, Count: 5})
	})
}

// Refusals that kgo does not retry, of what a transaction writes: retries, parked
// deliveries, lanes. The transaction is aborted and made again; no source offset
// is committed meanwhile, and nothing is skipped.
func TestProducesThatAreRefused(t *testing.T) {
	for name, refusal := range map[string]*kerr.Error{
		"too large": kerr.MessageTooLarge, "not allowed": kerr.TopicAuthorizationFailed, "corrupt": kerr.InvalidRecord,
	} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			faulty(t, func(c *kfake.Cluster) {
				c.ControlKey(int16(kmsg.Produce), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
					c.KeepControl()
					req := kreq.(*kmsg.ProduceRequest)
					if req.TransactionID == nil || n.Add(1) > 3 {
						return nil, nil, false
					}
					return refused(req, refusal), nil, true
				})
			})
			if n.Load() < 4 {
				t.Errorf("only %d produce requests of transactions were seen", n.Load())
			}
		})
	}
}

// refused answers a produce request with an error for each partition.
func refused(req *kmsg.ProduceRequest, err *kerr.Error) *kmsg.ProduceResponse {
	resp := req.ResponseKind().(*kmsg.ProduceResponse)
	for i := range req.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
		for j := range req.Topics[i].Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = req.Topics[i].Partitions[j].Partition, err.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

func TestStopsWhileKafkaIsAway(t *testing.T) {
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 2, sub("s", nil))
	r := b.start(nil)
	b.event("s")
	b.ledger.await(t, "the event", func() bool { return b.ledger.successes() == 1 })
	for _, k := range []kmsg.Key{kmsg.EndTxn, kmsg.InitProducerID, kmsg.TxnOffsetCommit, kmsg.LeaveGroup} {
		c.ControlKey(int16(k), func(kmsg.Request) (kmsg.Response, error, bool) {
			c.KeepControl()
			return nil, errors.New("away"), true
		})
	}
	b.event("s")
	b.ledger.await(t, "the next event", func() bool { return b.ledger.successes() == 2 })
	begun := time.Now()
	r.stop(t)
	if took := time.Since(begun); took > 5*time.Second+2*stopSlack+leaveTimeout+4*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

func TestStopsWhileAPredecessorsTransactionIsOpen(t *testing.T) {
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 2, sub("s", nil))
	asked := make(chan struct{}, 1)
	c.ControlKey(int16(kmsg.OffsetFetch), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		r := req.(*kmsg.OffsetFetchRequest)
		if !r.RequireStable || len(r.Groups) == 0 || len(r.Groups[0].Topics) < 4 {
			return nil, nil, false
		}
		select {
		case asked <- struct{}{}:
		default:
		}
		return nil, errors.New("not answered"), true
	})
	b.kafka.InstanceID = "one"
	r := b.start(nil)
	select {
	case <-asked:
	case <-time.After(20 * time.Second):
		t.Fatal("no recovery asked for committed offsets")
	}
	begun := time.Now()
	r.stop(t)
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the stop took %v", took)
	}
}

// An outage of hours aborts thousands of transactions: what is kept of them does
// not grow.
func TestAcknowledgedGroupsAreForgotten(t *testing.T) {
	open := newAckGroup()
	open.add()
	open.seal()
	kept := []*ackGroup{open}
	for range 1000 {
		g := newAckGroup()
		g.add()
		g.done()
		g.seal()
		kept = unacknowledged(append(kept, g))
	}
	if len(kept) != 1 || kept[0] != open {
		t.Errorf("%d groups are kept, want the one that is not acknowledged", len(kept))
	}
}
