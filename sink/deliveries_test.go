package sink

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// pageLog is a log with deliveries in every state, and what became of each.
type pageLog struct {
	r    *Reader
	list []pipeline.Attempt
	want map[string]DeliveryState // by delivery id
	last map[string]time.Time     // of its last attempt
}

const pageDeliveries = 45

// apart is how long after each other the deliveries of a page log began.
const apart = 40 * time.Second

// newPageLog stores deliveries to three subscriptions that began since base, step
// after each other; those that failed were tried up to four times.
func newPageLog(t *testing.T, base time.Time, step time.Duration) *pageLog {
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	s, err := openServer(&cfg, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	l := &pageLog{r: openReader(t, cfg), want: map[string]DeliveryState{}, last: map[string]time.Time{}}
	for i := range pageDeliveries {
		l.deliver(i, base.Add(time.Duration(i)*step))
	}
	rec := &kgo.Record{Topic: attemptsTopic, Value: attemptlog.AppendBatch(nil, l.list, attemptlog.Options{})}
	b := newBlock(tableAttempts, newAttemptRows())
	b.build([]*kgo.Record{rec}, origin{storedAt: time.Now()}, 1<<30)
	if err := b.encode(); err != nil {
		t.Fatal(err)
	}
	if err := s.insert(t.Context(), b, "pages"); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *pageLog) deliver(i int, at time.Time) {
	id := fmt.Sprintf("dlv_%03d", i)
	state := DeliveryStates[i%len(DeliveryStates)]
	tries := 1 + i/len(DeliveryStates)%4
	if state == DeliveryCancelled {
		tries = 1
	}
	for n := range tries {
		a := pipeline.Attempt{
			AttemptID: fmt.Sprintf("%s.%d", id, n), DeliveryID: id, SubscriptionID: fmt.Sprint("sub-", i%3), URL: "https://x.example/",
			Attempt: n + 1, Outcome: pipeline.OutcomeResponseError, StatusCode: 503, StartedAt: at.Add(time.Duration(n) * 30 * time.Second),
			Elapsed: 100 * time.Millisecond, NextAttemptAt: at.Add(time.Duration(n+1) * 30 * time.Second),
			Envelope: &pipeline.Envelope{
				EventID: fmt.Sprint("e", i/2), Format: pipeline.FormatJSON, Tenant: fmt.Sprint("t", i%2), ProducedAt: at.Add(-250 * time.Millisecond),
				Source: pipeline.Position{Topic: eventsTopic, Offset: int64(i / 2)},
			},
		}
		if n == tries-1 {
			end(&a, state)
			l.last[id] = a.StartedAt
		}
		l.list = append(l.list, a)
	}
	l.want[id] = state
}

// end makes a the last attempt of a delivery in that state.
func end(a *pipeline.Attempt, state DeliveryState) {
	switch state {
	case DeliveryDelivered:
		a.Outcome, a.StatusCode, a.Final, a.NextAttemptAt = pipeline.OutcomeSuccess, 200, true, time.Time{}
	case DeliveryRetrying:
	case DeliveryWaiting:
		a.NextAttemptAt = time.Time{}
	case DeliveryFailed:
		a.Final, a.NextAttemptAt = true, time.Time{}
	case DeliveryCancelled:
		a.Attempt, a.Outcome, a.StatusCode, a.Final, a.NextAttemptAt = 0, pipeline.OutcomeCancelled, 0, true, time.Time{}
	}
}

// expected are the ids that a query gives, in order.
func (l *pageLog) expected(keep func(id string, i int) bool) []string {
	var ids []string
	for i := range pageDeliveries {
		if id := fmt.Sprintf("dlv_%03d", i); keep(id, i) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		if c := l.last[b].Compare(l.last[a]); c != 0 {
			return c
		}
		return compareStrings(b, a)
	})
	return ids
}

