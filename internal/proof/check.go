package proof

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

// Verdict is what Check found.
type Verdict struct {
	Events, Pairs   int // acknowledged events, and of them with their takers
	Posts           int
	Succeeded, Dead int
	Both            int // succeeded and dead: across a kill the last attempt may be made twice
	Cancelled       int // of the dead: since their subscription was deleted
	Untaken         int // pairs whose event came while the subscription was deleted, or just before or after
	Repeats         int // attempts made again, each explained by a breach
	UnderWay        int // of them: the request was under way at the breach
	Uncommitted     int // of them: it had ended after what was surely committed
	Breaches        []Bound
	Gaps            [MaxAttempts][]time.Duration // beyond the delay, before attempt k+1
	Rows            RowFigures
	LongestSilence  time.Duration   // between two successes
	Recoveries      []time.Duration // from a process's start after a kill to its first request
	Stops           []time.Duration // from SIGTERM to the end
	Unreachable     int             // processes that ended since there was no Kafka
	Held            Held
	Isolation       Isolation

	Violations []Violation
}

// Bound is what one breach could excuse, and what it had to.
type Bound struct {
	Kind             string
	Life             int
	At               time.Duration
	Allowed, Repeats int
}

// Violation is one fact that must not be.
type Violation struct {
	Invariant string // I1 to I10
	Text      string
	pair      pair
	has       bool // pair is set
}

// story is one delivery as its endpoint saw it.
type story struct {
	posts   []*Post
	index   int // in its lane, by the first request
	tries   int // highest attempt number
	last    *Post
	success *Post // the first
	excused bool  // an attempt was repeated across a breach
}

// lane is a unit of order.
type lane struct {
	newest  *story
	prev    *Post
	stories int
	offsets map[int32]int64 // source partition -> offset of the newest event
	seen    map[int]int     // life -> index of its newest delivery
	revs    map[int]int     // life -> newest revision of the URL
}

type checker struct {
	l        *Ledger
	v        *Verdict
	breaches map[int][]breach
	commits  *commits
	letters  map[pair][]*Letter
	stories  map[pair]*story
	lanes    map[laneID]*lane
	ids      map[string]pair
	used     map[breachID]int      // repeats that a breach explained
	seen     map[int]time.Duration // when the first request of each event came; see firsts
}

type breachID struct{ life, n int }

// Check judges a ledger that nobody writes to any more.
func Check(l *Ledger) *Verdict {
	c := newChecker(l)
	for _, s := range l.Strays {
		c.say("I10", pair{}, "%s", s)
	}
	for _, p := range l.Posts {
		c.post(p)
	}
	c.ends()
	c.bounds()
	c.silence()
	c.processes()
	c.held()
	c.isolation()
	if l.HasRows {
		c.rows()
	}
	return c.v
}

func newChecker(l *Ledger) *checker {
	c := &checker{
		l: l, v: &Verdict{Events: len(l.Events), Posts: len(l.Posts)}, breaches: l.breaches(), commits: l.committed(),
		letters: map[pair][]*Letter{}, stories: map[pair]*story{}, lanes: map[laneID]*lane{}, ids: map[string]pair{},
		used: map[breachID]int{},
	}
	for _, x := range l.Letters {
		k := pair{x.Sub, x.Seq}
		c.letters[k] = append(c.letters[k], x)
	}
	return c
}

func (c *checker) say(invariant string, k pair, format string, args ...any) {
	c.v.Violations = append(c.v.Violations, Violation{invariant, fmt.Sprintf(format, args...), k, k != pair{}})
}

func (c *checker) name(p *Post) string {
	s := c.l.Plan.Subs[p.Sub]
	return fmt.Sprintf("%s (%s) event %d attempt %d by %s at %v", s.ID, s.Kind, p.Seq, p.Attempt, c.l.lifeName(p.Life), p.At)
}

