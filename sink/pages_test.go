package sink

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// filled is a log of deliveries over 30 days; see testkit.Log.
func filled(t *testing.T, deliveries int) *Reader {
	t.Helper()
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	l := testkit.Log{URL: cfg.Addr, Database: cfg.Database, Deliveries: deliveries, Subscriptions: 40, Days: 30, Until: time.Now()}
	if err := l.Fill(t.Context(), func(int) {}); err != nil {
		t.Fatal(err)
	}
	return openReader(t, cfg)
}

// Whatever way a page is found by, it is what the plain question gives, which
// reads everything.
func TestEnginePagesAreThePlainAnswer(t *testing.T) {
	r := filled(t, 6000)
	r.openLook = 70 // so that it takes several
	now := time.Now()
	var tests []DeliveryQuery
	for _, state := range append([]DeliveryState{""}, DeliveryStates[:]...) {
		for _, since := range []time.Time{{}, now.Add(-9 * 24 * time.Hour)} {
			for _, about := range []DeliveryQuery{
				{},
				{Subscription: "sub-000007"},
				{Subscription: "sub-000001"},
				{Tenant: "tenant-3"},
				{Tenant: "rare"},
				{Tenant: "none"},
				{Until: now.Add(-8 * 24 * time.Hour)},
				{Tenant: "tenant-7", Until: now.Add(-5 * time.Hour)}, // fails always
				{Tenant: "tenant-7", Subscription: "sub-000007"},
			} {
				about.State, about.Since = state, since
				tests = append(tests, about)
			}
		}
	}
	for _, n := range []int{3, 4711} {
		tests = append(tests, DeliveryQuery{Delivery: testkit.FilledID("dlv", n)}, DeliveryQuery{Event: testkit.FilledID("evt", n/5)},
			DeliveryQuery{Correlation: testkit.FilledID("cor", n/20)}, DeliveryQuery{Correlation: testkit.FilledID("cor", n/20), State: DeliveryFailed})
	}
	found := 0
	for _, q := range tests {
		if q.Since.IsZero() && q.Subscription+q.Tenant == "" && (q.State == "" || q.State == DeliveryDelivered) {
			continue // all of it: as with a bound, and long
		}
		limits := []int{MaxDeliveries}
		if q.Tenant != "" && q.State != "" && q.State != DeliveryDelivered {
			limits = append(limits, 20) // pages that one question for the table fills, and those that it does not
		}
		want := plain(t, r, q)
		found += len(want)
		for _, q.Limit = range limits {
			if got := r.allPages(t, q); !slices.Equal(got, want) {
				t.Errorf("%+v: %d deliveries, want %d\ngot  %.200q\nwant %.200q", q, len(got), len(want), got, want)
			}
		}
	}
	if found < 5_000 {
		t.Errorf("%d deliveries in all: the log is too small to tell", found)
	}
}

// allPages gives the ids of all pages.
func (r *Reader) allPages(t *testing.T, q DeliveryQuery) []string {
	t.Helper()
	var ids []string
	for range 300 {
		page, err := r.Deliveries(t.Context(), q)
		if err != nil {
			t.Fatalf("%+v: %v", q, err)
		}
		for i := range page.Deliveries {
			ids = append(ids, page.Deliveries[i].DeliveryID)
		}
		if page.Next.IsZero() {
			return ids
		}
		if q.After, err = ParseDeliveryCursor(page.Next.String()); err != nil {
			t.Fatal(err)
		}
	}
	t.Fatalf("%+v: the pages have no end", q)
	return nil
}

// plain asks without a projection, a bound or a step.
func plain(t *testing.T, r *Reader, q DeliveryQuery) []string {
	t.Helper()
	where := []string{"attempt_id IN (SELECT argMax(attempt_id, (started_at, round, attempt, attempt_id)) FROM attempts GROUP BY subscription_id, delivery_id)"}
	for column, value := range map[string]string{
		"subscription_id": q.Subscription, "tenant": q.Tenant, "event_id": q.Event, "correlation_id": q.Correlation, "delivery_id": q.Delivery,
	} {
		if value != "" {
			where = append(where, column+" = "+quoted(value))
		}
	}
	if q.State != "" {
		condition, err := q.State.condition()
		if err != nil {
			t.Fatal(err)
		}
		where = append(where, condition)
	}
	for op, at := range map[string]time.Time{">=": q.Since, "<": q.Until} {
		if !at.IsZero() {
			where = append(where, fmt.Sprintf("started_at %s fromUnixTimestamp64Micro(toInt64(%d), 'UTC')", op, at.UnixMicro()))
		}
	}
	text := ask(t, r, "SELECT delivery_id FROM attempts WHERE "+strings.Join(where, " AND ")+
		" ORDER BY started_at DESC, attempt_id DESC SETTINGS optimize_use_projections = 0")
	return strings.Fields(text)
}

// A page reads a small part of the log, however large that is.
func TestEnginePagesReadLittle(t *testing.T) {
	const deliveries = 250_000
	r := filled(t, deliveries)
	now := time.Now()
	for _, tt := range []struct {
		q    DeliveryQuery
		most int
	}{
		{DeliveryQuery{}, 140_000},
		{DeliveryQuery{Since: now.Add(-24 * time.Hour)}, 60_000},
		{DeliveryQuery{State: DeliveryFailed}, 140_000},
		{DeliveryQuery{State: DeliveryRetrying, Since: now.Add(-24 * time.Hour)}, 150_000},
		{DeliveryQuery{State: DeliveryRetrying}, 650_000},
		{DeliveryQuery{Tenant: "tenant-20", State: DeliveryFailed}, 600_000},
		{DeliveryQuery{Tenant: "tenant-20", State: DeliveryRetrying}, 400_000},
		{DeliveryQuery{Subscription: "sub-000000"}, 80_000},
		{DeliveryQuery{Delivery: testkit.FilledID("dlv", deliveries/2)}, 150_000},
		{DeliveryQuery{Event: testkit.FilledID("evt", deliveries/20)}, 200_000},
	} {
		tt.q.Limit = 50
		before := rowsRead(t, r)
		page, err := r.Deliveries(t.Context(), tt.q)
		if err != nil {
			t.Fatal(err)
		}
		n := rowsRead(t, r) - before
		t.Logf("%+v: %d deliveries, %d rows read", tt.q, len(page.Deliveries), n)
		if n > tt.most || n == 0 {
			t.Errorf("%+v: %d rows read, want at most %d", tt.q, n, tt.most)
		}
	}
}

func rowsRead(t *testing.T, r *Reader) int {
	t.Helper()
	n, err := strconv.Atoi(ask(t, r, "SELECT sum(value) FROM system.events WHERE event = 'SelectedRows'"))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
