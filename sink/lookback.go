package sink

import (
	"context"
	"strconv"
	"strings"
	"time"
)

// The table attempts is ordered by subscription, its projection by_time by time.
// A list over many subscriptions that is not bounded in time would read all of
// one of them. So it looks back step by step, or as far as sums by minute tell.

// bound is a part of the time that a list looks at, the newest first.
type bound struct {
	since, before time.Time // zero: without end
}

func (b bound) and(where []string) []string {
	out := where[:len(where):len(where)]
	if !b.since.IsZero() {
		out = append(out, "started_at >= "+microParam)
	}
	if !b.before.IsZero() {
		out = append(out, "started_at < "+microParam)
	}
	return out
}

func (b bound) args(args []any) []any {
	out := args[:len(args):len(args)]
	for _, t := range []time.Time{b.since, b.before} {
		if !t.IsZero() {
			out = append(out, clampTime(t).UnixMicro())
		}
	}
	return out
}

// recently is as far as a tenant's list looks back by time. Behind it the table
// itself is the better way: a tenant's rows lie together in it, by subscription.
var recently = [...]time.Duration{time.Hour, 24 * time.Hour}

// byID tells of a list that the table's filters by id lead to, which the
// projection lacks.
func (q *DeliveryQuery) byID() bool { return q.Event != "" || q.Delivery != "" || q.Correlation != "" }

// byTable are the settings of a question that the table itself is the way for;
// ClickHouse would judge by the time alone.
const byTable = " SETTINGS optimize_use_projections = 0"

// settings of the query for a part of the time.
func (q *DeliveryQuery) settings(b bound) string {
	if q.Subscription != "" || q.byID() || q.wide(b) {
		return byTable
	}
	return ""
}

// wide tells of a part of the time for which a tenant's list is the table's.
func (q *DeliveryQuery) wide(b bound) bool {
	return q.Tenant != "" && q.Subscription == "" && !q.byID() && b.since.Before(q.newestEnd().Add(-recently[len(recently)-1]))
}

// narrowed are the conditions with what the table's key can use.
func (q *DeliveryQuery) narrowed(b bound, where []string, args []any) ([]string, []any) {
	where, args = b.and(where), b.args(args)
	if q.wide(b) && q.of != nil {
		where = append(where, "subscription_id IN ("+strings.Repeat("?, ", len(q.of)-1)+"?)")
		for _, id := range q.of {
			args = append(args, id)
		}
	}
	return where, args
}

// wideRows bounds what one question takes of the table for a tenant's list in one
// state: nearly every row is in another granule, of which all columns are read. A
// page that needs more is short.
const wideRows = 100

// most is how many of n attempts a question for a part of the time asks for.
func (q *DeliveryQuery) most(b bound, n int) int {
	if q.State != "" && q.wide(b) {
		return min(n, wideRows)
	}
	return n
}

// tenantSubscriptions is how many subscriptions of a tenant a question names.
const tenantSubscriptions = 1000

// subscriptionsOf gives the subscriptions that the query's tenant has attempts of:
// to find them takes a look at two columns, and keeps all others small. A tenant
// that has none gets one without a name.
func (r *Reader) subscriptionsOf(ctx context.Context, q *DeliveryQuery) ([]string, error) {
	if q.Tenant == "" || q.Subscription != "" || q.byID() {
		return nil, nil
	}
	rows, err := r.server.conn.Query(ctx, "SELECT DISTINCT subscription_id FROM "+r.cfg.Database+".attempts WHERE tenant = ? LIMIT "+
		strconv.Itoa(tenantSubscriptions)+byTable, q.Tenant)
	if err != nil {
		return nil, briefly(err)
	}
	defer rows.Close()
	ids := []string{""}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, briefly(err)
		}
		ids = append(ids, id)
	}
	if len(ids) > tenantSubscriptions {
		ids = nil
	}
	return ids, briefly(rows.Err())
}

// newestEnd is a time before which everything is that the query can give.
func (q *DeliveryQuery) newestEnd() time.Time {
	end := time.Now().Add(time.Hour) // clocks differ
	if !q.Until.IsZero() && q.Until.Before(end) {
		end = q.Until
	}
	if !q.After.IsZero() && q.After.StartedAt.Before(end) {
		end = q.After.StartedAt
	}
	return end
}

// bounds are the steps by which n attempts are looked for.
func (r *Reader) bounds(ctx context.Context, q *DeliveryQuery, n int) ([]bound, error) {
	if q.Subscription != "" || q.byID() {
		return []bound{{}}, nil
	}
	if q.Tenant == "" {
		since, err := r.enoughSince(ctx, q, n)
		return []bound{{since: since}}, err
	}
	return q.steps(), nil
}

// steps look back from the newest end.
func (q *DeliveryQuery) steps() []bound {
	end := q.newestEnd()
	var out []bound
	b := bound{}
	for _, long := range recently {
		b.since = end.Add(-long)
		out = append(out, b)
		if b.since.Before(q.Since) {
			return out
		}
		b = bound{before: b.since}
	}
	return append(out, b)
}

