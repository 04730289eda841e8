package main

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/internal/logshape"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/task"
	"github.com/hookline/hookline/sink"
)

// cotalker prints a COTWebhookLog for each attempt.
func (p *logPrinter) cotalker(rows []*sink.AttemptRow, events map[pipeline.Position]*sink.StoredEvent) error {
	for _, row := range rows {
		var event []byte
		if e := events[row.Envelope.Source]; e != nil {
			event = e.Payload
		}
		if err := p.line(logshape.AppendCOTWebhookLog(nil, &row.Attempt, event)); err != nil {
			return err
		}
	}
	return nil
}

// webhookCalled prints a goflow webhook_called for each attempt.
func (p *logPrinter) webhookCalled(rows []*sink.AttemptRow, events map[pipeline.Position]*sink.StoredEvent) error {
	for _, row := range rows {
		c := logshape.Called{BodyBytes: p.bodyBytes, BodiesDropped: row.BodiesDropped, WithIDs: true}
		if e := events[row.Envelope.Source]; e != nil {
			c.Payload, c.Resthook = e.Payload, logshape.ResthookOf(e.Type, e.Raw)
		}
		if err := p.line(logshape.AppendWebhookCalled(nil, &row.Attempt, c)); err != nil {
			return err
		}
	}
	return nil
}

// timelineLine is a row of a time line in JSON.
type timelineLine struct {
	sink.TimelineRow
	AckID string `json:"ack_id,omitempty"`
}

// timelines prints what the attempts' alerts went through.
func (p *logPrinter) timelines(ctx context.Context, rows []*sink.AttemptRow) error {
	var deliveries []string
	acks := map[string]string{}
	for _, row := range rows {
		if _, known := acks[row.DeliveryID]; !known {
			deliveries = append(deliveries, row.DeliveryID)
		}
		acks[row.DeliveryID] = row.AckID
	}
	list, err := p.r.Timeline(ctx, deliveries)
	if err != nil {
		p.late = append(p.late, rows...)
		return &askError{err}
	}
	var t table
	for i := range list {
		row := &list[i]
		if p.asJSON {
			if err := p.object(timelineLine{*row, acks[row.DeliveryID]}); err != nil {
				return err
			}
			continue
		}
		by := row.User
		if by == "" && row.Team != "" {
			by = "team " + row.Team
		}
		t.add(cut(row.AlertID, wideCell), cut(row.ExternalID, narrowCell), moment(row.RaisedAt), seconds(row.SinceCreated), seconds(row.SincePrevious),
			row.Type, cut(by, narrowCell), cut(row.Message, wideCell), row.DeliveryState, strconv.FormatUint(row.Attempts, 10), cut(row.SubscriptionID, narrowCell))
	}
	if p.asJSON {
		return nil
	}
	return p.rows([]string{"ALERT", "EXTERNAL ID", "RAISED", "SINCE CREATED", "SINCE LAST", "TYPE", "BY", "MESSAGE", "DELIVERY", "TRIES", "SUBSCRIPTION"}, &t)
}

// seconds in a table; nil: none.
func seconds(s *float64) string {
	if s == nil {
		return "-"
	}
	return strconv.FormatFloat(*s, 'f', 3, 64) + " s"
}

// changeLine is one changed field in JSON, by the names of the view
// task_changes.
type changeLine struct {
	EventID        string           `json:"event_id"`
	EntityID       string           `json:"entity_id"`
	OrganizationID string           `json:"organization_id"`
	LocationID     string           `json:"location_id"`
	Field          string           `json:"field"`
	Before         jsontext.Value   `json:"before"`
	After          jsontext.Value   `json:"after"`
	Added          []jsontext.Value `json:"added"`
	Removed        []jsontext.Value `json:"removed"`
	ChangedAt      time.Time        `json:"changed_at"`
	// AckIDs are the receivers' acknowledgements by subscription.
	AckIDs map[string]string `json:"ack_ids,omitempty"`
}

// taskStates are the members of a task's states that every changed field has.
type taskStates struct {
	Data struct {
		Current  taskState `json:"current"`
		Previous taskState `json:"previous"`
	} `json:"data"`
}

