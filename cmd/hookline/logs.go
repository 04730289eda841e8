package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sink"
)

// followEvery is how often --follow looks for new attempts.
const followEvery = time.Second

// followBack is how far --follow looks back for the end of the log.
const followBack = 24 * time.Hour

// logsOptions are the flags of hookline logs.
type logsOptions struct {
	filter        sink.Filter
	status, since string
	as            string
	asJSON        bool
	follow        bool
}

func (c *cli) logsCmd() *cobra.Command {
	var o logsOptions
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "The delivery log: every attempt, oldest first",
		Long: "The delivery log: every attempt, oldest first. --as shows it as the systems know it that the events come\n" +
			"from, and only events of their formats. All filters apply to all of them.",
		Example: "  hookline logs --since 1h --status failed\n  hookline logs --as cotalker --final --subscription 62685990d918fb5557f9f992\n" +
			"  hookline logs --as signl4 --correlation INC091210",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.complete(time.Now()); err != nil {
				return err
			}
			cfg, err := c.config()
			if err != nil {
				return err
			}
			r, err := c.reader(cmd.Context())
			if err != nil {
				return err
			}
			defer r.Close()
			p := &logPrinter{c: c, r: r, as: o.as, asJSON: o.asJSON, follows: o.follow, bodyBytes: cfg.Sender.ResponseBodyBytes}
			return p.logs(cmd.Context(), &o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.filter.Subscription, "subscription", "", "only this subscription")
	f.StringVar(&o.filter.Tenant, "tenant", "", "only this tenant")
	f.StringVar(&o.filter.Event, "event", "", "only this event id")
	f.StringVar(&o.filter.Delivery, "delivery", "", "only this delivery id (webhook-id)")
	f.StringVar(&o.filter.Correlation, "correlation", "", "only this correlation id")
	f.StringVar(&o.status, "status", "", "failed or success")
	f.StringVar(&o.since, "since", "", "only attempts of this last time (1h, 7d) or since this moment (RFC 3339)")
	f.StringVar(&o.as, "as", asTable, "table, or one JSON object a line: json, cotalker (COTWebhookLog), webhook_called (goflow);\nor a table: signl4 (time lines of alerts), task (changed fields)")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object a line; with --as signl4 or task too")
	f.BoolVar(&o.filter.Last, "final", false, "only the last attempt of each delivery")
	f.BoolVar(&o.follow, "follow", false, "go on with new attempts until interrupted, across restarts of ClickHouse")
	f.IntVar(&o.filter.Limit, "limit", 100, "at most the newest N; 0: all")
	return cmd
}

// complete checks the flags and makes the filter of them.
func (o *logsOptions) complete(now time.Time) error {
	shape, known := logShapes[o.as]
	if !known {
		return usagef("reading options: hookline logs: --as: %q is not one of table, json, cotalker, webhook_called, signl4, task", o.as)
	}
	if o.asJSON && o.as == asTable {
		o.as = asJSON
	}
	o.filter.Format, o.filter.TypePrefix, o.filter.Spent = shape.format, shape.types, shape.spent
	o.filter.Status = sink.Status(o.status)
	switch o.filter.Status {
	case sink.StatusAny, sink.StatusFailed, sink.StatusSuccess:
	default:
		return usagef("reading options: hookline logs: --status: %q is not one of failed, success", o.status)
	}
	if o.filter.Limit < 0 {
		return usagef("reading options: hookline logs: --limit: %d is negative", o.filter.Limit)
	}
	var err error
	o.filter.Since, err = instant("logs: --since", o.since, now)
	return err
}

func (p *logPrinter) logs(ctx context.Context, o *logsOptions) error {
	var end *sink.Cursor
	tail := o.filter
	if o.follow {
		if tail.Since.IsZero() {
			tail.Since = time.Now().Add(-followBack)
		}
		var err error
		if end, err = p.r.Tail(ctx, tail.Since); err != nil {
			return err
		}
	}
	rows, err := newest(ctx, p.r, o.filter)
	if err != nil {
		return err
	}
	if f := &o.filter; len(rows) == 0 && f.Subscription+f.Delivery+f.Event+f.Tenant+f.Correlation != "" {
		fmt.Fprintln(p.c.err, "no such attempt is in the log; what is not spelt as it is there has none (hookline subs list, hookline logs)")
	}
	if err := p.print(ctx, rows); err != nil || !o.follow {
		return err
	}
	shown := make(map[sink.LogPosition]bool, len(rows)) // stored between the look at the end and the list
	for _, row := range rows {
		shown[row.Log] = true
	}
	tail.After, tail.Limit = end, 0
	return p.follow(ctx, tail, shown)
}

