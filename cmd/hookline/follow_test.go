package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sink"
)

// fakeLog answers each question with what is set.
type fakeLog struct {
	rows                     []*sink.AttemptRow
	attempts, events, alerts error // attempts: after the rows
}

func (*fakeLog) Tail(context.Context, time.Time) (*sink.Cursor, error) { return &sink.Cursor{}, nil }

func (l *fakeLog) Attempts(context.Context, sink.Filter) iter.Seq2[*sink.AttemptRow, error] {
	return func(yield func(*sink.AttemptRow, error) bool) {
		for _, row := range l.rows {
			if !yield(row, nil) {
				return
			}
		}
		if l.attempts != nil {
			yield(nil, l.attempts)
		}
	}
}

func (l *fakeLog) Events(context.Context, []pipeline.Position) (map[pipeline.Position]*sink.StoredEvent, error) {
	return nil, l.events
}

func (l *fakeLog) Timeline(context.Context, []string) ([]sink.TimelineRow, error) {
	return nil, l.alerts
}

func logRow(offset int64, storedAt time.Time) *sink.AttemptRow {
	row := &sink.AttemptRow{Log: sink.LogPosition{Offset: offset}, StoredAt: storedAt}
	row.Envelope = &pipeline.Envelope{EventID: fmt.Sprintf("e%d", offset), Source: pipeline.Position{Topic: "t", Offset: offset}}
	return row
}

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, syscall.EPIPE }

var errCut = fmt.Errorf("reading attempts: %w", &net.OpError{Op: "read", Err: syscall.ECONNRESET})

// An outage is waited for, whatever is asked; an error of the answer, and of standard
// output, which may be the same one, ends it.
func TestFollowEndsWithWhatDoesNotPass(t *testing.T) {
	old := time.Unix(0, 0)
	strange := errors.New("converting UInt64 to *string is unsupported")
	for name, tt := range map[string]struct {
		as   string
		log  fakeLog
		out  io.Writer
		want error
	}{
		"attempts":  {asJSON, fakeLog{attempts: errCut}, io.Discard, nil},
		"events":    {asCotalker, fakeLog{rows: []*sink.AttemptRow{logRow(1, old)}, events: errCut}, io.Discard, nil},
		"timelines": {asSIGNL4, fakeLog{rows: []*sink.AttemptRow{logRow(1, old)}, alerts: errCut}, io.Discard, nil},
		"a proxy":   {asJSON, fakeLog{attempts: &clickhouse.HTTPError{StatusCode: 502, Err: errors.New("Bad Gateway")}}, io.Discard, nil},
		"cancelled": {asJSON, fakeLog{attempts: &clickhouse.Exception{Code: 394}}, io.Discard, nil},
		"scanning":  {asJSON, fakeLog{attempts: strange}, io.Discard, strange},
		"table":     {asTable, fakeLog{rows: []*sink.AttemptRow{logRow(1, old)}}, brokenPipe{}, syscall.EPIPE},
		"json":      {asJSON, fakeLog{rows: []*sink.AttemptRow{logRow(1, old)}}, brokenPipe{}, syscall.EPIPE},
		"bodies":    {asCotalker, fakeLog{rows: []*sink.AttemptRow{logRow(1, old)}}, brokenPipe{}, syscall.EPIPE},
	} {
		p := &logPrinter{c: &cli{out: tt.out, err: io.Discard}, r: &tt.log, as: tt.as, follows: true}
		if err := p.next(t.Context(), sink.Filter{}, map[sink.LogPosition]bool{}); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", name, err, tt.want)
		}
		if p.away != (tt.want == nil) {
			t.Errorf("%s: told to be away: %v", name, p.away)
		}
	}
}

// What the list before has shown does not come again, be the first reads cut; nor does
// what was printed of them.
func TestFollowShowsARowOnce(t *testing.T) {
	var out bytes.Buffer
	log := &fakeLog{rows: []*sink.AttemptRow{logRow(3, time.Unix(0, 0))}, attempts: errCut}
	p := &logPrinter{c: &cli{out: &out, err: io.Discard}, r: log, as: asJSON, follows: true}
	shown := map[sink.LogPosition]bool{{Offset: 1}: true, {Offset: 2}: true}
	next := func() {
		t.Helper()
		if err := p.next(t.Context(), sink.Filter{}, shown); err != nil {
			t.Fatal(err)
		}
	}
	next()
	log.rows, log.attempts = []*sink.AttemptRow{logRow(1, time.Unix(0, 0)), logRow(2, time.Unix(0, 0)), logRow(4, time.Unix(0, 0))}, nil
	next()
	if lines := strings.Count(out.String(), "\n"); lines != 2 || !strings.Contains(out.String(), `"e3"`) || !strings.Contains(out.String(), `"e4"`) {
		t.Errorf("want e3 and e4:\n%s", out.String())
	}
	if len(shown) != 0 {
		t.Errorf("%d are remembered after a whole read", len(shown))
	}
}

// An event may be stored as long after an outage as after its attempt.
func TestFollowWaitsForEventsAfterAnOutage(t *testing.T) {
	row := logRow(1, time.Unix(0, 0))
	log := &fakeLog{attempts: errCut}
	p := &logPrinter{c: &cli{out: io.Discard, err: io.Discard}, r: log, as: asCotalker, follows: true}
	if got := p.arrived([]*sink.AttemptRow{row}, nil); len(got) != 1 || p.late != nil {
		t.Errorf("without an outage: %d to print, %d wait", len(got), len(p.late))
	}
	for _, err := range []error{errCut, nil} {
		log.attempts = err
		if err := p.next(t.Context(), sink.Filter{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if p.away || p.back.IsZero() {
		t.Fatalf("away %v, back %v", p.away, p.back)
	}
	p.back = p.back.Add(time.Hour) // however slow the machine is
	if got := p.arrived([]*sink.AttemptRow{row}, nil); len(got) != 0 || len(p.late) != 1 {
		t.Errorf("after an outage: %d to print, %d wait", len(got), len(p.late))
	}
}

// What ClickHouse itself says is not asked about.
func TestRemedyOfAnswers(t *testing.T) {
	for text, asks := range map[string]bool{
		"pinging: [HTTP 405] Method Not Allowed":                                                true,
		"pinging: Code: 291. DB::Exception: Cannot access database x. (DATABASE_ACCESS_DENIED)": false,
	} {
		err := withRemedy(&clickhouse.HTTPError{StatusCode: 500, Err: errors.New(text)})
		if strings.Contains(err.Error(), "is that ClickHouse?") != asks {
			t.Errorf("%v", err)
		}
	}
}