func (l *Ledger) lifeName(life int) string {
	for _, f := range l.Faults {
		if f.Kind == Started && f.Life == life {
			return fmt.Sprintf("%s/life %d", f.Name, life)
		}
	}
	return fmt.Sprintf("life %d", life)
}

// broken finds a breach of p's life between two moments; -1: there is none.
func (c *checker) broken(life int, from, to time.Duration) int {
	return slices.IndexFunc(c.breaches[life], func(b breach) bool { return b.until >= from && b.from <= to })
}

func (c *checker) post(p *Post) {
	id := c.l.lane(p)
	ln := c.lanes[id]
	if ln == nil {
		ln = &lane{offsets: map[int32]int64{}, seen: map[int]int{}, revs: map[int]int{}}
		c.lanes[id] = ln
	}
	k := pair{p.Sub, p.Seq}
	c.alone(ln, p, k)
	c.identity(p, k)
	c.present(p, k)
	s := c.stories[k]
	if s == nil {
		s = &story{index: ln.stories}
		ln.stories++
		c.stories[k] = s
		c.first(ln, p, k)
		ln.newest = s
	}
	c.backwards(ln, s, p, k)
	c.attempt(s, p, k)
	s.posts, s.last = append(s.posts, p), p
	if p.OK() && s.success == nil {
		s.success = p
	}
}

// alone: at most one request is under way in a lane.
func (c *checker) alone(ln *lane, p *Post, k pair) {
	q := ln.prev
	ln.prev = p
	if q == nil || p.At >= q.end() {
		return
	}
	if n := c.broken(q.Life, q.At, p.At); n >= 0 && (q.Life != p.Life || c.breaches[q.Life][n].kind != Killed) {
		return
	}
	c.say("I2 order", k, "%s came before %s was answered at %v", c.name(p), c.name(q), q.end())
}

// identity: a delivery has one id, the same on every attempt, and nobody else's.
func (c *checker) identity(p *Post, k pair) {
	if other, ok := c.ids[p.ID]; ok && other != k {
		c.say("I3 attempts", k, "%s has the webhook-id of event %d", c.name(p), other.seq)
	}
	c.ids[p.ID] = k
	if s := c.stories[k]; s != nil && s.posts[0].ID != p.ID {
		c.say("I3 attempts", k, "%s has another webhook-id than its first attempt", c.name(p))
	}
	if e := c.l.Events[p.Seq]; e == nil || e.Type != c.l.Plan.Subs[p.Sub].Type {
		c.say("I10", k, "%s is none of its events", c.name(p))
	}
}

// first is the first request of a delivery: the one before it in its lane is
// over, also durably, and it is later in its source partition. No breach excuses
// anything of that.
func (c *checker) first(ln *lane, p *Post, k pair) {
	if s := ln.newest; s != nil && !c.over(s, p.At) {
		c.say("I2 order", k, "%s overtook %s, which is not over", c.name(p), c.name(s.posts[0]))
	}
	e := c.l.Events[p.Seq]
	if e == nil {
		return
	}
	if last, seen := ln.offsets[e.Partition]; seen && e.Offset <= last {
		c.say("I2 order", k, "%s at source offset %d/%d came after offset %d", c.name(p), e.Partition, e.Offset, last)
	}
	ln.offsets[e.Partition] = max(ln.offsets[e.Partition], e.Offset)
}

// over tells whether a delivery had ended by a moment: it was answered with
// success, or its dead letter, which is committed, had been produced. Both clocks
// are this machine's; Kafka's has whole milliseconds.
func (c *checker) over(s *story, at time.Duration) bool {
	if s.success != nil && s.success.Until <= at {
		return true
	}
	return slices.ContainsFunc(c.letters[pair{s.posts[0].Sub, s.posts[0].Seq}], func(x *Letter) bool { return x.At <= at+2*time.Millisecond })
}