// newest gives the newest rows that f asks for, oldest first.
func newest(ctx context.Context, r logSource, f sink.Filter) ([]*sink.AttemptRow, error) {
	f.NewestFirst = true
	var rows []*sink.AttemptRow
	for row, err := range r.Attempts(ctx, f) {
		if err != nil {
			return nil, err
		}
		rows = append(rows, row)
	}
	slices.Reverse(rows)
	return rows, nil
}

// next says what came after an attempt.
func next(a *pipeline.Attempt) string {
	why := ""
	if a.Error != "" && a.Outcome != pipeline.OutcomeSuccess {
		why = ": " + cut(a.Error, wideCell)
	}
	switch {
	case a.Outcome == pipeline.OutcomeSuccess:
		if a.AckID != "" {
			return "delivered, acknowledged as " + cut(a.AckID, narrowCell)
		}
		return "delivered"
	case a.Final:
		return "given up" + why
	case !a.NextAttemptAt.IsZero():
		return "again at " + a.NextAttemptAt.UTC().Format("15:04:05.000Z") + why
	}
	return "waits" + why
}

// logLine is an attempt in JSON, by the names of ClickHouse's columns.
type logLine struct {
	AttemptID       string     `json:"attempt_id"`
	DeliveryID      string     `json:"delivery_id"`
	EventID         string     `json:"event_id"`
	SubscriptionID  string     `json:"subscription_id"`
	Tenant          string     `json:"tenant"`
	Format          string     `json:"format"`
	EventType       string     `json:"event_type"`
	Entity          string     `json:"entity"`
	CorrelationID   string     `json:"correlation_id"`
	URL             string     `json:"url"`
	Attempt         int        `json:"attempt"`
	Retry           int        `json:"retry"`
	Round           int        `json:"round"`
	Outcome         string     `json:"outcome"`
	StatusCode      int        `json:"status_code"`
	Error           string     `json:"error"`
	StartedAt       time.Time  `json:"started_at"`
	ElapsedUS       int64      `json:"elapsed_us"`
	DNSUS           int64      `json:"dns_us"`
	ConnectUS       int64      `json:"connect_us"`
	TLSUS           int64      `json:"tls_us"`
	TTFBUS          int64      `json:"ttfb_us"`
	RequestHeaders  string     `json:"request_headers"`
	RequestBytes    int        `json:"request_bytes"`
	ResponseHeaders string     `json:"response_headers"`
	ResponseBody    string     `json:"response_body"`
	Truncated       bool       `json:"response_truncated"`
	AckID           string     `json:"ack_id"`
	Final           bool       `json:"final"`
	NextAttemptAt   *time.Time `json:"next_attempt_at"`
	Replay          string     `json:"replay"`
	Resends         int        `json:"resends"`
	Node            string     `json:"node"`
	Source          string     `json:"source"`
}

func newLogLine(row *sink.AttemptRow) logLine {
	a, env := &row.Attempt, row.Envelope
	l := logLine{
		AttemptID: a.AttemptID, DeliveryID: a.DeliveryID, EventID: env.EventID, SubscriptionID: a.SubscriptionID,
		Tenant: env.Tenant, Format: string(env.Format), EventType: env.EventType, Entity: env.Entity, CorrelationID: env.Correlation,
		URL: a.URL, Attempt: a.Attempt, Retry: a.Retry(), Round: a.Round, Outcome: a.Outcome.String(), StatusCode: a.StatusCode,
		Error: a.Error, StartedAt: a.StartedAt.UTC(), ElapsedUS: a.Elapsed.Microseconds(), DNSUS: a.DNS.Microseconds(),
		ConnectUS: a.Connect.Microseconds(), TLSUS: a.TLS.Microseconds(), TTFBUS: a.TTFB.Microseconds(),
		RequestHeaders: string(a.RequestHeaders), RequestBytes: a.RequestBytes, ResponseHeaders: string(a.ResponseHeaders),
		ResponseBody: strings.ToValidUTF8(string(a.ResponseBody), "\uFFFD"), Truncated: a.ResponseTruncated, AckID: a.AckID,
		Final: a.Final, Replay: env.Replay, Resends: a.Resends, Node: a.Node, Source: env.Source.String(),
	}
	if !a.NextAttemptAt.IsZero() {
		at := a.NextAttemptAt.UTC()
		l.NextAttemptAt = &at
	}
	return l
}
