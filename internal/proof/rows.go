package proof

import "time"

// RowFigures tells how ClickHouse's rows compare with the requests.
type RowFigures struct {
	Rows      int
	Twice     int            // rows whose attempt_id another row has
	Without   int            // requests without a row, each explained by a kill
	Resends   int            // requests that a row says were sent once more
	Unwritten int            // rows of tries that sent nothing
	Outcomes  map[string]int // rows by outcome
}

// try is one attempt of one delivery.
type try struct {
	id      string
	attempt int
}

// rows: there is one row for each request, no row twice, none without a request
// but those that say so. A killed process may leave out the rows of what was
// under way or not committed.
func (c *checker) rows() {
	f := &c.v.Rows
	f.Rows, f.Outcomes = len(c.l.Rows), map[string]int{}
	have, ids := map[try]int{}, map[string]bool{}
	for i := range c.l.Rows {
		r := &c.l.Rows[i]
		f.Outcomes[r.Outcome]++
		if ids[r.AttemptID] {
			f.Twice++
			c.say("I6 log", c.ids[r.DeliveryID], "row %s is there twice", r.AttemptID)
		}
		ids[r.AttemptID] = true
		if !r.Written {
			f.Unwritten++
			continue
		}
		f.Resends += r.Resends
		have[try{r.DeliveryID, r.Attempt}] += 1 + r.Resends
	}
	posts := map[try][]*Post{}
	for _, p := range c.l.Posts {
		k := try{p.ID, p.Attempt}
		posts[k] = append(posts[k], p)
	}
	for k, list := range posts {
		missing := len(list) - have[k]
		delete(have, k)
		if missing < 0 {
			c.say("I6 log", c.ids[k.id], "%d rows of %s attempt %d, but %d requests", len(list)-missing, k.id, k.attempt, len(list))
		}
		for _, p := range list {
			if missing > 0 && c.unlogged(p) {
				missing--
				f.Without++
			}
		}
		if missing > 0 {
			c.say("I6 log", c.ids[k.id], "%s: %d of %d requests have no row", c.name(list[0]), missing, len(list))
		}
	}
	for k, n := range have {
		if n > 0 {
			c.say("I6 log", c.ids[k.id], "delivery %s attempt %d has %d rows and no request", k.id, k.attempt, n)
		}
	}
}

// logPatience is how long a process may need to write down what it did before its
// session ended: its tasks are taken from it first.
const logPatience = 10 * time.Second

// unlogged tells whether a request may have no row: its process was killed before
// it had written that down. It may have lost its session before.
func (c *checker) unlogged(p *Post) bool {
	for _, killed := range c.breaches[p.Life] {
		if killed.kind != Killed && killed.kind != Told {
			continue
		}
		for _, b := range c.breaches[p.Life] {
			soon := killed.from <= b.until+logPatience || c.l.brokerAway(b.until, killed.from)
			if soon && p.At <= b.until && p.end() >= c.commits.before(c.l.Plan.Subs[p.Sub].Part, b.from) {
				return true
			}
		}
	}
	return false
}
