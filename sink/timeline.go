package sink

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// TimelineRow is one row of the view signl4_timeline: a notification about an
// alert, and what became of its delivery to one subscription.
type TimelineRow struct {
	EventID      string    `json:"event_id"` // the notification's id
	AlertEventID string    `json:"alert_event_id"`
	AlertID      string    `json:"alert_id"`
	ExternalID   string    `json:"external_id"`
	Type         string    `json:"type"`
	RaisedAt     time.Time `json:"raised_at"`
	User         string    `json:"user"`
	Team         string    `json:"team"`
	Message      string    `json:"message"`
	// SinceCreated and SincePrevious are seconds after the alert was created and
	// after its notification before this one; nil: there is none.
	SinceCreated   *float64 `json:"seconds_since_created"`
	SincePrevious  *float64 `json:"seconds_since_previous"`
	DeliveryState  string   `json:"delivery_state"` // delivered, retrying, waiting, failed or cancelled
	SubscriptionID string   `json:"subscription_id"`
	DeliveryID     string   `json:"delivery_id"`
	Attempts       uint64   `json:"attempts"`
}

// Timeline gives what the time lines of SIGNL4 alerts have about these
// deliveries, each alert's notifications in the order in which they were raised;
// the alert of which the oldest was raised comes first.
func (r *Reader) Timeline(ctx context.Context, deliveries []string) ([]TimelineRow, error) {
	var out []TimelineRow
	for len(deliveries) > 0 {
		n := min(len(deliveries), positionsPerQuery)
		rows, err := r.timeline(ctx, deliveries[:n])
		if err != nil {
			return nil, fmt.Errorf("reading time lines: %w", briefly(err))
		}
		out = append(out, rows...)
		deliveries = deliveries[n:]
	}
	return byAlert(out), nil
}

func (r *Reader) timeline(ctx context.Context, deliveries []string) ([]TimelineRow, error) {
	args := make([]any, len(deliveries))
	for i, id := range deliveries {
		args[i] = id
	}
	rows, err := r.server.conn.Query(ctx, "SELECT event_id, alert_event_id, alert_id, external_id, type, raised_at, user, team, message,"+
		" seconds_since_created, seconds_since_previous, delivery_state, subscription_id, delivery_id, attempts FROM "+r.cfg.Database+
		".signl4_timeline WHERE delivery_id IN ("+strings.Repeat("?, ", len(deliveries)-1)+"?)", args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []TimelineRow
	for rows.Next() {
		var row TimelineRow
		err := rows.Scan(&row.EventID, &row.AlertEventID, &row.AlertID, &row.ExternalID, &row.Type, &row.RaisedAt, &row.User, &row.Team, &row.Message,
			&row.SinceCreated, &row.SincePrevious, &row.DeliveryState, &row.SubscriptionID, &row.DeliveryID, &row.Attempts)
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, rows.Err()
}

// byAlert sorts rows as Timeline gives them.
func byAlert(rows []TimelineRow) []TimelineRow {
	first := map[string]time.Time{}
	for i := range rows {
		if at, ok := first[rows[i].AlertID]; !ok || rows[i].RaisedAt.Before(at) {
			first[rows[i].AlertID] = rows[i].RaisedAt
		}
	}
	slices.SortStableFunc(rows, func(a, b TimelineRow) int {
		return cmp.Or(first[a.AlertID].Compare(first[b.AlertID]), strings.Compare(a.AlertID, b.AlertID),
			a.RaisedAt.Compare(b.RaisedAt), strings.Compare(a.EventID, b.EventID), strings.Compare(a.SubscriptionID, b.SubscriptionID))
	})
	return rows
}
