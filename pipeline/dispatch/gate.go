package dispatch

import (
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Gate tells whether a POST may begin: whether the group's coordinator has
// answered a heartbeat, a join, a sync or a commit that was sent within half
// the session timeout. By the monotonic clock, and counted from when the
// request was sent: a process that was frozen finds answers in its sockets that
// say nothing about now.
//
// The interleaving that it prevents: we are frozen after the loop has handed
// out a delivery; the session ends, another process recovers our partition,
// sends this delivery and the next; we wake and would send ours after that.
type Gate struct {
	epoch  time.Time
	within time.Duration
	last   atomic.Int64 // since epoch, of the newest answered request; written by client hooks
}

// NewGate makes a closed gate for sessions of this length.
func NewGate(sessionTimeout time.Duration) *Gate {
	g := &Gate{epoch: time.Now(), within: sessionTimeout / 2}
	g.last.Store(int64(-sessionTimeout))
	return g
}

// Open tells whether a POST may begin now. Safe for concurrent use.
func (g *Gate) Open() bool { return time.Since(g.epoch)-time.Duration(g.last.Load()) < g.within }

// touch notes that a request that was sent at t has been answered.
func (g *Gate) touch(t time.Time) {
	at := int64(t.Sub(g.epoch))
	for {
		last := g.last.Load()
		if at <= last || g.last.CompareAndSwap(last, at) {
			return
		}
	}
}

// OnBrokerE2E is the hook by which clients tell the gate of answers.
func (g *Gate) OnBrokerE2E(_ kgo.BrokerMetadata, key int16, e2e kgo.BrokerE2E) {
	if e2e.Err() != nil {
		return
	}
	switch kmsg.Key(key) {
	case kmsg.Heartbeat, kmsg.SyncGroup, kmsg.TxnOffsetCommit, kmsg.ConsumerGroupHeartbeat:
		g.touch(time.Now().Add(-e2e.DurationE2E()))
	default:
	}
}
