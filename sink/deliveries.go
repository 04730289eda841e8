package sink

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// DeliveryState is where a delivery stands by its last attempt: a closed enum.
type DeliveryState string

// The states.
const (
	DeliveryDelivered DeliveryState = "delivered" // the endpoint took it
	DeliveryRetrying  DeliveryState = "retrying"  // it will be tried again at a known time
	DeliveryWaiting   DeliveryState = "waiting"   // not ended, without a known time
	DeliveryFailed    DeliveryState = "failed"    // given up
	DeliveryCancelled DeliveryState = "cancelled" // ended without a try
)

// DeliveryStates lists every state.
var DeliveryStates = [...]DeliveryState{DeliveryDelivered, DeliveryRetrying, DeliveryWaiting, DeliveryFailed, DeliveryCancelled}

// condition is true of a last attempt of a delivery in state s.
func (s DeliveryState) condition() (string, error) {
	switch s {
	case DeliveryDelivered:
		return "outcome = 'success'", nil
	case DeliveryRetrying:
		return "NOT final AND next_attempt_at IS NOT NULL", nil
	case DeliveryWaiting:
		return "NOT final AND next_attempt_at IS NULL", nil
	case DeliveryFailed:
		return "final AND outcome NOT IN ('success', 'cancelled')", nil
	case DeliveryCancelled:
		return "final AND outcome = 'cancelled'", nil
	}
	return "", fmt.Errorf("listing deliveries: %.40q is not a state", string(s))
}

// StateOf is the state of a delivery whose last attempt is a.
func StateOf(a *pipeline.Attempt) DeliveryState {
	switch {
	case a.Outcome == pipeline.OutcomeSuccess:
		return DeliveryDelivered
	case a.Final && a.Outcome == pipeline.OutcomeCancelled:
		return DeliveryCancelled
	case a.Final:
		return DeliveryFailed
	case !a.NextAttemptAt.IsZero():
		return DeliveryRetrying
	}
	return DeliveryWaiting
}

// MaxDeliveries is the most deliveries of one page.
const MaxDeliveries = 200

// DeliveryQuery asks for a page of deliveries, those with the newest last
// attempt first. Empty fields do not narrow it.
type DeliveryQuery struct {
	Subscription string
	Tenant       string
	Event        string // event id
	Correlation  string
	Delivery     string // delivery id
	State        DeliveryState
	Since, Until time.Time // of the last attempt; Until itself is left out
	Limit        int       // 1..MaxDeliveries
	After        DeliveryCursor

	// of are the subscriptions that Tenant has attempts of; nil: too many, or not
	// asked.
	of []string
}

// DeliveryCursor is where a page of deliveries ended: behind an attempt, or,
// without an id, behind all of a time. The zero value is before the first one.
type DeliveryCursor struct {
	StartedAt time.Time
	AttemptID string
}

// IsZero tells whether c is before the first page.
func (c DeliveryCursor) IsZero() bool { return c.StartedAt.IsZero() }

// String gives the cursor as ParseDeliveryCursor reads it; empty for the zero
// value. Callers must not rely on what is in it.
func (c DeliveryCursor) String() string {
	if c.IsZero() {
		return ""
	}
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.StartedAt.UnixMicro(), 10) + " " + c.AttemptID))
}

// maxCursorBytes: an attempt id is much shorter.
const maxCursorBytes = 512

// ErrCursor says that a text is not a cursor of a page.
var ErrCursor = errors.New("not a cursor that a page of deliveries gave")

// ParseDeliveryCursor is the inverse of String.
func ParseDeliveryCursor(s string) (DeliveryCursor, error) {
	if s == "" {
		return DeliveryCursor{}, nil
	}
	if len(s) > maxCursorBytes {
		return DeliveryCursor{}, ErrCursor
	}
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return DeliveryCursor{}, ErrCursor
	}
	micros, id, ok := strings.Cut(string(b), " ")
	at, err := strconv.ParseInt(micros, 10, 64)
	c := DeliveryCursor{StartedAt: time.UnixMicro(at).UTC(), AttemptID: id}
	if err != nil || !ok || !clampTime(c.StartedAt).Equal(c.StartedAt) {
		return DeliveryCursor{}, ErrCursor
	}
	return c, nil
}

