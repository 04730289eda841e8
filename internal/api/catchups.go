package api

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/replay"
)

// CatchUp is a subscription's being taken into use again with what it missed
// first, and how far that is.
type CatchUp struct {
	Subscription string
	Actor        string
	BegunAt      time.Time
	EndedAt      time.Time // zero: it is under way
	Enqueued     int       // deliveries, of those that were missed
	// Waiting is what is to settle before it goes on.
	Waiting replay.Waiting
	// Result is what came of it; nil: it is under way, or Error says why it ended
	// before its end. The subscription is then as it was, or paused (catching up).
	Result *control.Result
	Error  string
}

// catchUp is one under way, or the last one of a subscription.
type catchUp struct {
	ended chan struct{} // closed when it has
	// failure is why it ended; written before ended is closed, read after.
	failure error
	state   CatchUp // guarded by Replays.mu
}

// CatchUp takes a subscription into use again and has what it missed delivered
// first. When it returns it goes on in the background, whether or not anybody
// looks, until it is through or the process stops; then the same goes on with it
// anywhere. What ends at once is answered at once, errors too.
func (r *Replays) CatchUp(ctx context.Context, who, id string) (*CatchUp, error) {
	c := &catchUp{ended: make(chan struct{}), state: CatchUp{Subscription: id, Actor: who, BegunAt: time.Now().UTC()}}
	base, err := r.takeCatchUp(id, c)
	if err != nil {
		return nil, err
	}
	go func() { // Run waits for it
		defer r.freeSlot()
		defer close(c.ended)
		r.runCatchUp(base, c)
	}()
	wait := time.NewTimer(soon)
	defer wait.Stop()
	select {
	case <-c.ended:
		if c.failure != nil {
			return nil, c.failure
		}
	case <-wait.C:
	case <-ctx.Done():
	}
	return r.CatchUpOf(id)
}

// CatchUpOf tells of the last one of a subscription in this process; ErrNotFound:
// it began none.
func (r *Replays) CatchUpOf(id string) (*CatchUp, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.catchUps[id]
	if c == nil {
		return nil, fmt.Errorf("looking for a catch-up of %.140q in this process: %w", id, ErrNotFound)
	}
	out := c.state
	return &out, nil
}

func (r *Replays) takeCatchUp(id string, c *catchUp) (context.Context, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch last := r.catchUps[id]; {
	case r.ctx == nil:
		return nil, ErrStopping
	case last != nil && last.state.EndedAt.IsZero():
		return nil, fmt.Errorf("%w: %s is catching up", ErrUnderWay, id)
	case r.slots >= maxReplays:
		return nil, ErrBusy
	}
	r.slots++
	r.running.Add(1)
	if r.catchUps == nil {
		r.catchUps = map[string]*catchUp{}
	}
	r.catchUps[id] = c
	r.forgetCatchUps()
	return r.ctx, nil
}

// forgetCatchUps keeps those under way and the last that ended. r.mu is held.
func (r *Replays) forgetCatchUps() {
	for len(r.catchUps) > keptReplays {
		oldest := ""
		for _, id := range slices.Sorted(maps.Keys(r.catchUps)) {
			c := &r.catchUps[id].state
			if !c.EndedAt.IsZero() && (oldest == "" || c.EndedAt.Before(r.catchUps[oldest].state.EndedAt)) {
				oldest = id
			}
		}
		delete(r.catchUps, oldest)
	}
}

func (r *Replays) freeSlot() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots--
	r.running.Done()
}

// runCatchUp runs one to its end.
func (r *Replays) runCatchUp(ctx context.Context, c *catchUp) {
	id, who := c.state.Subscription, c.state.Actor // these do not change
	r.log.Info("catch-up begins", "subscription", id, "actor", who)
	enqueued := map[string]int{} // by the ids of its parts; guarded by r.mu
	res, err := r.replayer.Resume(ctx, id, replay.Options{Who: who, OnProgress: func(p replay.Progress, w replay.Waiting) {
		r.mu.Lock()
		defer r.mu.Unlock()
		enqueued[p.ID] = p.Enqueued
		c.state.Waiting, c.state.Enqueued = w, 0
		for _, n := range enqueued {
			c.state.Enqueued += n
		}
	}})
	c.failure = err
	r.mu.Lock()
	defer r.mu.Unlock()
	c.state.EndedAt, c.state.Waiting, c.state.Result = time.Now().UTC(), replay.Waiting{}, res
	if err != nil {
		c.state.Error, c.state.Result = err.Error(), nil
	}
	r.log.Info("catch-up ended", "subscription", id, "actor", who, "enqueued", c.state.Enqueued, "error", err)
}
