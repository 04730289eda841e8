package lane

import (
	"container/heap"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// bucket limits the rate of a subscription's requests: a token bucket that is
// kept as the time at which it will be full again. It is full when it is made,
// so a rebuilt task may begin one burst anew.
type bucket struct {
	rate     pipeline.Rate
	interval time.Duration // between two tokens; 0: no limit
	depth    time.Duration // burst - 1 tokens, in time
	full     time.Time
	wake     time.Time // a wake-up for the next token is set for; zero: none
}

// set changes the limit. What had been used of the old one counts on, in tokens.
func (b *bucket) set(r pipeline.Rate, now time.Time) {
	if b.rate == r {
		return
	}
	used, old := b.full.Sub(now), b.interval
	b.rate, b.interval = r, r.Interval()
	b.depth = time.Duration(max(0, r.Burst()-1)) * b.interval
	b.full = now
	if old > 0 && used > 0 {
		tokens := min(float64(used)/float64(old), float64(r.Burst()))
		b.full = now.Add(time.Duration(tokens * float64(b.interval)))
	}
}

// next is when there is a token; a time that is not after now: there is one.
func (b *bucket) next() time.Time { return b.full.Add(-b.depth) }

// ready tells whether there is a token.
func (b *bucket) ready(now time.Time) bool {
	return b == nil || b.interval == 0 || !b.next().After(now)
}

// used tells that it is not full.
func (b *bucket) used(now time.Time) bool { return b != nil && b.full.After(now) }

// take uses a token, which must be there.
func (b *bucket) take(now time.Time) {
	if b == nil || b.interval == 0 {
		return
	}
	if b.full.Before(now) {
		b.full = now
	}
	b.full = b.full.Add(b.interval)
}

// mayStart tells whether one more request may be begun. Nothing holds up lanes
// that are only to be ended.
func (s *sub) mayStart(now time.Time) bool {
	return s.mode() == modeDrain || s.inflight < max(1, int(s.conf.Concurrency)) && s.bucket.ready(now)
}

// setConf gives the subscription its newest configuration.
func (s *sub) setConf(conf *pipeline.Subscription, now time.Time) {
	s.health.renew(s.conf, conf)
	s.conf = conf
	if conf == nil || s.bucket == nil && conf.Rate.Count < 1 {
		return
	}
	if s.bucket == nil {
		s.bucket = &bucket{}
	}
	s.bucket.set(conf.Rate, now)
}

// grant gives free slots and tokens to lanes that wait for them, and sees to it
// that they are looked at again when there is the next token.
func (t *Task) grant(s *sub, now time.Time) {
	for len(s.waitq) > 0 && s.mayStart(now) {
		l := s.waitq[0]
		s.waitq[0] = nil
		s.waitq = s.waitq[1:]
		if l.stage == stageSlot {
			t.enqueue(l)
		}
	}
	if len(s.waitq) > 0 {
		t.wakeSub(s, now)
	}
}

// wakeSub arranges that waiting lanes are looked at when there is a token, if
// it is a token that they wait for.
func (t *Task) wakeSub(s *sub, now time.Time) {
	if s.bucket.ready(now) {
		return
	}
	b := s.bucket
	at := b.next()
	if !b.wake.IsZero() && !b.wake.After(at) {
		return
	}
	b.wake = at
	heap.Push(&t.timers, timer{at: at, sub: s})
}

// waitForSlot puts the lane into the queue for a slot or a token. It holds
// neither meanwhile, and spends no attempt.
func (t *Task) waitForSlot(l *lane, now time.Time) {
	l.stage = stageSlot
	l.sub.waitq = append(l.sub.waitq, l)
	t.wakeSub(l.sub, now)
}