// enoughSince is a time since which there are at least n attempts that a list
// over all subscriptions is made of, from the sums by minute; zero: there are
// fewer. An attempt that is in the table and not yet in the sums only makes the
// time earlier.
func (r *Reader) enoughSince(ctx context.Context, q *DeliveryQuery, n int) (time.Time, error) {
	counted := "attempts"
	switch q.State {
	case DeliveryDelivered:
		counted = "if(outcome = 'success', attempts, 0)"
	case DeliveryFailed:
		counted = "if(outcome NOT IN ('success', 'cancelled'), ended, 0)"
	case DeliveryCancelled:
		counted = "if(outcome = 'cancelled', ended, 0)"
	case DeliveryRetrying, DeliveryWaiting: // together the ones that are not ended
		counted = "attempts - ended"
	}
	// Minutes before that of the end lie wholly before it.
	where, args := []string{"minute < toStartOfMinute(" + microParam + ")"}, []any{clampTime(q.newestEnd()).UnixMicro()}
	if !q.Since.IsZero() {
		where, args = append(where, "minute >= toStartOfMinute("+microParam+")"), append(args, clampTime(q.Since).UnixMicro())
	}
	var minute time.Time
	var counts uint64
	row := r.server.conn.QueryRow(ctx, "SELECT min(minute), toUInt64(max(so_far)) FROM (SELECT minute, n, sum(n) OVER (ORDER BY minute DESC) AS so_far FROM"+
		" (SELECT minute, sum("+counted+") AS n FROM "+r.cfg.Database+".outcome_stats_1m_data WHERE "+strings.Join(where, " AND ")+" GROUP BY minute HAVING n > 0))"+
		" WHERE so_far - n < "+strconv.Itoa(n), args...)
	if err := row.Scan(&minute, &counts); err != nil {
		return time.Time{}, briefly(err)
	}
	if counts < uint64(n) {
		return time.Time{}, nil // what is older than the sums counts as well
	}
	return minute, nil
}

// openAttempts is lastAttempts for deliveries that are not ended. Attempts that
// another one has followed within longestWait are left out by ClickHouse.
func (r *Reader) openAttempts(ctx context.Context, q *DeliveryQuery, n int) (found []DeliveryRow, next DeliveryCursor, err error) {
	where, args, err := q.conditions()
	if err != nil {
		return nil, next, err
	}
	oldest, more, err := r.openSince(ctx, q, where, args)
	if err != nil || oldest.IsZero() {
		return nil, next, err
	}
	b := bound{since: oldest}
	near := bound{since: oldest, before: q.newestEnd().Add(longestWait)}
	about, aboutArgs := q.about()
	// Of the attempts that end their delivery, those that were the first and only
	// one follow none; nearly all are.
	follow, followArgs := q.narrowed(near, append(about, "(NOT final OR attempt != 1 OR round != 0 OR replay != '')"), aboutArgs)
	// The whole key, so that of all columns only the places of what was found are read.
	condition := "(subscription_id, started_at, attempt_id) IN (SELECT subscription_id, tupleElement(last, 1), tupleElement(last, 2) FROM (SELECT subscription_id," +
		" argMax((started_at, attempt_id, NOT final AND next_attempt_at IS " + nullness(q.State) + "), (started_at, round, attempt, attempt_id)) AS last FROM " +
		r.cfg.Database + ".attempts WHERE " + strings.Join(follow, " AND ") + " GROUP BY subscription_id, delivery_id) WHERE tupleElement(last, 3))"
	found, err = r.newest(ctx, q, b, append(where, condition), append(args[:len(args):len(args)], followArgs...), n)
	if err != nil {
		return nil, next, err
	}
	if len(found) == n {
		return found, DeliveryCursor{found[n-1].StartedAt, found[n-1].AttemptID}, nil
	}
	if more {
		next.StartedAt = oldest // whose own attempts were all looked at: no id is before the empty one
	}
	return found, next, nil
}

// nullness is what next_attempt_at of an open delivery in that state is.
func nullness(s DeliveryState) string {
	if s == DeliveryWaiting {
		return "NULL"
	}
	return "NOT NULL"
}

// openSince is the time of the openLook-th attempt that meets the conditions, of
// the last one, or as far as the sums by minute led; zero: there is none. more
// tells whether there may be others.
func (r *Reader) openSince(ctx context.Context, q *DeliveryQuery, where []string, args []any) (oldest time.Time, more bool, err error) {
	bounds, err := r.bounds(ctx, q, r.openLook)
	if err != nil {
		return oldest, false, err
	}
	if q.Tenant == "" && !bounds[0].since.IsZero() {
		return bounds[0].since, true, nil // by the sums by minute, which count both kinds of open ones
	}
	left := uint64(r.openLook)
	for _, b := range bounds {
		var at time.Time
		var n uint64
		narrow, values := q.narrowed(b, where, args)
		row := r.server.conn.QueryRow(ctx, "SELECT min(started_at), count() FROM (SELECT started_at FROM "+r.cfg.Database+".attempts WHERE "+
			strings.Join(append(narrow, "1"), " AND ")+" ORDER BY started_at DESC LIMIT "+strconv.FormatUint(left, 10)+")"+q.settings(b), values...)
		if err := row.Scan(&at, &n); err != nil {
			return oldest, false, briefly(err)
		}
		if n > 0 {
			oldest = at
		}
		if left -= n; left == 0 {
			return oldest, true, nil
		}
	}
	return oldest, false, nil
}
