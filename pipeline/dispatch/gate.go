package dispatch

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// maxGateInterval bounds how long a new member's first POST waits for the gate.
const maxGateInterval = 250 * time.Millisecond

// Gate tells whether a POST may begin: whether the group's coordinator has
// accepted a heartbeat that was sent within half the session timeout. By the monotonic clock, and counted from when the
// request was sent: a process that was frozen finds answers in its sockets that
// say nothing about now.
//
// The interleaving that it prevents: we are frozen after the loop has handed
// out a delivery; the session ends, another process recovers our partition,
// sends this delivery and the next; we wake and would send ours after that.
type Gate struct {
	epoch  time.Time
	within time.Duration
	last   atomic.Int64 // since epoch: when the newest request that was answered with yes was sent
	wall   atomic.Int64 // the same moment by the wall clock, Unix nanoseconds: the monotonic one may stand still while a machine sleeps
}

// NewGate makes a closed gate for sessions of this length.
func NewGate(sessionTimeout time.Duration) *Gate {
	g := &Gate{epoch: time.Now(), within: sessionTimeout / 2}
	g.last.Store(int64(-sessionTimeout))
	return g
}

// Open tells whether a POST may begin now. Safe for concurrent use.
func (g *Gate) Open() bool {
	wall := time.Now().UnixNano() - g.wall.Load()
	return time.Since(g.epoch)-time.Duration(g.last.Load()) < g.within && max(wall, -wall) < int64(g.within)
}

// touch notes that a request that was sent at t has been answered with yes.
func (g *Gate) touch(t time.Time) {
	at := int64(t.Sub(g.epoch))
	for {
		last := g.last.Load()
		if at <= last {
			return
		}
		if g.last.CompareAndSwap(last, at) {
			g.wall.Store(t.UnixNano())
			return
		}
	}
}

// shut closes the gate: we are out.
func (g *Gate) shut() { g.wall.Store(0) }

// keep asks the coordinator again and again whether we are a member still, and
// tells the gate of each yes. kgo's own heartbeats would do, were their answers
// to be seen: an answer alone says nothing, it may be that we are out.
func (d *Dispatcher) keepGate(ctx context.Context) {
	session := time.Duration(d.cfg.SessionTimeout)
	tick := time.NewTicker(min(session/heartbeatsPerSession, maxGateInterval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.loopDone:
			return
		case <-tick.C:
		}
		id, generation := d.member.Load().GroupMetadata()
		// Of a member that is not the one whose tasks we have nothing follows.
		if known, _ := d.knownID.Load().(string); id == "" || generation < 0 || id != known {
			continue
		}
		hctx, cancel := context.WithTimeout(ctx, session/2)
		d.heartbeat(hctx, id, generation)
		cancel()
	}
}

func (d *Dispatcher) heartbeat(ctx context.Context, id string, generation int32) {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Group, req.Generation, req.MemberID = d.group, generation, id
	if i := d.deps.Kafka.InstanceID; i != "" {
		req.InstanceID = &i
	}
	sent := time.Now()
	resp, err := req.RequestWith(ctx, d.member.Load())
	if err != nil {
		return // kgo retries and logs; the gate closes by itself
	}
	switch err := kerr.ErrorForCode(resp.ErrorCode); {
	case err == nil, errors.Is(err, kerr.RebalanceInProgress):
		d.deps.Gate.touch(sent)
	case errors.Is(err, kerr.UnknownMemberID), errors.Is(err, kerr.FencedInstanceID):
		d.deps.Gate.shut()
	}
}
