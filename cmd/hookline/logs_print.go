package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sink"
)

// What --as may be.
const (
	asTable         = "table"
	asJSON          = "json"
	asCotalker      = "cotalker"
	asWebhookCalled = "webhook_called"
	asSIGNL4        = "signl4"
	asTask          = "task"
)

// logShape narrows the log to what a shape is made of.
type logShape struct {
	format pipeline.Format
	types  string // what their names begin with
	spent  bool   // only tries that count
}

var logShapes = map[string]logShape{
	asTable:         {},
	asJSON:          {},
	asCotalker:      {format: pipeline.FormatCotalker, spent: true},
	asWebhookCalled: {format: pipeline.FormatGoflow, spent: true},
	asSIGNL4:        {format: pipeline.FormatSIGNL4, types: "signl."},
	asTask:          {format: pipeline.FormatTask},
}

// lateEvent is how long --follow waits for the event of a new attempt, which
// the sink may store a moment after it.
const lateEvent = 10 * time.Second

// bodiesAtOnce bounds the events that are in memory for a list of attempts.
const bodiesAtOnce = 200

// logSource is what sink.Reader has for the log.
type logSource interface {
	Tail(ctx context.Context, since time.Time) (*sink.Cursor, error)
	Attempts(ctx context.Context, f sink.Filter) iter.Seq2[*sink.AttemptRow, error]
	Events(ctx context.Context, at []pipeline.Position) (map[pipeline.Position]*sink.StoredEvent, error)
	Timeline(ctx context.Context, deliveries []string) ([]sink.TimelineRow, error)
}

// askError is an error of asking ClickHouse, and not of what became of the answer: a
// closed pipe on standard output looks like a closed connection.
type askError struct{ err error }

func (e *askError) Error() string { return e.err.Error() }
func (e *askError) Unwrap() error { return e.err }

// logPrinter prints attempts, a table's header once.
type logPrinter struct {
	c         *cli
	r         logSource
	as        string
	asJSON    bool
	follows   bool
	bodyBytes int // of a request in a dump
	header    bool
	late      []*sink.AttemptRow         // their events are not stored yet, or could not be read
	away      bool                       // ClickHouse does not answer, which was told
	back      time.Time                  // when it last answered again; zero: it was never away
	told      map[pipeline.Position]bool // with --follow --as task: events that were printed
}

// maxTold bounds what --follow remembers; an event that is forgotten may be
// printed again, with a later retry.
const maxTold = 10_000

func (p *logPrinter) follow(ctx context.Context, f sink.Filter, shown map[sink.LogPosition]bool) error {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := p.next(ctx, f, shown); err != nil {
			return err
		}
	}
}

// next prints what was stored since; that ClickHouse is away is told, and no error.
func (p *logPrinter) next(ctx context.Context, f sink.Filter, shown map[sink.LogPosition]bool) error {
	err := p.more(ctx, f, shown)
	if ctx.Err() != nil {
		return nil
	}
	if _, asking := errors.AsType[*askError](err); err != nil && !(asking && sink.Away(err)) {
		return err
	}
	p.tellAway(err)
	return nil
}

// more prints what was stored since. After an askError what was read and not printed is
// p.late.
func (p *logPrinter) more(ctx context.Context, f sink.Filter, shown map[sink.LogPosition]bool) error {
	rows := p.late
	p.late = nil
	var failed error
	for row, err := range p.r.Attempts(ctx, f) {
		if err != nil { // the cursor is behind those that came before it
			failed = &askError{err}
			break
		}
		if !shown[row.Log] {
			rows = append(rows, row)
		}
	}
	if failed == nil {
		clear(shown) // the cursor is behind all of them
	}
	if p.away || failed != nil {
		p.back = time.Now()
	}
	if err := p.print(ctx, rows); err != nil {
		return err
	}
	return failed
}

// tellAway says once that ClickHouse does not answer, and that it does again: who
// follows the log is not to begin anew for a restart of it.
func (p *logPrinter) tellAway(err error) {
	switch {
	case err != nil && !p.away:
		fmt.Fprintf(p.c.err, "hookline: following the log: %s (trying again)\n", safe(err.Error()))
	case err == nil && p.away:
		fmt.Fprintln(p.c.err, "hookline: following the log: ClickHouse answers again")
	}
	p.away = err != nil
}

