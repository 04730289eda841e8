package api

import (
	"encoding/base64"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/sink"
)

// The types below are the bodies of answers; their documentation is openapi.yaml.

type wireSubscription struct {
	ID            string          `json:"id"`
	Tenant        string          `json:"tenant"`
	Description   string          `json:"description"`
	URL           string          `json:"url"`
	Formats       []string        `json:"formats"`
	Events        []string        `json:"events"`
	Ordering      string          `json:"ordering"`
	OnExhausted   string          `json:"on_exhausted"`
	State         string          `json:"state"`
	StateReason   string          `json:"state_reason"`
	Health        string          `json:"health"`
	Since         *time.Time      `json:"since"`
	Refused       string          `json:"refused"`
	Revision      int64           `json:"revision"`
	Attempts      uint64          `json:"attempts_1h"`
	Successes     uint64          `json:"successes_1h"`
	LagMaxMS      int64           `json:"lag_max_ms_1h"`
	LastAttemptAt *time.Time      `json:"last_attempt_at"`
	LastSuccessAt *time.Time      `json:"last_success_at"`
	Retrying      uint64          `json:"retrying"`
	NextAttemptAt *time.Time      `json:"next_attempt_at"`
	Lanes         *command.Status `json:"lanes"`
}

func stamp(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

func toWire(s *Subscription) wireSubscription {
	formats := make([]string, len(s.Formats))
	for i, f := range s.Formats {
		formats[i] = string(f)
	}
	return wireSubscription{
		ID: s.ID, Tenant: s.Tenant, Description: s.Description, URL: s.URL, Formats: formats, Events: append([]string{}, s.Events...),
		Ordering: string(s.Ordering), OnExhausted: string(s.OnExhausted), State: string(s.State), StateReason: s.StateReason,
		Health: string(s.Health), Since: stamp(s.Since), Refused: s.Refused, Revision: s.Revision,
		Attempts: s.Stats.Attempts, Successes: s.Stats.Successes, LagMaxMS: s.Stats.LagMax.Milliseconds(),
		LastAttemptAt: stamp(s.Stats.LastAt), LastSuccessAt: stamp(s.Stats.LastSuccess),
		Retrying: s.Stats.Retrying, NextAttemptAt: stamp(s.Stats.NextAttempt), Lanes: s.Lanes,
	}
}

type wireDelivery struct {
	ID             string     `json:"id"`
	State          string     `json:"state"`
	SubscriptionID string     `json:"subscription_id"`
	Tenant         string     `json:"tenant"`
	EventID        string     `json:"event_id"`
	EventType      string     `json:"event_type"`
	Format         string     `json:"format"`
	Entity         string     `json:"entity"`
	CorrelationID  string     `json:"correlation_id"`
	URL            string     `json:"url"`
	ProducedAt     *time.Time `json:"produced_at"`
	LastAttemptAt  time.Time  `json:"last_attempt_at"`
	Attempt        int        `json:"attempt"`
	Round          int        `json:"round"`
	Outcome        string     `json:"outcome"`
	StatusCode     int        `json:"status_code"`
	Error          string     `json:"error"`
	ElapsedUS      int64      `json:"elapsed_us"`
	NextAttemptAt  *time.Time `json:"next_attempt_at"`
	Replay         string     `json:"replay"`
}

func deliveryToWire(a *pipeline.Attempt, state sink.DeliveryState) wireDelivery {
	e := a.Envelope
	return wireDelivery{
		ID: a.DeliveryID, State: string(state), SubscriptionID: a.SubscriptionID, Tenant: e.Tenant, EventID: e.EventID,
		EventType: e.EventType, Format: string(e.Format), Entity: e.Entity, CorrelationID: e.Correlation, URL: a.URL,
		ProducedAt: stamp(e.ProducedAt), LastAttemptAt: a.StartedAt.UTC(), Attempt: a.Attempt, Round: a.Round, Outcome: a.Outcome.String(),
		StatusCode: a.StatusCode, Error: a.Error, ElapsedUS: a.Elapsed.Microseconds(), NextAttemptAt: stamp(a.NextAttemptAt), Replay: e.Replay,
	}
}

// wireBytes are bytes that anybody may have sent: as text where they are UTF-8.
type wireBytes struct {
	Encoding string `json:"encoding"` // utf-8 or base64
	Content  string `json:"content"`
}

func bytesToWire(b []byte) wireBytes {
	if utf8.Valid(b) {
		return wireBytes{"utf-8", string(b)}
	}
	return wireBytes{"base64", base64.StdEncoding.EncodeToString(b)}
}

type wireAttempt struct {
	ID                string     `json:"id"`
	DeliveryID        string     `json:"delivery_id"`
	SubscriptionID    string     `json:"subscription_id"`
	Attempt           int        `json:"attempt"`
	Round             int        `json:"round"`
	Outcome           string     `json:"outcome"`
	StatusCode        int        `json:"status_code"`
	Error             string     `json:"error"`
	StartedAt         time.Time  `json:"started_at"`
	ElapsedUS         int64      `json:"elapsed_us"`
	DNSUS             int64      `json:"dns_us"`
	ConnectUS         int64      `json:"connect_us"`
	TLSUS             int64      `json:"tls_us"`
	TTFBUS            int64      `json:"ttfb_us"`
	URL               string     `json:"url"`
	RequestHeaders    wireBytes  `json:"request_headers"`
	RequestBytes      int        `json:"request_bytes"`
	RequestWritten    bool       `json:"request_written"`
	ResponseHeaders   wireBytes  `json:"response_headers"`
	ResponseBody      wireBytes  `json:"response_body"`
	ResponseTruncated bool       `json:"response_truncated"`
	BodiesDropped     bool       `json:"bodies_dropped"`
	AckID             string     `json:"ack_id"`
	Final             bool       `json:"final"`
	NextAttemptAt     *time.Time `json:"next_attempt_at"`
	Replay            string     `json:"replay"`
	Resends           int        `json:"resends"`
	Node              string     `json:"node"`
}

func attemptToWire(row *sink.AttemptRow) wireAttempt {
	a := &row.Attempt
	return wireAttempt{
		ID: a.AttemptID, DeliveryID: a.DeliveryID, SubscriptionID: a.SubscriptionID, Attempt: a.Attempt, Round: a.Round,
		Outcome: a.Outcome.String(), StatusCode: a.StatusCode, Error: a.Error, StartedAt: a.StartedAt.UTC(), ElapsedUS: a.Elapsed.Microseconds(),
		DNSUS: a.DNS.Microseconds(), ConnectUS: a.Connect.Microseconds(), TLSUS: a.TLS.Microseconds(), TTFBUS: a.TTFB.Microseconds(),
		URL: a.URL, RequestHeaders: bytesToWire(a.RequestHeaders), RequestBytes: a.RequestBytes, RequestWritten: a.RequestWritten,
		ResponseHeaders: bytesToWire(a.ResponseHeaders), ResponseBody: bytesToWire(a.ResponseBody), ResponseTruncated: a.ResponseTruncated,
		BodiesDropped: row.BodiesDropped, AckID: a.AckID, Final: a.Final, NextAttemptAt: stamp(a.NextAttemptAt), Replay: a.Envelope.Replay,
		Resends: a.Resends, Node: a.Node,
	}
}

type wireEvent struct {
	Source      string     `json:"source"` // topic/partition/offset
	ProducedAt  *time.Time `json:"produced_at"`
	ContentType string     `json:"content_type"`
	Payload     wireBytes  `json:"payload"`
}

type wireDeliveryDetail struct {
	wireDelivery
	Attempts []wireAttempt `json:"attempts"`
	Event    *wireEvent    `json:"event"`
}

func detailToWire(d *Delivery) wireDeliveryDetail {
	out := wireDeliveryDetail{wireDelivery: deliveryToWire(&d.Last().Attempt, d.State), Attempts: make([]wireAttempt, len(d.Attempts))}
	for i, row := range d.Attempts {
		out.Attempts[i] = attemptToWire(row)
	}
	if e := d.Event; e != nil {
		kind := e.ContentType
		if kind == "" {
			kind = "application/json"
		}
		out.Event = &wireEvent{e.Source.String(), stamp(e.ProducedAt), kind, bytesToWire(e.Payload)}
	}
	return out
}

type wirePoint struct {
	At       time.Time         `json:"at"`
	Attempts uint64            `json:"attempts"`
	Retries  uint64            `json:"retries"`
	Outcomes map[string]uint64 `json:"outcomes"`
	P50US    int64             `json:"p50_us"`
	P90US    int64             `json:"p90_us"`
	P99US    int64             `json:"p99_us"`
	LagMaxMS int64             `json:"lag_max_ms"`
}

func pointToWire(p *sink.Point) wirePoint {
	out := wirePoint{
		At: p.At, Attempts: p.Attempts(), Retries: p.Retries, Outcomes: map[string]uint64{},
		P50US: p.P50.Microseconds(), P90US: p.P90.Microseconds(), P99US: p.P99.Microseconds(), LagMaxMS: p.Lag.Milliseconds(),
	}
	for _, o := range pipeline.Outcomes {
		if n := p.Outcomes[o]; n > 0 {
			out.Outcomes[o.String()] = n
		}
	}
	return out
}

// page is a list of one page. Next is the value of after for the next one;
// null: this was the last.
type page[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next"`
}
