package sink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// maxAnswer of ClickHouse's text about an error that is read.
const maxAnswer = 64 << 10

// formatName keeps a format from carrying SQL.
var formatName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*$`)

// CheckFormat tells whether format has the form of a name of ClickHouse's.
func CheckFormat(format string) error {
	if !formatName.MatchString(format) {
		return fmt.Errorf("%q is not a format (JSONEachRow, PrettyCompact, CSV, ...)", format)
	}
	return nil
}

// ErrReadOnly says that a statement would change something: Query only reads.
var ErrReadOnly = errors.New("the statement changes something, and only reading is allowed")

// ErrNoStatement says that no statement begins with such a word.
var ErrNoStatement = errors.New("no statement begins so (SELECT, WITH, SHOW, DESCRIBE, EXPLAIN, ...)")

// ClickHouse's words about a user who may only read and may not even say so.
const (
	codeReadOnly    = 164 // READONLY; source: ClickHouse, src/Common/ErrorCodes.cpp
	alreadyReadOnly = "Cannot modify 'readonly' setting in readonly mode"
)

// readingWords are those that statements begin with that only read. ClickHouse's
// readonly=2 lets some through that do more (SYSTEM STOP MERGES, KILL QUERY).
var readingWords = []string{"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "CHECK", "SET", "USE", "VALUES"}

// changingWords are those that statements begin with that change something; a word
// that is of neither kind is misspelt.
var changingWords = []string{
	"ALTER", "ANALYZE", "ATTACH", "BACKUP", "BEGIN", "COMMIT", "COPY", "CREATE", "DELETE", "DETACH", "DROP", "EXCHANGE", "EXECUTE", "EXTERNAL", "GRANT", "INSERT",
	"KILL", "MOVE", "OPTIMIZE", "PARALLEL", "RENAME", "REPLACE", "RESTORE", "REVOKE", "ROLLBACK", "SYSTEM", "TRUNCATE", "UNDROP", "UPDATE", "UNLOCK", "WATCH",
}

// opening is what may stand before a statement's first word: white space, comments
// and brackets.
var opening = regexp.MustCompile(`^(?:[\s(;]|--[^\n]*(?:\n|$)|#[ !][^\n]*(?:\n|$)|/\*(?s:.*?)\*/)*`)

// reads is nil where sql begins as a statement that only reads does; else ErrReadOnly,
// or ErrNoStatement with the word.
func reads(sql string) error {
	rest := sql[len(opening.FindString(sql)):]
	word := rest
	if end := strings.IndexFunc(rest, func(r rune) bool { return r != '_' && !unicode.IsLetter(r) }); end >= 0 {
		word = rest[:end]
	}
	switch upper := strings.ToUpper(word); {
	case word == "" || slices.Contains(readingWords, upper):
		return nil
	case slices.Contains(changingWords, upper):
		return ErrReadOnly
	}
	return fmt.Errorf("%.40q: %w", word, ErrNoStatement)
}

// Query runs a statement that reads in hookline's database and gives its result in
// a format of ClickHouse's, unless the statement names one; ErrReadOnly where it
// would change something, ErrNoStatement where it is none. Over http the server
// formats, and an error comes before the first byte. Over tcp the formats are
// JSONEachRow, CSV and TabSeparated, for statements that give rows. Close the result.
func (r *Reader) Query(ctx context.Context, sql, format string) (io.ReadCloser, error) {
	if err := CheckFormat(format); err != nil {
		return nil, fmt.Errorf("querying ClickHouse: %w", err)
	}
	if err := reads(sql); err != nil {
		return nil, fmt.Errorf("querying ClickHouse: %w", err)
	}
	if !r.target.http {
		return r.queryNative(ctx, sql, format)
	}
	// 2: what changes data, tables, users or the server is refused; settings may be
	// set, but this one.
	result, err := r.post(ctx, sql, format, url.Values{"readonly": {"2"}})
	if err != nil && strings.Contains(err.Error(), alreadyReadOnly) && !strings.Contains(strings.ToLower(sql), "readonly") {
		return r.post(ctx, sql, format, nil) // a user of whom it is so anyway
	}
	return result, err
}

// Execute is Query for any statement, also one that changes something. It needs
// http.
func (r *Reader) Execute(ctx context.Context, sql, format string) (io.ReadCloser, error) {
	if err := CheckFormat(format); err != nil {
		return nil, fmt.Errorf("querying ClickHouse: %w", err)
	}
	if !r.target.http {
		return nil, errors.New("changing something in ClickHouse over tcp://: that needs the HTTP interface (set HOOKLINE_CLICKHOUSE_ADDR to http://host:8123)")
	}
	return r.post(ctx, sql, format, nil)
}

func (r *Reader) post(ctx context.Context, sql, format string, settings url.Values) (io.ReadCloser, error) {
	u := r.target.url()
	// wait_end_of_query: the server keeps the result until it is whole, so that a
	// failure half-way is an error and not a cut result.
	params := url.Values{"database": {r.cfg.Database}, "default_format": {format}, "wait_end_of_query": {"1"}}
	maps.Copy(params, settings)
	u.RawQuery = params.Encode()
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
	if resp.Header.Get("X-ClickHouse-Exception-Code") == strconv.Itoa(codeReadOnly) {
		return nil, fmt.Errorf("querying ClickHouse: %w: %w", ErrReadOnly, briefly(answer))
	}
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
