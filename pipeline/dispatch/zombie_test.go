package dispatch

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// expelled has the coordinator throw a dispatcher out in the middle of a
// rebalance: its join is held until let is closed, and is answered by then with
// UNKNOWN_MEMBER_ID, upon which the client joins as another member.
func expelled(t *testing.T, c *kfake.Cluster, b *bench, r *running) (let chan struct{}) {
	t.Helper()
	id, _ := r.d.member.Load().GroupMetadata()
	let = make(chan struct{})
	var joining atomic.Bool
	c.ControlKey(int16(kmsg.Heartbeat), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if req.(*kmsg.HeartbeatRequest).MemberID != id || joining.Load() {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = kerr.RebalanceInProgress.Code
		return resp, nil, true
	})
	c.ControlKey(int16(kmsg.JoinGroup), func(req kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if req.(*kmsg.JoinGroupRequest).MemberID == id {
			joining.Store(true)
			c.SleepControl(func() { <-let })
		}
		return nil, nil, false
	})
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Group, req.MemberID = b.kafka.DispatcherGroup(), id
	m := kmsg.NewLeaveGroupRequestMember()
	m.MemberID = id
	req.Members = append(req.Members, m)
	adm, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer adm.Close()
	if _, err := req.RequestWith(t.Context(), adm); err != nil {
		t.Fatal(err)
	}
	return let
}

// TestAMemberThatBecameAnotherCommitsNothing: dispatcher A is thrown out while
// its join is under way; B recovers the partition and parks a delivery; A comes
// back as another member, whose generation Kafka would accept for A's old tasks.
// Their commit would write A's older lane record over B's, and what B had parked
// would be found by nobody.
func TestAMemberThatBecameAnotherCommitsNothing(t *testing.T) {
	c := testkit.KFake(t)
	b := newBench(t, c.ListenAddrs(), 1, sub("s", nil))
	slowRetries := func(cfg *Config) {
		cfg.RetryDelays = []kafkax.Duration{kafkax.Duration(2 * time.Second), kafkax.Duration(time.Minute), kafkax.Duration(time.Minute)}
	}
	parked := func(n int) func() bool {
		return func() bool { return len(b.read(b.kafka.Topics().Parked())) >= n }
	}
	fail := func(string, int, int) (pipeline.Outcome, time.Duration) { return pipeline.OutcomeResponseError, 0 }
	ofA := b.ledger
	ofA.setAnswer(fail)
	a := b.start(slowRetries)
	b.event("s")
	ofA.await(t, "A's attempt at event 0", func() bool { return len(ofA.of("s")) == 1 })
	b.event("s")
	ofA.await(t, "event 1 parked by A", parked(1))
	let := expelled(t, c, b, a)

	ofB := newLedger()
	ofB.setAnswer(fail)
	b.ledger = ofB
	other := b.start(slowRetries)
	ofB.await(t, "B's attempt at event 0", func() bool { return len(ofB.of("s")) >= 1 })
	b.event("s")
	ofB.await(t, "event 2 parked by B", parked(2))
	before, _ := a.d.member.Load().GroupMetadata()
	close(let)
	ofB.await(t, "A's return as another member", func() bool {
		id, generation := a.d.member.Load().GroupMetadata()
		return id != "" && id != before && generation >= 0
	})
	other.stop(t)
	a.stop(t)

	b.ledger = newLedger()
	b.start(nil)
	b.ledger.await(t, "all three events by C", func() bool { return b.ledger.successes() == 3 })
	b.ledger.checkOrder(t, pipeline.OrderingSubscription, 4)
}
