package sink

import (
	"context"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/pipeline"
)

// SeriesQuery asks for attempts over time.
type SeriesQuery struct {
	Subscription string // empty: all together
	Since, Until time.Time
	Step         time.Duration // whole minutes
}

// Bounds of a SeriesQuery.
const (
	MinStep   = time.Minute
	MaxPoints = 1500
)

// Point is what happened in one step of a series. Steps in which nothing
// happened have a point too.
type Point struct {
	At       time.Time // where the step begins
	Outcomes [len(pipeline.Outcomes) + 1]uint64
	Retries  uint64 // of all attempts, those after the first
	// P50, P90 and P99 of the attempts' durations, Lag the longest time from an
	// event's production to its first attempt; 0: no attempt.
	P50, P90, P99, Lag time.Duration
}

// Attempts is the number of all attempts of the step.
func (p *Point) Attempts() (n uint64) {
	for _, c := range p.Outcomes {
		n += c
	}
	return n
}

// Validate says what is wrong with the query.
func (q *SeriesQuery) Validate() error {
	switch n := q.Until.Sub(q.Since) / max(q.Step, 1); {
	case q.Step < MinStep || q.Step%MinStep != 0:
		return fmt.Errorf("reading a time series: step %v is not in whole minutes", q.Step)
	case !q.Until.After(q.Since) || !clampTime(q.Since).Equal(q.Since) || !clampTime(q.Until).Equal(q.Until):
		return fmt.Errorf("reading a time series: the time from %v to %v is empty or out of range", q.Since, q.Until)
	case n > MaxPoints:
		return fmt.Errorf("reading a time series: %d points, at most %d", n, MaxPoints)
	}
	return nil
}

// Series gives the points of a series in order, from the step with Since to that
// with Until.
func (r *Reader) Series(ctx context.Context, q SeriesQuery) ([]Point, error) {
	if err := q.Validate(); err != nil {
		return nil, err
	}
	first, last := q.Since.UTC().Truncate(q.Step), q.Until.UTC().Add(-1).Truncate(q.Step)
	points := make([]Point, int(last.Sub(first)/q.Step)+1)
	for i := range points {
		points[i].At = first.Add(time.Duration(i) * q.Step)
	}
	at := func(t time.Time) *Point {
		if i := int(t.Sub(first) / q.Step); i >= 0 && i < len(points) && !t.Before(first) {
			return &points[i]
		}
		return &Point{} // a row of the future
	}
	counts, times := r.allSeries()
	if q.Subscription != "" {
		counts, times = r.subscriptionSeries()
	}
	args := []any{int64(q.Step / time.Second), first.UnixMicro(), last.Add(q.Step).UnixMicro()}
	if q.Subscription != "" {
		args = append(args, q.Subscription)
	}
	// Both at once: they write different fields of the points.
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return r.eachCount(ctx, counts, args, at) })
	both.Go(func() error { return r.eachTime(ctx, times, args, at) })
	if err := both.Wait(); err != nil {
		return nil, fmt.Errorf("reading a time series: %w", briefly(err))
	}
	return points, nil
}

// stepOf is the start of the step with column, in seconds since 1970: intervals
// of any whole number of minutes count from there, as Truncate does not quite.
func stepOf(column string) string {
	return "toUnixTimestamp(toDateTime(" + column + ", 'UTC')) AS s, toInt64(s) - (toInt64(s) + 62135596800) % ? AS step"
}

func within(column string) string {
	return column + " >= " + microParam + " AND " + column + " < " + microParam
}

func (r *Reader) allSeries() (counts, times string) {
	from := " FROM " + r.cfg.Database + ".outcome_stats_1m_data WHERE " + within("minute")
	return "SELECT step, toUInt8(outcome), sum(attempts), sum(retries) FROM (SELECT " + stepOf("minute") + ", outcome, attempts, retries" + from + ") GROUP BY step, outcome",
		"SELECT step, quantilesTDigestMergeIf(0.5, 0.9, 0.99)(latency, outcome NOT IN ('cancelled', 'local_error')), max(lag_max) FROM (SELECT " + stepOf("minute") + ", outcome, latency, lag_max" + from + ") GROUP BY step"
}

func (r *Reader) subscriptionSeries() (counts, times string) {
	return "SELECT step, toUInt8(outcome), count(), countIf(attempt > 1) FROM (SELECT " + stepOf("started_at") + ", outcome, attempt FROM " +
			r.cfg.Database + ".attempts WHERE " + within("started_at") + " AND subscription_id = ?) GROUP BY step, outcome",
		"SELECT step, quantilesTDigestMerge(0.5, 0.9, 0.99)(latency), max(lag_max) FROM (SELECT " + stepOf("minute") + ", latency, lag_max FROM " +
			r.cfg.Database + ".subscription_stats_1m_data WHERE " + within("minute") + " AND subscription_id = ?) GROUP BY step"
}

func (r *Reader) eachCount(ctx context.Context, sql string, args []any, at func(time.Time) *Point) error {
	rows, err := r.server.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var step int64
		var outcome uint8
		var attempts, retries uint64
		if err := rows.Scan(&step, &outcome, &attempts, &retries); err != nil {
			return err
		}
		p := at(time.Unix(step, 0).UTC())
		if int(outcome) < len(p.Outcomes) { // else of a newer version
			p.Outcomes[outcome] += attempts
		}
		p.Retries += retries
	}
	return rows.Err()
}

