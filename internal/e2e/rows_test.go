package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// rowsLimit is how long rows may take to arrive after the last request.
const rowsLimit = 90 * time.Second

// sql asks the engine by plain HTTP, as curl would, and returns tab-separated
// lines.
func (s *stage) sql(query string) string {
	s.t.Helper()
	out, err := s.ask(s.ctx, query)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

func (s *stage) ask(ctx context.Context, query string) (string, error) {
	code, body, err := get(ctx, s.engine.URL()+"/?query="+url.QueryEscape(query))
	if err != nil {
		return "", fmt.Errorf("asking ClickHouse: %w", err)
	}
	if code != http.StatusOK {
		return "", fmt.Errorf("asking ClickHouse %q: status %d: %s", query, code, body)
	}
	return strings.TrimSpace(body), nil
}

// rowsFor waits until ClickHouse accounts for so many requests.
func (s *stage) rowsFor(posts int) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, rowsLimit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	began, last := time.Now(), ""
	for {
		var err error
		last, err = s.ask(ctx, "SELECT countIf(request_written) + sum(resends) FROM hookline.attempts")
		if n, bad := strconv.Atoi(last); err == nil && bad == nil && n >= posts {
			s.t.Logf("rows for %d of %d requests are in ClickHouse %v later", n, posts, time.Since(began).Round(10*time.Millisecond))
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("waiting for rows of %d requests: %s (%v)", posts, last, err)
		}
	}
}

// try is one attempt of one delivery.
type try struct {
	id      string
	attempt int
}

// compareRows: there is one row for each request, no row twice, none without a
// request but those that say so. A killed process may leave out the rows of what
// was under way.
func (s *stage) compareRows() {
	s.t.Helper()
	s.t.Logf("attempts, distinct attempt_id, resends, without a request: %s",
		s.sql("SELECT count(), uniqExact(attempt_id), sum(resends), countIf(NOT request_written) FROM hookline.attempts"))
	if twice := s.sql("SELECT count() - uniqExact(attempt_id) FROM hookline.attempts"); twice != "0" {
		s.t.Errorf("%s rows of attempts are there twice", twice)
	}
	if outcomes := s.sql("SELECT outcome, count() FROM hookline.attempts GROUP BY outcome ORDER BY 1"); outcomes != "" {
		s.t.Logf("rows by outcome: %s", strings.ReplaceAll(outcomes, "\n", ", "))
	}
	rows := map[try]int{}
	lines := bufio.NewScanner(strings.NewReader(s.sql(
		"SELECT delivery_id, attempt, count() + sum(resends), any(subscription_id), any(status_code) FROM hookline.attempts WHERE request_written GROUP BY delivery_id, attempt")))
	for lines.Scan() {
		f := strings.Split(lines.Text(), "\t")
		attempt, _ := strconv.Atoi(f[1])
		n, err := strconv.Atoi(f[2])
		if err != nil {
			s.t.Fatalf("reading rows: %q", lines.Text())
		}
		rows[try{f[0], attempt}] = n
	}
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	without := 0
	for i := range s.ledger.posts {
		p := &s.ledger.posts[i]
		k := try{p.id, p.attempt}
		if rows[k]--; rows[k] < 0 {
			if without++; without <= 5 && len(s.ledger.kills) == 0 {
				s.t.Errorf("%s event %d attempt %d was requested and has no row", s.plan.subs[p.sub].id, p.seq, p.attempt)
			}
			delete(rows, k)
		}
	}
	over := 0
	for k, n := range rows {
		if n > 0 {
			if over++; over <= 5 {
				s.t.Errorf("delivery %s attempt %d has %d rows more than requests", k.id, k.attempt, n)
			}
		}
	}
	s.t.Logf("%d requests, %d without a row, %d rows without a request", len(s.ledger.posts), without, over)
	if without > 0 && len(s.ledger.kills) == 0 {
		s.t.Errorf("%d of %d requests have no row", without, len(s.ledger.posts))
	}
}