type taskState struct {
	Organization jsontext.Value `json:"organizationId"`
	Location     jsontext.Value `json:"locationId"`
}

// changes prints a row for each changed field of the attempts' events, each
// event once.
func (p *logPrinter) changes(rows []*sink.AttemptRow, events map[pipeline.Position]*sink.StoredEvent) error {
	acks := map[pipeline.Position]map[string]string{}
	var order []pipeline.Position
	for _, row := range rows {
		at := row.Envelope.Source
		if acks[at] == nil {
			acks[at] = map[string]string{}
			order = append(order, at)
		}
		if row.AckID != "" {
			acks[at][row.SubscriptionID] = row.AckID
		}
	}
	var t table
	for _, at := range order {
		if p.again(at, events[at]) && len(acks[at]) == 0 {
			continue
		}
		for _, l := range changesOf(events[at], acks[at]) {
			if p.asJSON {
				if err := p.object(l); err != nil {
					return err
				}
				continue
			}
			t.add(moment(l.ChangedAt), cut(l.EntityID, wideCell), l.Field, cell(l.Before), cell(l.After), cells(l.Added), cells(l.Removed), cut(l.EventID, 30), ackCell(l.AckIDs))
		}
	}
	if p.asJSON {
		return nil
	}
	return p.rows([]string{"CHANGED", "TASK", "FIELD", "BEFORE", "AFTER", "ADDED", "REMOVED", "EVENT", "ACKNOWLEDGED AS"}, &t)
}

// again tells whether --follow has printed the event before: at an earlier
// attempt, or for another subscription.
func (p *logPrinter) again(at pipeline.Position, e *sink.StoredEvent) bool {
	if !p.follows || e == nil {
		return false
	}
	if p.told[at] {
		return true
	}
	if p.told == nil || len(p.told) >= maxTold {
		p.told = map[pipeline.Position]bool{}
	}
	p.told[at] = true
	return false
}

// changesOf gives an event's changed fields; none for one that is not stored.
func changesOf(e *sink.StoredEvent, acks map[string]string) []changeLine {
	if e == nil {
		return nil
	}
	changed, err := task.Changed(e.Payload)
	var states taskStates
	if err != nil || json.Unmarshal(e.Payload, &states) != nil {
		return nil // the router let it pass: cannot be
	}
	now, was := states.Data.Current, states.Data.Previous
	at := e.Time
	if at.IsZero() {
		at = e.ProducedAt
	}
	out := make([]changeLine, 0, len(changed))
	for _, c := range changed {
		out = append(out, changeLine{
			EventID: e.ID, EntityID: e.Entity, Field: c.Field,
			OrganizationID: cmp.Or(plainText(now.Organization), plainText(was.Organization)), LocationID: cmp.Or(plainText(now.Location), plainText(was.Location)),
			Before: c.Before, After: c.After, Added: list(c.Added), Removed: list(c.Removed), ChangedAt: at.UTC(), AckIDs: acks,
		})
	}
	return out
}

func list(elements [][]byte) []jsontext.Value {
	out := make([]jsontext.Value, len(elements))
	for i, e := range elements {
		out[i] = e
	}
	return out
}

// plainText is the text of a JSON string; empty for all else.
func plainText(v jsontext.Value) string {
	var text string
	if v.Kind() != '"' || json.Unmarshal(v, &text) != nil {
		return ""
	}
	return text
}

// cell shows a JSON value in a table, text without its quotes.
func cell(v jsontext.Value) string {
	switch v.Kind() {
	case '"':
		return cut(plainText(v), wideCell)
	case 'n', 0:
		return "-"
	}
	return cut(string(v), wideCell)
}

func cells(list []jsontext.Value) string {
	var out []string
	for _, v := range list {
		out = append(out, cell(v))
	}
	return cut(strings.Join(out, " "), wideCell)
}

// ackCell shows acknowledgements, each once.
func ackCell(acks map[string]string) string {
	var out []string
	for _, ack := range acks {
		if !slices.Contains(out, ack) {
			out = append(out, ack)
		}
	}
	slices.Sort(out)
	return cut(strings.Join(out, " "), narrowCell)
}
