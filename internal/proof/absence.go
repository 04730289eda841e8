package proof

import "time"

const (
	// hears is how long after a command a process may go on by what it knew
	// before: it reads what was written within 2 s.
	hears = 2 * time.Second
	// routes is how long after it was acknowledged an event may be routed of which
	// nobody has had a request: there may be no router for as long as sessions of
	// killed ones last, one after the other, and a backlog behind that.
	routes = 45 * time.Second
)

// present: nothing is sent to a subscription that has been deleted. A process
// that was frozen, or that lost its session, hears of it when it wakes.
func (c *checker) present(p *Post, k pair) {
	for _, a := range c.l.Absent {
		if a.Sub == p.Sub && p.At > a.Gone+hears && p.At < a.Back && c.broken(p.Life, a.From, p.At) < 0 {
			c.say("I10", k, "%s came though its subscription had been deleted at %v", c.name(p), a.Gone)
		}
	}
}

// untaken tells whether an event may have been routed while the subscription was
// deleted: at some time between its acknowledgement and the first request that
// anybody had of it, since an event is routed to all in one transaction.
func (c *checker) untaken(k pair) bool {
	at := c.l.Events[k.seq].At
	until, ok := c.firsts()[k.seq]
	if !ok {
		until = at + routes
	}
	for _, a := range c.l.Absent {
		if a.Sub == k.sub && until >= a.From && at <= a.To+hears {
			return true
		}
	}
	return false
}

// firsts gives when the first request of each event came.
func (c *checker) firsts() map[int]time.Duration {
	if c.seen == nil {
		c.seen = make(map[int]time.Duration, len(c.l.Events))
		for _, p := range c.l.Posts {
			if at, ok := c.seen[p.Seq]; !ok || p.At < at {
				c.seen[p.Seq] = p.At
			}
		}
	}
	return c.seen
}

// cancelled tells whether a dead letter is right to say that its delivery ended
// since its subscription was deleted: after the attempts that had been made.
func (c *checker) cancelled(s *story, d *Letter) bool {
	if len(s.posts) > 0 && s.posts[0].ID != d.ID || d.Attempts > s.tries {
		return false
	}
	for _, a := range c.l.Absent {
		if a.Sub == d.Sub && d.At >= a.From-2*time.Millisecond && d.At <= a.To+routes {
			return true
		}
	}
	return false
}
