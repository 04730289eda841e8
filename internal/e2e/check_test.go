package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// verdict is what the checker found in a ledger.
type verdict struct {
	pairs     int // of acked events and their takers
	succeeded int
	dead      int
	both      int // succeeded and dead: after a kill the last attempt may be made twice
	lost      []string
	order     []string // overtakes, several requests at once in a lane, wrong source order
	attempts  []string // numbers out of turn, gaps too short, dead letters that do not fit
	strangers []string // what nobody should have got

	repeats     int      // attempts that were made before, explained by a kill
	underWay    int      // of them: the first was under way at the kill
	uncommitted int      // of them: it had ended after the last commit before the kill
	unexplained []string // the others: duplicates that must not be

	gaps [maxAttempts][]time.Duration // before attempt k+1; from the answer to the next request
}

// dupes is every repeat.
func (v *verdict) dupes() int { return v.repeats + len(v.unexplained) }

// since tells for a subscription how far before a kill its last commits are
// sure to reach: outcomes older than that were in one. Nil: no kill explains
// anything but what was under way.
type since func(sub int, kill span) time.Duration

// check judges a ledger that nobody writes to any more.
func check(l *ledger, committed since) *verdict {
	v := &verdict{strangers: l.stray}
	c := &checker{l: l, v: v, committed: committed, letters: map[pair][]letter{}, of: map[pair]*story{}}
	for _, d := range l.letters {
		k := pair{d.sub, d.seq}
		c.letters[k] = append(c.letters[k], d)
	}
	lanes := map[laneID]*laneState{}
	for i := range l.posts {
		p := &l.posts[i]
		id := l.plan.lane(p.sub, p.seq)
		if lanes[id] == nil {
			lanes[id] = &laneState{last: map[int32]int64{}}
		}
		c.post(lanes[id], p)
	}
	c.ends()
	return v
}

// story is one delivery as its endpoint saw it.
type story struct {
	posts     []*post
	succeeded bool
	tries     int // highest attempt number
	// failedAt is when the earliest try with the highest number was answered.
	failedAt time.Duration
}

func (s *story) over() bool { return s.succeeded || s.tries >= maxAttempts }

type laneState struct {
	open  *post // the first request of the newest delivery
	prev  *post // the newest request
	last  map[int32]int64
	story *story // of the newest delivery
}

type checker struct {
	l         *ledger
	v         *verdict
	committed since
	letters   map[pair][]letter
	of        map[pair]*story
}

func (c *checker) name(p *post) string {
	return fmt.Sprintf("%s (%s) event %d attempt %d at %v", c.l.plan.subs[p.sub].id, c.l.plan.subs[p.sub].kind, p.seq, p.attempt, p.at.Round(time.Microsecond))
}

// killed tells whether a process was killed between two moments.
func (c *checker) killed(a, b time.Duration) bool {
	return slices.ContainsFunc(c.l.kills, func(k span) bool { return k.until >= a && k.from <= b })
}

func (c *checker) post(lane *laneState, p *post) {
	// At most one request is under way in a lane.
	if q := lane.prev; q != nil && p.at < q.answered && !c.killed(q.at, p.at) {
		c.v.order = append(c.v.order, fmt.Sprintf("%s came before %s was answered at %v", c.name(p), c.name(q), q.answered))
	}
	lane.prev = p
	k := pair{p.sub, p.seq}
	s := c.of[k]
	if s == nil {
		s = &story{}
		c.of[k] = s
		c.first(lane, p)
		lane.open, lane.story = p, s
	} else if s.posts[0].id != p.id {
		c.v.strangers = append(c.v.strangers, fmt.Sprintf("%s has another webhook-id than its first attempt", c.name(p)))
	}
	c.attempt(s, p)
	s.posts = append(s.posts, p)
	s.succeeded = s.succeeded || p.status < 300
}

// first is the first request of a delivery: those before it in its lane are
// over, and it is later in its source partition.
func (c *checker) first(lane *laneState, p *post) {
	if lane.story != nil && !lane.story.over() {
		c.v.order = append(c.v.order, fmt.Sprintf("%s overtook %s, which is not over", c.name(p), c.name(lane.open)))
	}
	if lane.open != nil {
		for _, d := range c.letters[pair{lane.open.sub, lane.open.seq}] {
			// The dead letter was produced, then committed, then the lane went on.
			// Both clocks are this machine's; Kafka's has whole milliseconds.
			if d.at > p.at+2*time.Millisecond && !c.killed(lane.open.at, d.at) {
				c.v.order = append(c.v.order, fmt.Sprintf("%s was sent before %s was dead at %v", c.name(p), c.name(lane.open), d.at))
			}
		}
	}
	at, ok := c.l.acked[p.seq]
	if !ok {
		return // the producer was not told, but Kafka has it
	}
	if last, seen := lane.last[at.partition]; seen && at.offset <= last {
		c.v.order = append(c.v.order, fmt.Sprintf("%s at source offset %d came after offset %d", c.name(p), at.offset, last))
	}
	lane.last[at.partition] = at.offset
}