func (p *logPrinter) print(ctx context.Context, rows []*sink.AttemptRow) error {
	switch p.as {
	case asTable:
		return p.table(rows)
	case asJSON:
		return p.json(rows)
	case asSIGNL4:
		return p.timelines(ctx, rows)
	}
	for first := true; first || len(rows) > 0; first = false {
		n := min(len(rows), bodiesAtOnce)
		events, err := p.r.Events(ctx, positions(rows[:n]))
		if err != nil {
			p.late = append(p.late, rows...)
			return &askError{err}
		}
		if err := p.shapes(rows[:n], events); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// shapes prints what needs the events' bodies.
func (p *logPrinter) shapes(rows []*sink.AttemptRow, events map[pipeline.Position]*sink.StoredEvent) error {
	rows = p.arrived(rows, events)
	switch p.as {
	case asCotalker:
		return p.cotalker(rows, events)
	case asWebhookCalled:
		return p.webhookCalled(rows, events)
	default:
		return p.changes(rows, events)
	}
}

func positions(rows []*sink.AttemptRow) []pipeline.Position {
	at := make([]pipeline.Position, len(rows))
	for i, row := range rows {
		at[i] = row.Envelope.Source
	}
	return at
}

// arrived gives the rows that may be printed: with --follow those wait, for a
// moment, whose event is not stored yet. The time in which ClickHouse was away, so that
// nobody could store it, is not part of the moment.
func (p *logPrinter) arrived(rows []*sink.AttemptRow, events map[pipeline.Position]*sink.StoredEvent) []*sink.AttemptRow {
	if !p.follows {
		return rows
	}
	var out []*sink.AttemptRow
	for _, row := range rows {
		since := row.StoredAt
		if since.Before(p.back) {
			since = p.back
		}
		if events[row.Envelope.Source] == nil && time.Since(since) < lateEvent {
			p.late = append(p.late, row)
			continue
		}
		out = append(out, row)
	}
	return out
}

func (p *logPrinter) json(rows []*sink.AttemptRow) error {
	for _, row := range rows {
		b, err := marshal(newLogLine(row))
		if err != nil {
			return err
		}
		if err := writeRawJSON(p.c.out, append(b, '\n')); err != nil {
			return err
		}
	}
	return nil
}

// marshal makes one line of JSON; headers need not be UTF-8.
func marshal(v any) ([]byte, error) {
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return b, nil
}

// line writes one object: on a terminal made harmless, else as it is.
func (p *logPrinter) line(b []byte) error {
	b = append(b, '\n')
	if telemetry.IsTerminal(p.c.out) {
		return writeRawJSON(p.c.out, b)
	}
	_, err := p.c.out.Write(b)
	return err
}

func (p *logPrinter) object(v any) error {
	b, err := marshal(v)
	if err != nil {
		return err
	}
	return p.line(b)
}

// rows writes a table, with its header where it is the first.
func (p *logPrinter) rows(header []string, t *table) error {
	if !p.header {
		t.header, p.header = header, true
	} else if len(t.rows) == 0 {
		return nil
	}
	return t.write(p.c.out)
}

func (p *logPrinter) table(rows []*sink.AttemptRow) error {
	var t table
	for _, row := range rows {
		a := &row.Attempt
		status := "-"
		if a.StatusCode != 0 {
			status = strconv.Itoa(a.StatusCode)
		}
		t.add(moment(a.StartedAt), cut(a.SubscriptionID, narrowCell), cut(a.Envelope.EventType, narrowCell),
			cut(a.Envelope.EventID, eventCell), strconv.Itoa(a.Attempt), a.Outcome.String(), status,
			strconv.FormatInt(a.Elapsed.Milliseconds(), 10), next(a))
	}
	return p.rows([]string{"STARTED", "SUBSCRIPTION", "EVENT TYPE", "EVENT", "TRY", "OUTCOME", "STATUS", "MS", "THEN"}, &t)
}

// moment is a time in a table.
func moment(at time.Time) string { return at.UTC().Format("2006-01-02T15:04:05.000Z") }
