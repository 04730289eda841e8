package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// maxAnswer of ClickHouse's text about an error that is read.
const maxAnswer = 64 << 10

// formatName keeps a format from carrying SQL.
var formatName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`)

// Query runs any statement in hookline's database and gives its result in a
// format of ClickHouse's, unless the statement names one. Over http the server
// formats, and an error comes before the first byte. Over tcp the formats are
// JSONEachRow, CSV and TabSeparated, for statements that give rows. Close the
// result.
func (r *Reader) Query(ctx context.Context, sql, format string) (io.ReadCloser, error) {
	if !formatName.MatchString(format) {
		return nil, fmt.Errorf("querying ClickHouse: %q is not a format (JSONEachRow, PrettyCompact, CSV, ...)", format)
	}
	if !r.target.http {
		return r.queryNative(ctx, sql, format)
	}
	u := r.target.url()
	// wait_end_of_query: the server keeps the result until it is whole, so that a
	// failure half-way is an error and not a cut result.
	u.RawQuery = url.Values{"database": {r.cfg.Database}, "default_format": {format}, "wait_end_of_query": {"1"}}.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), strings.NewReader(sql))
	if err != nil {
		return nil, fmt.Errorf("querying ClickHouse: %w", err)
	}
	req.Header.Set("X-ClickHouse-User", r.cfg.User)
	if r.cfg.Password != "" {
		req.Header.Set("X-ClickHouse-Key", string(r.cfg.Password))
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("querying ClickHouse at %s: %w", r.target.host, briefly(err))
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, fmt.Errorf("querying ClickHouse at %s: HTTP %d: %w", r.target.host, resp.StatusCode, err)
	}
	answer := &clickhouse.HTTPError{StatusCode: resp.StatusCode, Err: errors.New(strings.TrimSpace(string(text)))}
	return nil, fmt.Errorf("querying ClickHouse: %w", briefly(answer))
}

// rowFormats are those that ClickHouse can make row by row.
var rowFormats = map[string]bool{"JSONEachRow": true, "CSV": true, "TabSeparated": true, "TSV": true}

// queryNative lets the server format each row: the native protocol has no
// formats of its own.
func (r *Reader) queryNative(ctx context.Context, sql, format string) (io.ReadCloser, error) {
	if !rowFormats[format] {
		return nil, fmt.Errorf("querying ClickHouse over tcp://: format %s needs the HTTP interface (set HOOKLINE_CLICKHOUSE_ADDR to http://host:8123, or ask for JSONEachRow, CSV or TabSeparated)", format)
	}
	rows, err := r.server.conn.Query(ctx, "SELECT formatRow('"+format+"', *) FROM ("+strings.TrimRight(sql, "; \n\t")+"\n)")
	if err != nil {
		return nil, fmt.Errorf("querying ClickHouse at %s: %w", r.target.host, briefly(err))
	}
	return &rowStream{rows: rows}, nil
}

// rowStream reads formatted rows one after another.
type rowStream struct {
	rows driver.Rows
	rest string
}

// Read gives the text of the rows.
func (s *rowStream) Read(p []byte) (int, error) {
	for s.rest == "" {
		if !s.rows.Next() {
			if err := s.rows.Err(); err != nil {
				return 0, fmt.Errorf("querying ClickHouse: %w", briefly(err))
			}
			return 0, io.EOF
		}
		if err := s.rows.Scan(&s.rest); err != nil {
			return 0, fmt.Errorf("querying ClickHouse: %w", briefly(err))
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Close ends the query.
func (s *rowStream) Close() error { return s.rows.Close() }
