package dispatch

import (
	"time"

	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// slowRequest is how long a request may be without an answer before it is moved
// out of its slot: a multiple of what a healthy endpoint takes, and short
// against the usual time limits.
const slowRequest = 500 * time.Millisecond

// slots counts the requests under way. Those that have taken long leave their
// slot to others as long as there are not too many of them: else a few hundred
// endpoints that never answer, each for the whole of its time limit, would leave
// nothing to those that do. What a lane whose last attempt failed has under way
// stays in the share of such lanes. Only the loop uses it.
type slots struct {
	cfg        *Config
	busy       int // requests in slots
	cold       int // of them: those of lanes of which nothing is known of late
	failing    int // of them: those of lanes whose last attempt failed
	slow       int // requests that have left their slot
	maxCold    int // without pressure
	maxFailing int
	ring       job // of the jobs in slots that may leave them, oldest first
}

func (s *slots) init(cfg *Config) {
	s.cfg, s.maxFailing, s.maxCold = cfg, cfg.failingSlots(), max(1, cfg.MaxInFlight-cfg.MaxInFlight/4)
	s.ring.prev, s.ring.next = &s.ring, &s.ring
}

// inFlight is the number of requests under way.
func (s *slots) inFlight() int { return s.busy + s.slow }

// free tells that a request may be begun.
func (s *slots) free() bool { return s.busy < s.cfg.MaxInFlight }

// pressure tells that so many requests are without an answer that lanes of which
// nothing is known may be more of the same.
func (s *slots) pressure() bool { return s.slow >= max(1, s.cfg.MaxInFlight/4) }

// coldFree tells that the request of a cold lane may be begun. A quarter of the
// slots is always kept from them: without it the first ten thousand requests to
// endpoints that never answer would take every slot before one of them is seen to
// be slow. Under pressure it is half.
func (s *slots) coldFree() bool {
	if s.pressure() {
		return s.cold < max(1, s.cfg.MaxInFlight/2)
	}
	return s.cold < s.maxCold
}

// shares tells whose requests may be begun.
func (s *slots) shares() lane.Shares {
	return lane.Shares{Suspect: s.failing < s.maxFailing, Cold: s.coldFree()}
}

// coldHeldUp tells that cold lanes are held up by requests without an answer.
func (s *slots) coldHeldUp() bool { return s.pressure() && !s.coldFree() }

// take counts a job that begins.
func (s *slots) take(now time.Time, j *job) {
	s.busy++
	j.began, j.slow = now, false
	if j.work.Suspect() {
		s.failing++
		return
	}
	if j.work.Cold() {
		s.cold++
	}
	last := s.ring.prev
	last.next, j.prev, j.next, s.ring.prev = j, last, &s.ring, j
}

// age moves requests that have taken long out of their slots.
func (s *slots) age(now time.Time) {
	for s.slow < s.cfg.MaxSlow {
		j := s.ring.next
		if j == &s.ring || now.Sub(j.began) < slowRequest {
			return
		}
		s.leave(j)
		j.slow = true
		s.slow++
	}
}

// release counts a job that has ended.
func (s *slots) release(j *job) {
	switch {
	case j.slow:
		s.slow--
	case j.work.Suspect():
		s.busy--
		s.failing--
	default:
		s.leave(j)
	}
}

// leave takes a job out of its slot.
func (s *slots) leave(j *job) {
	j.prev.next, j.next.prev = j.next, j.prev
	j.prev, j.next = nil, nil
	s.busy--
	if j.work.Cold() {
		s.cold--
	}
}