// attempt judges the number of p, and the time since the one before.
func (c *checker) attempt(s *story, p *post) {
	switch {
	case len(s.posts) == 0 && p.attempt == 1:
		s.tries, s.failedAt = 1, p.answered
		return
	case len(s.posts) == 0:
		c.v.attempts = append(c.v.attempts, c.name(p)+" is the first that came")
		s.tries, s.failedAt = p.attempt, p.answered
		return
	}
	q := s.posts[len(s.posts)-1]
	failed := !slices.ContainsFunc(s.posts, func(x *post) bool { return x.attempt == s.tries && x.status < 300 })
	if p.attempt == s.tries+1 && failed {
		gap := p.at - s.failedAt
		c.v.gaps[s.tries] = append(c.v.gaps[s.tries], gap)
		if min := c.l.plan.delays[s.tries-1]; gap < min {
			c.v.attempts = append(c.v.attempts, fmt.Sprintf("%s came %v after the failure, not %v", c.name(p), gap, min))
		}
		s.tries, s.failedAt = p.attempt, p.answered
		return
	}
	if p.attempt > s.tries || p.attempt < 1 {
		c.v.attempts = append(c.v.attempts, fmt.Sprintf("%s follows attempt %d, status %d", c.name(p), q.attempt, q.status))
		s.tries, s.failedAt = p.attempt, p.answered
		return
	}
	c.repeat(q, p)
}

// repeat explains why an attempt was made again, if a kill does.
func (c *checker) repeat(q, p *post) {
	for _, k := range c.l.kills {
		if k.until < q.at || k.from > p.at {
			continue
		}
		switch {
		case q.answered >= k.from:
			c.v.repeats++
			c.v.underWay++
			return
		case c.committed != nil && q.answered >= c.committed(q.sub, k):
			c.v.repeats++
			c.v.uncommitted++
			return
		}
	}
	c.v.unexplained = append(c.v.unexplained, fmt.Sprintf("%s repeats %s, answered %d at %v", c.name(p), c.name(q), q.status, q.answered))
}

// ends judges how each delivery of an acked event ended.
func (c *checker) ends() {
	for seq := range c.l.acked {
		for _, sub := range c.l.plan.takers[c.l.plan.typeOf(seq)] {
			c.v.pairs++
			c.end(pair{sub, seq})
		}
	}
	slices.Sort(c.v.lost)
}

func (c *checker) end(k pair) {
	s, letters := c.of[k], c.letters[k]
	name := fmt.Sprintf("%s (%s) event %d", c.l.plan.subs[k.sub].id, c.l.plan.subs[k.sub].kind, k.seq)
	if s == nil {
		s = &story{}
	}
	if s.succeeded {
		c.v.succeeded++
	}
	switch {
	case len(letters) == 0:
		if !s.succeeded {
			c.v.lost = append(c.v.lost, fmt.Sprintf("%s: %d requests, no success, no dead letter", name, len(s.posts)))
		}
		return
	case len(letters) > 1:
		c.v.attempts = append(c.v.attempts, fmt.Sprintf("%s has %d dead letters", name, len(letters)))
	}
	c.v.dead++
	d := letters[0]
	if d.reason != "exhausted" || d.attempts != maxAttempts || s.tries != maxAttempts || len(s.posts) > 0 && s.posts[0].id != d.id {
		c.v.attempts = append(c.v.attempts, fmt.Sprintf("%s is dead (%s, %d attempts, %s) after %d attempts", name, d.reason, d.attempts, d.id, s.tries))
	}
	if s.succeeded {
		c.v.both++
		if !c.killed(s.posts[0].at, d.at+time.Millisecond) {
			c.v.attempts = append(c.v.attempts, name+" succeeded and is dead")
		}
	}
}

// report logs the figures and fails the test for everything that is always
// wrong. Repeats are the test's to judge.
func (v *verdict) report(t *testing.T) {
	t.Helper()
	t.Logf("%d pairs: %d succeeded, %d dead, %d both, %d lost; %d order violations, %d attempt violations, %d strangers",
		v.pairs, v.succeeded, v.dead, v.both, len(v.lost), len(v.order), len(v.attempts), len(v.strangers))
	t.Logf("attempts made again: %d (%d were under way at a kill, %d had ended after the last commit before one, %d unexplained)",
		v.dupes(), v.underWay, v.uncommitted, len(v.unexplained))
	for k, gaps := range v.gaps {
		if len(gaps) > 0 {
			slices.Sort(gaps)
			t.Logf("gap before attempt %d: %d times, min %v, median %v, max %v", k+1, len(gaps),
				gaps[0].Round(time.Microsecond), gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
		}
	}
	for what, list := range map[string][]string{"lost": v.lost, "order": v.order, "attempts": v.attempts, "stranger": v.strangers} {
		if len(list) > 0 {
			t.Errorf("%s: %d times, such as\n\t%s", what, len(list), strings.Join(list[:min(len(list), 8)], "\n\t"))
		}
	}
}

// noDupes fails the test when anything was sent twice.
func (v *verdict) noDupes(t *testing.T) {
	t.Helper()
	if v.dupes() > 0 {
		t.Errorf("%d attempts were made again, such as\n\t%s", v.dupes(), strings.Join(v.unexplained[:min(len(v.unexplained), 8)], "\n\t"))
	}
}
