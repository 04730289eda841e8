package proof

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"time"
)

// isolationBound is how long a healthy subscription for which work waits may get
// no request while others' endpoints fail or hang and nothing else is wrong. A
// request without an answer leaves its slot after half a second.
const isolationBound = 2 * time.Second

// Isolation is how healthy subscriptions went on beside broken ones, in the calm:
// the times in which no process, broker, ClickHouse or subscription was touched.
type Isolation struct {
	Calm    time.Duration
	Broken  time.Duration // of it: some endpoint was
	Subs    int           // healthy subscriptions that were judged, a calm each
	Longest time.Duration // without a request, while work waited
}

// span is a part of the run.
type span struct{ from, to time.Duration }

// settling is how long after the last fault everything is as it was: an ended
// session is noticed, and its partitions are taken over and worked off.
func (p *Plan) settling() time.Duration { return 2*p.Session + p.Timeout }

// calms are the times of the run in which nothing but endpoints was broken.
func (l *Ledger) calms() []span {
	var rough []span
	paused := map[int]time.Duration{}
	for _, f := range l.Faults {
		from := f.From
		switch f.Kind {
		case Endpoint:
			continue
		case Paused:
			paused[f.Life] = f.From
		case Resumed, Killed:
			if p, ok := paused[f.Life]; ok {
				from = min(from, p)
			}
			delete(paused, f.Life)
		}
		rough = append(rough, span{from, f.To + l.Plan.settling()})
	}
	slices.SortFunc(rough, func(a, b span) int { return cmp.Compare(a.from, b.from) })
	var out []span
	var clear time.Duration
	for _, s := range rough {
		if s.from > clear {
			out = append(out, span{clear, s.from})
		}
		clear = max(clear, s.to)
	}
	end := time.Duration(0)
	for _, p := range l.Posts {
		end = max(end, p.At)
	}
	if end > clear {
		out = append(out, span{clear, end})
	}
	return out
}

// isolation: a healthy subscription goes on while others are broken. One that was
// broken itself in a calm is not judged from then on: it has a backlog of its own.
func (c *checker) isolation() {
	byType := map[string][]*Event{}
	for _, e := range c.l.Events {
		byType[e.Type] = append(byType[e.Type], e)
	}
	for _, calm := range c.l.calms() {
		broken, since := c.broke(calm)
		if broken == 0 {
			continue // nothing to be isolated from
		}
		c.v.Isolation.Calm += calm.to - calm.from
		c.v.Isolation.Broken += broken
		for i := range c.l.Plan.Subs {
			to, ever := since[i]
			if !ever {
				to = calm.to
			}
			if sub := c.l.Plan.Subs[i]; sub.Kind == "good" && to > calm.from {
				c.goesOn(i, byType[sub.Type], span{calm.from, to})
			}
		}
	}
}

// broke tells for how long endpoints were broken in a calm, and since when each was.
func (c *checker) broke(calm span) (total time.Duration, since map[int]time.Duration) {
	since = map[int]time.Duration{}
	var until time.Duration
	for _, f := range c.l.Faults { // in the order of their beginnings
		// What was broken before the calm may not be worked off yet.
		if f.Kind != Endpoint || f.To+c.l.Plan.settling() <= calm.from || f.From >= calm.to {
			continue
		}
		from, to := max(f.From, calm.from, until), min(f.To, calm.to)
		total += max(0, to-from)
		until = max(until, to)
		for _, i := range f.Subs {
			if _, ok := since[i]; !ok {
				since[i] = f.From
			}
		}
	}
	return total, since
}

// goesOn looks for a time in which work waited for a subscription, and it got none.
func (c *checker) goesOn(sub int, events []*Event, s span) {
	c.v.Isolation.Subs++
	var waits []span // of each event, from its acknowledgement to its first request
	for _, e := range events {
		w := span{e.At, s.to}
		if x := c.stories[pair{sub, e.Seq}]; x != nil {
			w.to = x.posts[0].At
		}
		if w.to > s.from && w.from < s.to && w.to > w.from {
			waits = append(waits, w)
		}
	}
	// Between two first requests work waited from when the first event of those not
	// yet requested was there.
	slices.SortFunc(waits, func(a, b span) int { return cmp.Compare(a.to, b.to) })
	earliest := make([]time.Duration, len(waits)) // of this and all that are requested later
	for i := len(waits) - 1; i >= 0; i-- {
		earliest[i] = waits[i].from
		if i+1 < len(waits) {
			earliest[i] = min(earliest[i], earliest[i+1])
		}
	}
	last := s.from
	for i, w := range waits {
		from, to := max(last, earliest[i]), min(w.to, s.to)
		c.v.Isolation.Longest = max(c.v.Isolation.Longest, to-from)
		if late := c.commits.late(from, to); to-from > isolationBound+late {
			c.say("I7 isolation", pair{}, "%s, whose endpoint is well, got no request from %v to %v although work waited, while others were broken and nothing else was",
				c.l.Plan.Subs[sub].ID, from, to)
		}
		last = to
	}
}

func (i *Isolation) report(w io.Writer) {
	if i.Subs == 0 {
		return
	}
	fmt.Fprintf(w, "isolation: with endpoints broken for %v of %v in which nothing else was, %d healthy subscriptions; the longest time without a request while work waited: %v\n",
		i.Broken.Round(time.Second), i.Calm.Round(time.Second), i.Subs, i.Longest.Round(time.Millisecond))
}