func compareStrings(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func TestEngineDeliveryPages(t *testing.T) {
	base := time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	l := newPageLog(t, base, apart)
	type asked struct {
		name string
		q    DeliveryQuery
		keep func(id string, i int) bool
	}
	tests := []asked{
		{"all", DeliveryQuery{}, func(string, int) bool { return true }},
		{"subscription", DeliveryQuery{Subscription: "sub-1"}, func(_ string, i int) bool { return i%3 == 1 }},
		{"tenant", DeliveryQuery{Tenant: "t1"}, func(_ string, i int) bool { return i%2 == 1 }},
		{"event", DeliveryQuery{Event: "e7"}, func(_ string, i int) bool { return i/2 == 7 }},
		{"delivery", DeliveryQuery{Delivery: "dlv_033"}, func(_ string, i int) bool { return i == 33 }},
		{"since", DeliveryQuery{Since: base.Add(20 * time.Minute)}, func(id string, _ int) bool { return !l.last[id].Before(base.Add(20 * time.Minute)) }},
		{"nothing", DeliveryQuery{Subscription: "none"}, func(string, int) bool { return false }},
		{"injection", DeliveryQuery{Subscription: `' OR 1 --`, Event: `\'`}, func(string, int) bool { return false }},
	}
	for _, s := range DeliveryStates {
		tests = append(tests,
			asked{string(s), DeliveryQuery{State: s}, func(id string, _ int) bool { return l.want[id] == s }},
			asked{string(s) + " of one", DeliveryQuery{State: s, Subscription: "sub-0"}, func(id string, i int) bool { return l.want[id] == s && i%3 == 0 }})
	}
	for _, tt := range tests {
		for _, limit := range []int{4, MaxDeliveries} {
			tt.q.Limit = limit
			if got, want := l.read(t, tt.q), l.expected(tt.keep); !slices.Equal(got, want) {
				t.Errorf("%s in pages of %d:\ngot  %v\nwant %v", tt.name, limit, got, want)
			}
		}
	}
	for _, bad := range []DeliveryQuery{{}, {Limit: -1}, {Limit: MaxDeliveries + 1}, {Limit: 1, State: "lost"}} {
		if _, err := l.r.Deliveries(t.Context(), bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

// A tenant's pages that are found by the time of their attempts lack none of those
// that began at the same time.
func TestEngineDeliveryPagesOfOneTime(t *testing.T) {
	l := newPageLog(t, time.Now().Add(-5*24*time.Hour).Truncate(time.Microsecond), 0)
	for i, tenant := range []string{"t0", "t1"} {
		for _, state := range append([]DeliveryState{""}, DeliveryStates[:]...) {
			want := l.expected(func(id string, n int) bool { return n%2 == i && (state == "" || l.want[id] == state) })
			for _, limit := range []int{3, MaxDeliveries} {
				if got := l.read(t, DeliveryQuery{Tenant: tenant, State: state, Limit: limit}); !slices.Equal(got, want) {
					t.Errorf("%s %s in pages of %d:\ngot  %v\nwant %v", tenant, state, limit, got, want)
				}
			}
		}
	}
}

// read turns page after page and gives the ids.
func (l *pageLog) read(t *testing.T, q DeliveryQuery) []string {
	t.Helper()
	var ids []string
	for range 2 * pageDeliveries {
		page, err := l.r.Deliveries(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		for i := range page.Deliveries {
			d := &page.Deliveries[i]
			if d.State != l.want[d.DeliveryID] || !d.StartedAt.Equal(l.last[d.DeliveryID]) {
				t.Errorf("%s: %s at %s", d.DeliveryID, d.State, d.StartedAt)
			}
			ids = append(ids, d.DeliveryID)
		}
		if page.Next.IsZero() {
			return ids
		}
		if q.After, err = ParseDeliveryCursor(page.Next.String()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatal("the pages have no end")
	return nil
}

func TestEngineSeries(t *testing.T) {
	base := time.Now().Add(-time.Hour).Truncate(time.Minute)
	l := newPageLog(t, base, apart)
	for _, sub := range []string{"", "sub-2"} {
		for _, step := range []time.Duration{time.Minute, 7 * time.Minute, time.Hour} {
			q := SeriesQuery{Subscription: sub, Since: base.Truncate(step), Until: base.Add(2 * time.Hour).Truncate(step), Step: step}
			points, err := l.r.Series(t.Context(), q)
			if err != nil {
				t.Fatal(err)
			}
			l.checkSeries(t, q, points)
		}
	}
	now := time.Now()
	for _, bad := range []SeriesQuery{
		{Since: now.Add(-time.Hour), Until: now},
		{Since: now.Add(-time.Hour), Until: now, Step: time.Second},
		{Since: now, Until: now.Add(-time.Hour), Step: time.Minute},
		{Since: now.AddDate(-1, 0, 0), Until: now, Step: time.Minute},
		{Until: now, Step: time.Minute},
	} {
		if _, err := l.r.Series(t.Context(), bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
}

func (l *pageLog) checkSeries(t *testing.T, q SeriesQuery, points []Point) {
	t.Helper()
	if len(points) != int(q.Until.Sub(q.Since)/q.Step) || !points[0].At.Equal(q.Since) {
		t.Fatalf("%+v: %d points from %s", q, len(points), points[0].At)
	}
	want := make([]Point, len(points))
	for i := range l.list {
		a := &l.list[i]
		if q.Subscription != "" && a.SubscriptionID != q.Subscription {
			continue
		}
		p := &want[int(a.StartedAt.Sub(q.Since)/q.Step)]
		p.Outcomes[a.Outcome]++
		if a.Attempt > 1 {
			p.Retries++
		}
		if a.Attempt == 1 {
			p.Lag = 250 * time.Millisecond
		}
		if a.Attempt > 0 {
			p.P50 = 100 * time.Millisecond
		}
	}
	near := func(a, b time.Duration) bool { return (a - b).Abs() < 2*time.Millisecond }
	for i := range points {
		p, w := &points[i], &want[i]
		if p.Outcomes != w.Outcomes || p.Retries != w.Retries || !near(p.Lag, w.Lag) || !near(p.P50, w.P50) || !near(p.P99, w.P50) {
			t.Errorf("%q, step %v, point %d: %+v\nwant %+v", q.Subscription, q.Step, i, *p, *w)
		}
	}
}

func TestEngineSubscriptionStats(t *testing.T) {
	base := time.Now().UTC().Add(-30 * time.Minute).Truncate(time.Millisecond)
	l := newPageLog(t, base, apart)
	want := map[string]SubscriptionStats{}
	for i := range l.list {
		a := &l.list[i]
		s := want[a.SubscriptionID]
		s.ID = a.SubscriptionID
		if a.Attempt > 0 {
			s.Attempts++
			if a.StartedAt.After(s.LastAt) {
				s.LastAt = a.StartedAt
			}
		}
		if a.Outcome == pipeline.OutcomeSuccess {
			s.Successes++
			if a.StartedAt.After(s.LastSuccess) {
				s.LastSuccess = a.StartedAt
			}
		}
		s.LagMax = 250 * time.Millisecond
		want[a.SubscriptionID] = s
	}
	for _, ids := range [][]string{nil, {"sub-0", "sub-2", "none"}, {}} {
		got, err := l.r.SubscriptionStats(t.Context(), ids, base.Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		for id, w := range want {
			g, there := got[id]
			if asked := ids == nil || slices.Contains(ids, id); there != asked {
				t.Errorf("%v: %s is there: %v", ids, id, there)
				continue
			} else if !asked {
				continue
			}
			// What waits for a retry depends on the clock.
			if g.Retrying > 0 != !g.NextAttempt.IsZero() || g.Retrying > 0 && g.NextAttempt.Before(base) {
				t.Errorf("%s: %d wait, the next at %s", id, g.Retrying, g.NextAttempt)
			}
			g.Retrying, g.NextAttempt = 0, time.Time{}
			g.LagMax = g.LagMax.Round(time.Millisecond)
			if g != w {
				t.Errorf("%s:\ngot  %+v\nwant %+v", id, g, w)
			}
		}
	}
}

// A delivery that waits for a retry is counted until that is due.
func TestEngineRetrying(t *testing.T) {
	l := newPageLog(t, time.Now().Add(-15*time.Minute).Truncate(time.Microsecond), apart)
	got, err := l.r.SubscriptionStats(t.Context(), nil, time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	waiting := map[string]bool{}
	for i := range l.list {
		if a := &l.list[i]; a.NextAttemptAt.After(now.Add(5 * time.Second)) {
			waiting[a.DeliveryID] = true
		}
	}
	var n uint64
	for _, s := range got {
		n += s.Retrying
	}
	if len(waiting) == 0 || n < uint64(len(waiting)) || n > uint64(len(waiting))+2 {
		t.Errorf("%d wait, want %d", n, len(waiting))
	}
}

func FuzzDeliveryCursor(f *testing.F) {
	f.Add(DeliveryCursor{time.UnixMicro(1), "a.1"}.String())
	f.Add("")
	f.Add("MSA")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseDeliveryCursor(s)
		if err != nil || c.IsZero() {
			return
		}
		again, err := ParseDeliveryCursor(c.String())
		if err != nil || !again.StartedAt.Equal(c.StartedAt) || again.AttemptID != c.AttemptID {
			t.Errorf("%q: %+v, then %+v, %v", s, c, again, err)
		}
	})
}