func (r *Reader) eachTime(ctx context.Context, sql string, args []any, at func(time.Time) *Point) error {
	rows, err := r.server.conn.Query(ctx, sql, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var step int64
		var quantiles []float32
		var lag float64
		if err := rows.Scan(&step, &quantiles, &lag); err != nil {
			return err
		}
		p := at(time.Unix(step, 0).UTC())
		if len(quantiles) == 3 {
			p.P50, p.P90, p.P99 = seconds(float64(quantiles[0])), seconds(float64(quantiles[1])), seconds(float64(quantiles[2]))
		}
		p.Lag = seconds(lag)
	}
	return rows.Err()
}

// seconds is 0 for what is no number: the quantile of nothing.
func seconds(s float64) time.Duration {
	if !(s > 0) {
		return 0
	}
	return time.Duration(s * float64(time.Second))
}

// SubscriptionStats is what a subscription's attempts of some time amount to.
type SubscriptionStats struct {
	ID                  string
	Attempts, Successes uint64
	LagMax              time.Duration // from an event's production to its first attempt
	LastAt, LastSuccess time.Time     // zero: none
	// Retrying deliveries have a next attempt that is yet to come, the first one
	// at NextAttempt.
	Retrying    uint64
	NextAttempt time.Time
}

// statsIDs bounds how many subscriptions a question names.
const statsIDs = 500

// SubscriptionStats gives what is known since then of these subscriptions; nil:
// of all. Those without an attempt are missing.
func (r *Reader) SubscriptionStats(ctx context.Context, ids []string, since time.Time) (map[string]SubscriptionStats, error) {
	out := map[string]SubscriptionStats{}
	if ids == nil {
		return out, r.subscriptionStats(ctx, nil, since, out)
	}
	for len(ids) > 0 {
		n := min(len(ids), statsIDs)
		if err := r.subscriptionStats(ctx, ids[:n], since, out); err != nil {
			return nil, err
		}
		ids = ids[n:]
	}
	return out, nil
}

func (r *Reader) subscriptionStats(ctx context.Context, ids []string, since time.Time, out map[string]SubscriptionStats) error {
	only, named := "", []any{}
	if len(ids) > 0 {
		only = " AND subscription_id IN (" + strings.Repeat("?, ", len(ids)-1) + "?)"
		for _, id := range ids {
			named = append(named, id)
		}
	}
	waits := map[string]SubscriptionStats{}
	both, ctx := errgroup.WithContext(ctx)
	both.Go(func() error { return r.sums(ctx, only, named, since, out) })
	both.Go(func() error { return r.retrying(ctx, only, named, waits) })
	if err := both.Wait(); err != nil {
		return err
	}
	for id, w := range waits {
		s := out[id]
		s.ID, s.Retrying, s.NextAttempt = id, w.Retrying, w.NextAttempt
		out[id] = s
	}
	return nil
}

// sums of what was since then.
func (r *Reader) sums(ctx context.Context, only string, ids []any, since time.Time, out map[string]SubscriptionStats) error {
	args := append([]any{clampTime(since).Truncate(time.Minute).UnixMicro()}, ids...)
	rows, err := r.server.conn.Query(ctx, "SELECT subscription_id, sum(attempts), sum(successes), max(lag_max), max(last_at), max(last_success_at) FROM "+r.cfg.Database+
		".subscription_stats_1m_data WHERE minute >= "+microParam+only+" GROUP BY subscription_id", args...)
	if err != nil {
		return fmt.Errorf("reading subscriptions' statistics: %w", briefly(err))
	}
	defer rows.Close()
	for rows.Next() {
		var s SubscriptionStats
		var lag float64
		if err := rows.Scan(&s.ID, &s.Attempts, &s.Successes, &lag, &s.LastAt, &s.LastSuccess); err != nil {
			return fmt.Errorf("reading subscriptions' statistics: %w", briefly(err))
		}
		s.LagMax, s.LastAt, s.LastSuccess = seconds(lag), unlessEpoch(s.LastAt), unlessEpoch(s.LastSuccess)
		out[s.ID] = s
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading subscriptions' statistics: %w", briefly(err))
	}
	return nil
}

// unlessEpoch: ClickHouse's maximum of nothing is 1970.
func unlessEpoch(t time.Time) time.Time {
	if t.Unix() == 0 {
		return time.Time{}
	}
	return t
}

// longestWait is how long before its next attempt an attempt can have begun:
// Retry-After is honoured up to an hour, and the attempt itself takes time.
const longestWait = 2 * time.Hour

// retrying counts the attempts whose next one is yet to come: there is one for
// each delivery that waits for a retry, as nothing is tried again earlier but by
// an operator's wish.
func (r *Reader) retrying(ctx context.Context, only string, ids []any, out map[string]SubscriptionStats) error {
	now := time.Now()
	args := append([]any{now.Add(-longestWait).UnixMicro(), now.UnixMicro()}, ids...)
	rows, err := r.server.conn.Query(ctx, "SELECT subscription_id, uniqExact(delivery_id), min(assumeNotNull(next_attempt_at)) FROM "+r.cfg.Database+
		".attempts WHERE started_at >= "+microParam+" AND next_attempt_at > "+microParam+only+" GROUP BY subscription_id", args...)
	if err != nil {
		return fmt.Errorf("reading what waits for a retry: %w", briefly(err))
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var n uint64
		var next time.Time
		if err := rows.Scan(&id, &n, &next); err != nil {
			return fmt.Errorf("reading what waits for a retry: %w", briefly(err))
		}
		out[id] = SubscriptionStats{ID: id, Retrying: n, NextAttempt: next}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("reading what waits for a retry: %w", briefly(err))
	}
	return nil
}