// DeliveryRow is one delivery with its last attempt, without headers and bodies.
type DeliveryRow struct {
	pipeline.Attempt // headers, bodies and times of the phases are not filled in
	State            DeliveryState
}

// DeliveryPage is one page.
type DeliveryPage struct {
	Deliveries []DeliveryRow
	// Next asks for the page after this one; the zero value: there is none. A
	// page may be short, even empty, and still have a next one.
	Next DeliveryCursor
}

// lookAhead is how many attempts are read at once for that many deliveries: not
// every one is the last of its delivery. Those that ended it are, but before a
// replay.
func (q *DeliveryQuery) lookAhead(deliveries int) int {
	switch {
	case q.State == "":
		return 4 * deliveries
	case q.open():
		return 2 * deliveries
	}
	return deliveries + deliveries/8 + 1
}

// looks bounds how often a page that is not full looks on: for deliveries that are
// open each look is at many.
func (q *DeliveryQuery) looks() int {
	if q.open() {
		return 3
	}
	return 5
}

// open tells of a list of deliveries that are not ended.
func (q *DeliveryQuery) open() bool { return q.State == DeliveryRetrying || q.State == DeliveryWaiting }

// Deliveries gives one page. A delivery stands where its last attempt is, so that
// it moves to the front with each one: pages that are read one after the other
// may leave out, but not repeat, what moves meanwhile.
func (r *Reader) Deliveries(ctx context.Context, q DeliveryQuery) (*DeliveryPage, error) {
	if q.Limit < 1 || q.Limit > MaxDeliveries {
		return nil, fmt.Errorf("listing deliveries: a page of %d, want 1 to %d", q.Limit, MaxDeliveries)
	}
	page := &DeliveryPage{}
	var err error
	if q.of, err = r.subscriptionsOf(ctx, &q); err != nil {
		return nil, fmt.Errorf("listing deliveries: %w", err)
	}
	for range q.looks() {
		n := q.lookAhead(q.Limit - len(page.Deliveries))
		found, next, err := r.lastAttempts(ctx, &q, n)
		if err != nil {
			return nil, fmt.Errorf("listing deliveries: %w", err)
		}
		keep, err := r.stillLast(ctx, found)
		if err != nil {
			return nil, fmt.Errorf("listing deliveries: %w", err)
		}
		for i := range found {
			if keep[found[i].AttemptID] {
				page.Deliveries = append(page.Deliveries, found[i])
			}
			if len(page.Deliveries) == q.Limit {
				if i < len(found)-1 || !next.IsZero() {
					page.Next = DeliveryCursor{found[i].StartedAt, found[i].AttemptID}
				}
				return page, nil
			}
		}
		if next.IsZero() {
			return page, nil
		}
		dear := q.State != "" && q.wide(bound{since: next.StartedAt})
		if q.After = next; dear {
			break
		}
	}
	page.Next = q.After
	return page, nil
}

// lastAttempts gives the newest attempts, at most n, that may be the last ones of
// their deliveries, and where to look on; the zero value: there are no more.
func (r *Reader) lastAttempts(ctx context.Context, q *DeliveryQuery, n int) (found []DeliveryRow, next DeliveryCursor, err error) {
	if q.open() {
		return r.openAttempts(ctx, q, n)
	}
	where, args, err := q.conditions()
	if err != nil {
		return nil, next, err
	}
	bounds, err := r.bounds(ctx, q, n)
	if err != nil {
		return nil, next, err
	}
	for _, b := range bounds {
		most := q.most(b, n-len(found))
		more, err := r.newest(ctx, q, b, where, args, most)
		if err != nil {
			return nil, next, err
		}
		if found = append(found, more...); len(more) == most {
			last := &found[len(found)-1]
			return found, DeliveryCursor{last.StartedAt, last.AttemptID}, nil
		}
	}
	return found, next, nil
}

// about gives the conditions that all attempts of a delivery meet or none.
func (q *DeliveryQuery) about() (where []string, args []any) {
	f := Filter{Subscription: q.Subscription, Tenant: q.Tenant, Event: q.Event, Correlation: q.Correlation, Delivery: q.Delivery}
	return f.about()
}