// backwards: one life never goes back in a lane, unless it lost its session and
// got the partition again; nor does it use an older URL than it has used.
func (c *checker) backwards(ln *lane, s *story, p *Post, k pair) {
	excused := slices.ContainsFunc(c.breaches[p.Life], func(b breach) bool { return b.kind != Killed && b.kind != Told && b.from <= p.At })
	if last, ok := ln.seen[p.Life]; ok && s.index < last && !excused {
		c.say("I2 order", k, "%s came after a later delivery of its lane by the same process", c.name(p))
	}
	ln.seen[p.Life] = max(ln.seen[p.Life], s.index)
	if p.Revision < ln.revs[p.Life] {
		c.say("I2 order", k, "%s went to revision %d of its URL, after revision %d", c.name(p), p.Revision, ln.revs[p.Life])
	}
	ln.revs[p.Life] = max(ln.revs[p.Life], p.Revision)
}

// attempt judges the number of p, and the time since the one before.
func (c *checker) attempt(s *story, p *Post, k pair) {
	q := s.last
	switch {
	case q == nil && p.Attempt == 1:
		s.tries = 1
	case q == nil:
		c.say("I3 attempts", k, "%s is the first that came", c.name(p))
		s.tries = p.Attempt
	case p.Attempt == s.tries+1 && p.Attempt <= MaxAttempts && !q.OK() && q.Attempt == s.tries:
		beyond := p.At - q.Until - c.pause(q)
		c.v.Gaps[s.tries] = append(c.v.Gaps[s.tries], beyond)
		if beyond < 0 {
			c.say("I4 spacing", k, "%s came %v too early after %s failed at %v", c.name(p), -beyond, c.name(q), q.Until)
		}
		s.tries = p.Attempt
	case p.Attempt > s.tries || p.Attempt < 1:
		c.follows(s, p, q, k)
	default:
		c.repeat(s, p, k)
	}
}

// pause is what must lie between a failed attempt and the next.
func (c *checker) pause(q *Post) time.Duration {
	return max(c.l.Plan.Delays[min(q.Attempt, len(c.l.Plan.Delays))-1], q.RetryAfter)
}

// follows judges a higher number that does not follow a failure of the one
// before it. That can only be across a breach: the attempt before was made twice,
// and the failure that counts is the one that was committed.
func (c *checker) follows(s *story, p, q *Post, k pair) {
	failed := p.Attempt <= MaxAttempts && slices.ContainsFunc(s.posts, func(x *Post) bool {
		return x.Attempt == s.tries && x.Attempt == p.Attempt-1 && !x.OK() && p.At-x.Until >= c.pause(x)
	})
	if !failed || !s.excused {
		c.say("I3 attempts", k, "%s follows %s, status %d", c.name(p), c.name(q), q.Status)
	}
	s.tries = max(s.tries, p.Attempt)
}

// repeat explains why an attempt was made again, if a breach of the life that
// had made it does.
func (c *checker) repeat(s *story, p *Post, k pair) {
	var q *Post // the newest with this number
	for _, x := range s.posts {
		if x.Attempt == p.Attempt {
			q = x
		}
	}
	if q == nil {
		c.say("I3 attempts", k, "%s comes after attempt %d and was never made before", c.name(p), s.tries)
		return
	}
	for n, b := range c.breaches[q.Life] {
		if b.until < q.At || b.from > p.At || b.kind == Killed && q.Life == p.Life {
			continue
		}
		underWay := q.end() >= b.from
		if !underWay && q.end() < c.commits.before(c.l.Plan.Subs[q.Sub].Part, b.from) {
			continue
		}
		c.v.Repeats++
		s.excused = true
		c.used[breachID{q.Life, n}]++
		if underWay {
			c.v.UnderWay++
		} else {
			c.v.Uncommitted++
		}
		return
	}
	c.say("I5 duplicates", k, "%s repeats %s, answered %d at %v", c.name(p), c.name(q), q.Status, q.end())
}

