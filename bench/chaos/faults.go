package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/proof"
)

// fault is one way to break something. begin looks for something to break and
// locks it; it returns what is to be done, in a goroutine of its own, which
// mends it again. Nil: there is nothing that could be broken now.
type fault struct {
	name   string
	weight int
	begin  func(r *runner, rng *rand.Rand) func(ctx context.Context)
}

// The weights make about one of two faults a kill or a pause.
var faults = []fault{
	{"kill", 28, (*runner).beginKill},
	{"killtwo", 4, (*runner).beginKillTwo},
	{"pause", 14, (*runner).beginPause},
	{"blink", 6, (*runner).beginBlink},
	{"stop", 12, (*runner).beginStop},
	{"join", 10, (*runner).beginJoin},
	{"broker", 6, (*runner).beginBroker},
	{"engine", 5, (*runner).beginEngine},
	{"endpoint", 10, (*runner).beginEndpoint},
	{"update", 5, (*runner).beginUpdate},
	{"delete", 6, (*runner).beginDelete},
	{"zombie", 4, (*runner).beginZombie},
	{hang, 0, (*runner).beginHang}, // where it is asked for, and in a time of its own: see disturb
}

func faultNames() []string {
	var names []string
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

// disturb makes faults by the seeded schedule for as long as asked, and returns
// when all of them are mended. What a seed repeats is the schedule; how the
// machine runs beside it is not to be repeated.
func (r *runner) disturb(ctx context.Context) {
	var chosen []fault
	sum := 0
	for _, f := range faults {
		if r.o.faults == "all" && f.weight > 0 || slices.Contains(strings.Split(r.o.faults, ","), f.name) {
			chosen = append(chosen, f)
			sum += f.weight
		}
	}
	hangs := slices.ContainsFunc(chosen, func(f fault) bool { return f.name == hang })
	rng := rand.New(rand.NewPCG(r.o.seed, 0))
	begun := time.Now()
	for time.Since(begun) < r.o.length && ctx.Err() == nil {
		if hangs && (sum == 0 || time.Since(begun)%isolationEvery < isolationTime) {
			if do := r.beginHang(rng); do != nil {
				r.breaking.Go(func() { do(ctx) })
			}
			wait(ctx, time.Second)
			continue
		}
		wait(ctx, time.Duration((0.5+rng.Float64())*float64(r.o.every)))
		if sum == 0 {
			continue
		}
		roll, own := rng.IntN(sum), rng.Uint64()
		for _, f := range chosen {
			if roll -= f.weight; roll >= 0 {
				continue
			}
			if do := f.begin(r, rand.New(rand.NewPCG(own, 1))); do != nil {
				r.breaking.Go(func() { do(ctx) })
			}
			break
		}
	}
	r.breaking.Wait()
}

// victim finds a running process that nobody is at, and locks it.
func (r *runner) victim(rng *rand.Rand) *slot {
	for _, i := range rng.Perm(len(r.slots)) {
		s := r.slots[i]
		if !s.TryLock() {
			continue
		}
		if s.running() && !s.extra {
			return s
		}
		s.Unlock()
	}
	return nil
}

func between(rng *rand.Rand, from, to time.Duration) time.Duration {
	return from + time.Duration(rng.Int64N(int64(to-from)))
}

// again starts a process that was ended, and unlocks it.
func (s *slot) again() {
	defer s.Unlock()
	if err := s.start(); err != nil {
		s.r.track.fail(err)
	}
}

func (r *runner) beginKill(rng *rand.Rand) func(context.Context) {
	s := r.victim(rng)
	if s == nil {
		return nil
	}
	pause := between(rng, 0, 1500*time.Millisecond)
	if rng.IntN(2) == 0 {
		pause = 0
	}
	return func(ctx context.Context) {
		defer s.again()
		s.kill()
		wait(ctx, pause)
	}
}

func (r *runner) beginKillTwo(rng *rand.Rand) func(context.Context) {
	a, b := r.beginKill(rng), r.beginKill(rng)
	if a == nil || b == nil {
		return a
	}
	return func(ctx context.Context) {
		r.breaking.Go(func() { a(ctx) })
		b(ctx)
	}
}

// beginPause freezes a process for longer than its session.
func (r *runner) beginPause(rng *rand.Rand) func(context.Context) {
	return r.freeze(rng, sessionTimeout+500*time.Millisecond, sessionTimeout+4*time.Second)
}

// beginBlink freezes it for less: it must go on as if nothing had been.
func (r *runner) beginBlink(rng *rand.Rand) func(context.Context) {
	return r.freeze(rng, 100*time.Millisecond, sessionTimeout/2)
}

func (r *runner) freeze(rng *rand.Rand, from, to time.Duration) func(context.Context) {
	s := r.victim(rng)
	if s == nil {
		return nil
	}
	d := between(rng, from, to)
	return func(ctx context.Context) {
		defer s.Unlock()
		s.pause(ctx, d)
	}
}

func (r *runner) beginStop(rng *rand.Rand) func(context.Context) {
	s := r.victim(rng)
	if s == nil {
		return nil
	}
	pause := between(rng, 0, time.Second)
	return func(ctx context.Context) {
		defer s.again()
		s.stop()
		wait(ctx, pause)
	}
}

// beginJoin has a process more for a while.
func (r *runner) beginJoin(rng *rand.Rand) func(context.Context) {
	for _, s := range r.slots {
		if !s.extra || !s.TryLock() {
			continue
		}
		stay, killed := between(rng, 2*time.Second, 8*time.Second), rng.IntN(4) == 0
		return func(ctx context.Context) {
			defer s.Unlock()
			if err := s.start(); err != nil {
				r.track.fail(err)
				return
			}
			wait(ctx, stay)
			if killed {
				s.kill()
				return
			}
			s.stop()
		}
	}
	return nil
}

// brokerRest between two bounces: replicas must catch up, and with one broker
// there must be work in between.
const brokerRest = 20 * time.Second

func (r *runner) beginBroker(rng *rand.Rand) func(context.Context) {
	if !r.brokerLock.TryLock() {
		return nil
	}
	node, hard, down := 1+rng.IntN(r.o.brokers), rng.IntN(2) == 0, between(rng, 0, 3*time.Second)
	hard = hard || r.o.brokers == 1 && !r.o.stops
	return func(ctx context.Context) {
		defer r.brokerLock.Unlock()
		from := r.now()
		note, act := "stopped", r.kafka.Stop
		if hard {
			note, act = "killed", r.kafka.Kill9
		}
		r.failing(act(node))
		wait(ctx, down)
		r.failing(r.kafka.Start(node))
		r.write(&proof.Fault{Kind: proof.Broker, From: from, To: r.now(), Note: fmt.Sprintf("broker %d %s", node, note)})
		wait(ctx, r.o.rest)
	}
}

func (r *runner) beginEngine(rng *rand.Rand) func(context.Context) {
	if !r.engineLock.TryLock() {
		return nil
	}
	hard, down := rng.IntN(2) == 0, between(rng, 500*time.Millisecond, 5*time.Second)
	return func(ctx context.Context) {
		defer r.engineLock.Unlock()
		from := r.now()
		note := "killed"
		if hard {
			r.engine.Kill9()
		} else {
			note = "stopped"
			r.failing(r.engine.Stop())
		}
		wait(ctx, down)
		r.failing(r.engine.Start())
		r.write(&proof.Fault{Kind: proof.Engine, From: from, To: r.now(), Note: note})
	}
}

// retryAfters are what a failing endpoint may ask for: nothing at all as often
// as not; what is none changes nothing.
var retryAfters = []string{"", "", "", "1", "2", "soon", "-1"}

// beginEndpoint has some endpoints fail, wholly or partly, or be slow.
func (r *runner) beginEndpoint(rng *rand.Rand) func(context.Context) {
	subs := rng.Perm(len(r.world.subs))[:1+rng.IntN(len(r.world.subs)/8)]
	d := between(rng, time.Second, 5*time.Second)
	m := mode{percent: 100}
	m.after = retryAfters[rng.IntN(len(retryAfters))]
	switch rng.IntN(4) {
	case 0:
		m.percent = 20
	case 1:
		m = mode{delay: 200 * time.Millisecond}
	}
	return func(context.Context) {
		from := r.now()
		m.until = time.Now().Add(d)
		r.world.set(subs, m)
		r.write(&proof.Fault{Kind: proof.Endpoint, From: from, To: from + d, Subs: subs, Note: fmt.Sprintf("%d endpoints fail %d %% and take %v, Retry-After %q", len(subs), m.percent, m.delay, m.after)})
	}
}

const (
	hang = "hang"
	// isolationTime out of isolationEvery nothing is broken but what hangs: what
	// healthy subscriptions get can be judged only then.
	isolationTime  = 30 * time.Second
	isolationEvery = 10 * time.Minute
	// hangDelay is how long a request to an endpoint that hangs is without an answer:
	// short of its time limit, so that the ledger and the process agree on what came
	// of it.
	hangDelay = requestTimeout - time.Second
	hangTime  = 8 * time.Second
	hangRest  = 6 * time.Second // what came of it is worked off
)

// beginHang has the endpoints hang of which many requests may be under way: of
// three in ten subscriptions, each with 16 lanes or without an order.
func (r *runner) beginHang(*rand.Rand) func(context.Context) {
	if !r.hangLock.TryLock() {
		return nil
	}
	var subs []int
	for i, s := range r.world.subs {
		if s.Ordering != "subscription" && s.Kind == "good" {
			subs = append(subs, i)
		}
	}
	return func(ctx context.Context) {
		defer r.hangLock.Unlock()
		from := r.now()
		r.world.set(subs, mode{until: time.Now().Add(hangTime), delay: hangDelay})
		r.write(&proof.Fault{Kind: proof.Endpoint, From: from, To: from + hangTime + hangDelay, Subs: subs, Note: fmt.Sprintf("%d endpoints take %v", len(subs), hangDelay)})
		wait(ctx, hangTime+hangRest)
	}
}

// beginUpdate moves some subscriptions to another URL, or pauses them for a
// while.
func (r *runner) beginUpdate(rng *rand.Rand) func(context.Context) {
	if !r.updateLock.TryLock() {
		return nil
	}
	subs := rng.Perm(len(r.world.subs))[:1+rng.IntN(4)]
	pause, d := rng.IntN(2) == 0, between(rng, 500*time.Millisecond, 3*time.Second)
	return func(ctx context.Context) {
		defer r.updateLock.Unlock()
		from := r.now()
		r.failing(r.change(subs, func(d *doc) {
			d.revision++
			d.paused = pause
		}))
		if pause {
			wait(ctx, d)
			r.failing(r.change(subs, func(d *doc) { d.paused = false }))
		}
		r.write(&proof.Fault{Kind: proof.Update, From: from, To: r.now(), Note: fmt.Sprintf("%d subscriptions, paused: %v", len(subs), pause)})
	}
}

// beginDelete deletes a subscription or two, and makes them anew: what waits of
// them ends as cancelled, what comes meanwhile is not theirs.
func (r *runner) beginDelete(rng *rand.Rand) func(context.Context) {
	if !r.updateLock.TryLock() {
		return nil
	}
	subs, stay := rng.Perm(len(r.world.subs))[:1+rng.IntN(2)], between(rng, time.Second, 6*time.Second)
	return func(ctx context.Context) {
		defer r.updateLock.Unlock()
		r.track.leave(subs)
		from := r.now()
		var ids []string
		for _, i := range subs {
			ids = append(ids, r.world.subs[i].ID)
		}
		r.failing(r.persist("", append([]string{"subs", "delete"}, ids...)...))
		gone := r.now()
		wait(ctx, stay)
		back := r.now()
		r.failing(r.change(subs, func(*doc) {}))
		to := r.now()
		for _, i := range subs {
			r.failing(r.journal.Absence(&proof.Absence{Sub: i, From: from, Gone: gone, Back: back, To: to}))
		}
		r.write(&proof.Fault{Kind: proof.Delete, From: from, To: to, Note: strings.Join(ids, ", ")})
		wait(ctx, hearing)
		r.track.back(subs)
	}
}

// hearing is how long after it was made anew not every router may know a
// subscription, which may have been frozen meanwhile.
const hearing = 5 * time.Second

// change applies changed documents. It is the same as ever whether or not ctx
// has ended: a subscription must not stay paused.
func (r *runner) change(subs []int, f func(*doc)) error {
	r.world.mu.Lock()
	for _, i := range subs {
		f(&r.world.docs[i])
	}
	r.world.mu.Unlock()
	return r.persist(r.world.documents(r.endpoint.url(), subs), "subs", "apply", "-f", "-")
}

// persist runs a hookline command until it succeeds: one that finds no broker
// says so and ends; a broker is not away long.
func (r *runner) persist(stdin string, args ...string) error {
	deadline := time.Now().Add(time.Minute)
	for {
		err := r.command(context.Background(), stdin, args...)
		if err == nil || time.Now().After(deadline) {
			return err
		}
		time.Sleep(500 * time.Millisecond)
	}
}

// failing notes that the harness itself could not do its work.
func (r *runner) failing(err error) {
	if err != nil {
		r.track.fail(err)
	}
}