// conditions on an attempt of the page, the cursor's included.
func (q *DeliveryQuery) conditions() (where []string, args []any, err error) {
	where, args = q.about()
	if !q.Since.IsZero() {
		where, args = append(where, "started_at >= "+microParam), append(args, clampTime(q.Since).UnixMicro())
	}
	if q.State != "" {
		condition, err := q.State.condition()
		if err != nil {
			return nil, nil, err
		}
		where = append(where, condition)
	}
	if !q.Until.IsZero() {
		where, args = append(where, "started_at < "+microParam), append(args, clampTime(q.Until).UnixMicro())
	}
	if !q.After.IsZero() {
		at := q.After.StartedAt.UnixMicro()
		// The first condition alone is one that the key can use.
		where = append(where, "started_at <= "+microParam, "(started_at < "+microParam+" OR attempt_id < ?)")
		args = append(args, at, at, q.After.AttemptID)
	}
	return where, args, nil
}

// newest gives the newest n attempts of a part of the time that meet the
// conditions.
func (r *Reader) newest(ctx context.Context, q *DeliveryQuery, b bound, where []string, args []any, n int) ([]DeliveryRow, error) {
	narrow, values := q.narrowed(b, where, args)
	rows, err := r.server.conn.Query(ctx, "SELECT attempt_id, delivery_id, subscription_id, url, attempt, round, toUInt8(outcome), status_code, error,"+
		" started_at, elapsed_us, final, next_attempt_at, replay, event_id, tenant, format, event_type, entity, correlation_id, produced_at, node FROM "+
		r.cfg.Database+".attempts WHERE "+strings.Join(append(narrow, "1"), " AND ")+
		" ORDER BY started_at DESC, attempt_id DESC LIMIT "+strconv.Itoa(n)+q.settings(b), values...)
	if err != nil {
		return nil, briefly(err)
	}
	defer rows.Close()
	out := make([]DeliveryRow, 0, n)
	for rows.Next() {
		row, err := scanDelivery(rows.Scan)
		if err != nil {
			return nil, briefly(err)
		}
		out = append(out, row)
	}
	return out, briefly(rows.Err())
}

func scanDelivery(scan func(...any) error) (DeliveryRow, error) {
	env := &pipeline.Envelope{}
	row := DeliveryRow{Attempt: pipeline.Attempt{Envelope: env}}
	a := &row.Attempt
	var attempt, outcome uint8
	var round, status uint16
	var elapsed uint32
	var next *time.Time
	var format string
	err := scan(&a.AttemptID, &a.DeliveryID, &a.SubscriptionID, &a.URL, &attempt, &round, &outcome, &status, &a.Error,
		&a.StartedAt, &elapsed, &a.Final, &next, &env.Replay, &env.EventID, &env.Tenant, &format, &env.EventType, &env.Entity,
		&env.Correlation, &env.ProducedAt, &a.Node)
	if err != nil {
		return row, err
	}
	a.Attempt, a.Round, a.Outcome, a.StatusCode, a.Elapsed = int(attempt), int(round), pipeline.Outcome(outcome), int(status), micros(elapsed)
	env.Format = pipeline.Format(format)
	if next != nil {
		a.NextAttemptAt = *next
	}
	row.State = StateOf(a)
	return row, nil
}

// stillLast tells which of these attempts, by their ids, are the last ones of
// their deliveries.
func (r *Reader) stillLast(ctx context.Context, found []DeliveryRow) (map[string]bool, error) {
	if len(found) == 0 {
		return nil, nil
	}
	subs, deliveries := map[string]bool{}, map[string]bool{}
	oldest := found[0].StartedAt
	for i := range found {
		subs[found[i].SubscriptionID], deliveries[found[i].DeliveryID] = true, true
		if found[i].StartedAt.Before(oldest) {
			oldest = found[i].StartedAt
		}
	}
	args := []any{oldest.UnixMicro()}
	marks := func(set map[string]bool) string {
		for v := range set {
			args = append(args, v)
		}
		return strings.Repeat("?, ", len(set)-1) + "?"
	}
	sql := "SELECT argMax(attempt_id, (started_at, round, attempt, attempt_id)) FROM " + r.cfg.Database + ".attempts WHERE started_at >= " + microParam +
		" AND subscription_id IN (" + marks(subs) + ") AND delivery_id IN (" + marks(deliveries) + ") GROUP BY subscription_id, delivery_id"
	rows, err := r.server.conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, briefly(err)
	}
	defer rows.Close()
	last := make(map[string]bool, len(found))
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, briefly(err)
		}
		last[id] = true
	}
	return last, briefly(rows.Err())
}