// forgotten tells whether what came of a request may not be known any more at a
// moment: the life that had sent it was broken before that was committed.
func (c *checker) forgotten(q *Post, at time.Duration) bool {
	return slices.ContainsFunc(c.breaches[q.Life], func(b breach) bool {
		return b.until >= q.At && b.from <= at && q.end() >= c.commits.before(c.l.Plan.Subs[q.Sub].Part, b.from)
	})
}

// ends judges how each delivery of an acknowledged event ended.
func (c *checker) ends() {
	takers := map[string][]int{}
	for i, s := range c.l.Plan.Subs {
		takers[s.Type] = append(takers[s.Type], i)
	}
	for _, e := range c.l.Events {
		for _, sub := range takers[e.Type] {
			c.v.Pairs++
			c.end(pair{sub, e.Seq})
		}
	}
}

func (c *checker) end(k pair) {
	s, letters := c.stories[k], c.letters[k]
	if s == nil {
		s = &story{}
	}
	sub := c.l.Plan.Subs[k.sub]
	name := fmt.Sprintf("%s (%s) event %d", sub.ID, sub.Kind, k.seq)
	if s.success != nil {
		c.v.Succeeded++
	}
	switch {
	case len(letters) == 0:
		if s.success == nil && len(s.posts) == 0 && c.untaken(k) {
			c.v.Untaken++
			return
		}
		if s.success == nil {
			c.say("I1 loss", k, "%s: %d requests, no success, no dead letter", name, len(s.posts))
		}
		return
	case len(letters) > 1:
		c.say("I3 attempts", k, "%s has %d dead letters", name, len(letters))
	}
	c.v.Dead++
	d := letters[0]
	if d.Reason == "cancelled" && c.cancelled(s, d) {
		c.v.Cancelled++
	} else if d.Reason != "exhausted" || d.Attempts != MaxAttempts || s.tries != MaxAttempts || s.posts[0].ID != d.ID {
		c.say("I3 attempts", k, "%s is dead (%s, %d attempts, %s) after %d attempts", name, d.Reason, d.Attempts, d.ID, s.tries)
	}
	if s.success != nil {
		c.v.Both++
		if !s.excused && (d.Reason != "cancelled" || !c.forgotten(s.success, d.At)) {
			c.say("I3 attempts", k, "%s succeeded and is dead", name)
		}
	}
}

// bounds works out for each breach how many attempts it could excuse: those that
// were under way at it, or had ended after what was surely committed.
func (c *checker) bounds() {
	byLife := map[int][]*Post{}
	for _, p := range c.l.Posts {
		byLife[p.Life] = append(byLife[p.Life], p)
	}
	for life, list := range c.breaches {
		for n, b := range list {
			bound := Bound{Kind: b.kind, Life: life, At: b.from, Repeats: c.used[breachID{life, n}]}
			before := map[int32]time.Duration{}
			for _, p := range byLife[life] {
				part := c.l.Plan.Subs[p.Sub].Part
				if _, ok := before[part]; !ok {
					before[part] = c.commits.before(part, b.from)
				}
				if p.At <= b.until && p.end() >= before[part] {
					bound.Allowed++
				}
			}
			c.v.Breaches = append(c.v.Breaches, bound)
			if bound.Repeats > bound.Allowed {
				c.say("I5 duplicates", pair{}, "%s of life %d at %v: %d attempts made again, at most %d explained", b.kind, life, b.from, bound.Repeats, bound.Allowed)
			}
		}
	}
	slices.SortFunc(c.v.Breaches, func(a, b Bound) int { return cmp.Compare(a.At, b.At) })
}

// silence measures the longest time without a success.
func (c *checker) silence() {
	var last time.Duration
	for _, p := range c.l.Posts {
		if p.OK() {
			if last > 0 {
				c.v.LongestSilence = max(c.v.LongestSilence, p.At-last)
			}
			last = p.At
		}
	}
}
