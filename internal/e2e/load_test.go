package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// The full load: 20,000 events, 200 subscriptions, fan-out 10.
const (
	loadEvents = 20_000
	loadTypes  = 20
	rareEvery  = 1000 // every so many events is one for the dead and the slow
)

// loadPlan has 20 types with 10 takers each. A tenth of the endpoints fails
// until all healthy ones have got everything, so that they surely fail all the
// while. Type rare goes to a dead one, a slow one and 8 others.
func loadPlan(over func() bool) *plan {
	p := &plan{
		events: loadEvents, padding: 160, delays: []time.Duration{300 * time.Millisecond, 500 * time.Millisecond, 700 * time.Millisecond},
		typeOf: func(seq int) string {
			if seq%rareEvery == rareEvery/2 {
				return "rare"
			}
			return fmt.Sprintf("t%d", seq%loadTypes)
		},
	}
	for i := range 190 {
		s := subscriber{id: fmt.Sprintf("sub-%03d", i), kind: "good", events: fmt.Sprintf("t%d", i%19), answer: good}
		switch {
		case i%10 == 7 && i/10 < 18 || i == 8 || i == 18:
			s.kind, s.answer = "failing", failingUntil(over)
		case i%10 == 3:
			s.kind, s.answer = "flaky", flaky(1, 0)
		case i%10 == 5:
			s.ordering = "entity"
		case i%20 == 9:
			s.ordering = "none"
		}
		p.subs = append(p.subs, s)
	}
	for i := range 10 {
		s := subscriber{id: fmt.Sprintf("rare-%03d", i), kind: "good", events: "rare", answer: good}
		switch i {
		case 0:
			s.kind, s.answer = "dead", dead
		case 1:
			s.kind, s.answer = "slow", slow
		}
		p.subs = append(p.subs, s)
	}
	return p
}

// TestLoad: every pair is settled once and in order while endpoints fail, are
// slow and are dead; the healthy do not wait for them; ClickHouse has a row for
// each request.
func TestLoad(t *testing.T) {
	t.Parallel()
	var healthy bool // guarded by the ledger's lock, under which endpoints answer
	p := loadPlan(func() bool { return healthy })
	// 19 types with 10 takers; the 20th has none, so that events without takers
	// are there too.
	s := newStage(t, setting{plan: p.complete(), engine: testkit.Engine(t), binary: plain})
	proc := s.run(nil)
	began := s.ledger.now()
	wait := s.produce(0)
	wait()
	t.Logf("%d events acked after %v", p.events, s.ledger.now()-began)
	s.await("the healthy endpoints have everything", settleLimit, func() bool {
		healthy = s.ledger.kindDone("good")
		return healthy
	})
	s.ledger.mu.Lock()
	for i := range p.subs {
		if p.subs[i].kind == "failing" && s.ledger.finished[i] > 0 {
			t.Errorf("%s is through although it failed all the time", p.subs[i].id)
		}
	}
	s.ledger.mu.Unlock()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	took := s.ledger.now() - began
	t.Logf("%d pairs, %d posts in %v", p.expected, s.ledger.count(), took.Round(time.Millisecond))
	s.rowsFor(s.ledger.count())
	s.judge(proc).noDupes(t)
	s.compareRows()
	s.deadEnds("dead")
}

// deadEnds: each delivery to an endpoint that is always dead has exactly four
// attempts (the checker has judged their gaps) and one dead letter.
func (s *stage) deadEnds(kind string) {
	s.t.Helper()
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	for i := range s.plan.subs {
		if s.plan.subs[i].kind != kind {
			continue
		}
		posts, letters := map[int][]int{}, 0
		for _, p := range s.ledger.posts {
			if p.sub == i {
				posts[p.seq] = append(posts[p.seq], p.attempt)
			}
		}
		for _, d := range s.ledger.letters {
			if d.sub == i {
				letters++
			}
		}
		for seq, attempts := range posts {
			if fmt.Sprint(attempts) != "[1 2 3 4]" {
				s.t.Errorf("%s event %d has attempts %v, want [1 2 3 4]", s.plan.subs[i].id, seq, attempts)
			}
		}
		if len(posts) != s.plan.perSub[i] || letters != s.plan.perSub[i] {
			s.t.Errorf("%s: %d events were tried and %d are dead, want %d", s.plan.subs[i].id, len(posts), letters, s.plan.perSub[i])
		}
		s.t.Logf("%s (%s): %d deliveries, 4 attempts and a dead letter each", s.plan.subs[i].id, kind, letters)
	}
}

// smallPlan is a load that keeps processes busy for as long as events come:
// endpoints take a few milliseconds each, some fail first attempts, one fails
// for long, one is dead.
func smallPlan(events, lagMS int, failing behaviour) *plan {
	p := &plan{
		events: events, padding: 100, delays: []time.Duration{500 * time.Millisecond, 500 * time.Millisecond, 500 * time.Millisecond},
		typeOf: func(seq int) string {
			if seq%400 == 75 {
				return "rare"
			}
			return fmt.Sprintf("t%d", seq%4)
		},
	}
	for i := range 24 {
		s := subscriber{id: fmt.Sprintf("sub-%03d", i), kind: "good", events: fmt.Sprintf("t%d", i%4), answer: lag(lagMS)}
		switch {
		case i%6 == 1:
			s.kind, s.answer = "flaky", flaky(2, lagMS)
		case i%6 == 5:
			s.ordering = "entity"
		case i == 10:
			s.kind, s.answer = "failing", failing
		}
		p.subs = append(p.subs, s)
	}
	p.subs = append(p.subs,
		subscriber{id: "rare-0", kind: "dead", events: "rare", answer: dead},
		subscriber{id: "rare-1", kind: "slow", events: "rare", answer: slow})
	return p.complete()
}

// failingFirst answers 503 to its first n requests.
func failingFirst(n int) behaviour {
	return func(*post) receiver.Reply {
		if n--; n >= 0 {
			return receiver.Reply{Status: 503}
		}
		return receiver.Reply{}
	}
}
