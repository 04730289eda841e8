package sink

import (
	"bytes"
	"context"
	"crypto/tls"
	sqldriver "database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	clickhouse "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/hookline/hookline/internal/cafile"
	"github.com/hookline/hookline/internal/failpoint"
)

const (
	dialTimeout = 5 * time.Second
	// maxErrorText of an error that ClickHouse gave: it quotes whole statements.
	maxErrorText = 400
)

// insertSettings of every insert besides its token: the block must reach the
// table as the one block that it is, and its token must hold in the views too.
const insertSettings = "async_insert = 0, insert_deduplicate = 1, deduplicate_blocks_in_dependent_materialized_views = 1, max_partitions_per_insert_block = 0"

// server is a ClickHouse, as the sink and the reader see it.
type server struct {
	db   string
	http bool
	conn driver.Conn
}

// openServer prepares connections; none is made before the first statement.
func openServer(cfg *Config, conns int) (*server, error) {
	t, err := cfg.target()
	if err != nil {
		return nil, err
	}
	opts := &clickhouse.Options{
		Protocol:     clickhouse.Native,
		Addr:         []string{t.host},
		Auth:         clickhouse.Auth{Username: cfg.User, Password: string(cfg.Password)},
		DialTimeout:  dialTimeout,
		ReadTimeout:  cfg.InsertTimeout,
		MaxOpenConns: conns,
		MaxIdleConns: conns,
		HttpUrlPath:  t.path,
	}
	if t.http {
		opts.Protocol = clickhouse.HTTP
		opts.TransportFunc = func(t *http.Transport) (http.RoundTripper, error) { return &framed{t}, nil }
	} else {
		opts.Compression = &clickhouse.Compression{Method: clickhouse.CompressionLZ4}
	}
	if t.tls {
		if opts.TLS, err = cfg.tls(t.host); err != nil {
			return nil, err
		}
	}
	// No database here: the first statement is the one that creates it.
	conn, err := clickhouse.Open(opts)
	if err != nil {
		return nil, fmt.Errorf("opening ClickHouse at %s: %w", t.host, briefly(err))
	}
	return &server{db: cfg.Database, http: t.http, conn: conn}, nil
}

// CheckFiles reads the file that the configuration names, as the start does.
func (c *Config) CheckFiles() error {
	t, err := c.target()
	if err != nil || !t.tls {
		return err
	}
	_, err = c.tls(t.host)
	return err
}

// tls verifies the server's certificate, by the name that it is reached by.
func (c *Config) tls(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = strings.Trim(addr, "[]")
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host}
	if c.CAFile == "" {
		return out, nil
	}
	if out.RootCAs, err = cafile.Read("HOOKLINE_CLICKHOUSE_CA_FILE", c.CAFile); err != nil {
		return nil, err
	}
	return out, nil
}

// exec runs a statement without a result.
func (s *server) exec(ctx context.Context, sql string) error {
	return briefly(s.conn.Exec(ctx, sql))
}

// insert sends b, which is encoded, as one block with this token.
func (s *server) insert(ctx context.Context, b *block, token string) error {
	sql := "INSERT INTO " + s.db + "." + b.table + " " + b.names + " SETTINGS " + insertSettings + ", insert_deduplication_token = '" + token + "'"
	var err error
	if s.http {
		err = s.conn.InsertFormat(context.WithValue(ctx, framedBody{}, true), "Native", sql, insertBody(b))
	} else {
		err = insertRows(ctx, s.conn, b, sql)
	}
	if err != nil {
		return fmt.Errorf("inserting %d rows into %s.%s: %w", b.rows, s.db, b.table, briefly(err))
	}
	return nil
}

// insertBody is what is sent of a block.
func insertBody(b *block) io.Reader {
	body := bytes.NewReader(b.frames.body)
	if failpoint.Enabled && b.table == tableAttempts {
		return failpoint.Halfway(failpoint.BlockInserting, body, len(b.frames.body))
	}
	return body
}

// framed tells ClickHouse that the body of an insert is in its own compressed
// frames. InsertFormat sends bytes as they are and has no option for it, and a
// setting of the context would also reach the handshake of a new connection.
type framed struct{ *http.Transport }

// framedBody is the context key by which insert tells RoundTrip.
type framedBody struct{}

// RoundTrip adds decompress=1 to inserts, which alone have their statement in
// the URL.
func (f *framed) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Context().Value(framedBody{}) != nil && strings.Contains(req.URL.RawQuery, "query=INSERT") {
		req = req.Clone(req.Context())
		req.URL.RawQuery += "&decompress=1"
	}
	return f.Transport.RoundTrip(req)
}

// insertRows is the way without InsertFormat, which the native protocol lacks.
func insertRows(ctx context.Context, conn driver.Conn, b *block, sql string) error {
	batch, err := conn.PrepareBatch(ctx, sql)
	if err != nil {
		return err
	}
	defer batch.Close()
	var values []any
	for i := range b.rows {
		values = b.row(i, values[:0])
		if err := batch.Append(values...); err != nil {
			return err
		}
	}
	return batch.Send()
}

func (s *server) close() error { return s.conn.Close() }

// repetitions in ClickHouse's words about an error, such as of a format that it
// does not know: "[HTTP 404] Code: 73. DB::Exception: Code: 73. DB::Exception: Unknown
// format X. (UNKNOWN_FORMAT) (version 26.7.2.1). (UNKNOWN_FORMAT)".
var repetitions = []struct {
	what *regexp.Regexp
	with string
}{
	{regexp.MustCompile(`\[HTTP \d+\] (Code: \d)`), "$1"},
	{regexp.MustCompile(`(?:Code: \d+\. DB::Exception: )+(Code: \d+\. DB::Exception: )`), "$1"},
	{regexp.MustCompile(` \(version [^()]*(?:\([^()]*\))?\)`), ""},
	{regexp.MustCompile(`( \([A-Z_]+\))(?:\.? \([A-Z_]+\))+`), "$1"},
}

// briefly cuts what a client's error has too much of: the URL with the whole
// statement, and quotations by the server. errors.Is and As still work.
func briefly(err error) error {
	if err == nil {
		return nil
	}
	if m := missingOf(err); m != nil {
		return m
	}
	text := err.Error()
	var ue *url.Error
	if errors.As(err, &ue) && !strings.Contains(ue.Err.Error(), ue.URL) {
		text = ue.Err.Error()
	}
	if errors.Is(err, clickhouse.ErrAcquireConnTimeout) { // which the client takes for too few connections
		text = fmt.Sprintf("no answer in %v", dialTimeout)
	}
	text = strings.Join(strings.Fields(text), " ")
	for _, r := range repetitions {
		text = r.what.ReplaceAllString(text, r.with)
	}
	if len(text) > maxErrorText {
		text = strings.ToValidUTF8(text[:maxErrorText], "") + "..."
	}
	return &briefError{text: text, err: err}
}

type briefError struct {
	text string
	err  error
}

func (e *briefError) Error() string { return e.text }
func (e *briefError) Unwrap() error { return e.err }

// Unreachable tells whether err says that ClickHouse could not be reached, and
// not that it answered with an error.
func Unreachable(err error) bool {
	var answer *clickhouse.Exception
	var status *clickhouse.HTTPError
	return err != nil && !errors.As(err, &answer) && !errors.As(err, &status)
}

// Away tells whether err, which a question to ClickHouse ended with, says that the same
// question may be answered later: the connection could not be made or was cut, a proxy
// says that nothing is behind it, or the query was ended together with the server.
func Away(err error) bool {
	var answer *clickhouse.Exception
	var status *clickhouse.HTTPError
	switch {
	case errors.As(err, &answer) && slices.Contains(endingCodes, answer.Code):
		return true
	case errors.As(err, &status) && slices.Contains(proxyStatuses, status.StatusCode):
		return true
	case !Unreachable(err):
		return false
	}
	var network net.Error // url.Error of HTTP, and syscall.Errno, are ones
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) ||
		errors.Is(err, sqldriver.ErrBadConn) || errors.Is(err, clickhouse.ErrAcquireConnTimeout)
}

// endingCodes: NETWORK_ERROR, ABORTED, QUERY_WAS_CANCELLED; source: ClickHouse,
// src/Common/ErrorCodes.cpp.
var endingCodes = []int32{210, 236, 394}

// proxyStatuses are a proxy's words for a server that it does not reach.
var proxyStatuses = []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout}

// Refused tells whether err says that ClickHouse refused the login: what else
// answers where it should be says something else.
func Refused(err error) bool {
	var answer *clickhouse.Exception
	var status *clickhouse.HTTPError
	return errors.As(err, &answer) && slices.Contains(loginCodes, answer.Code) ||
		errors.As(err, &status) && (status.StatusCode == http.StatusUnauthorized || status.StatusCode == http.StatusForbidden)
}

// loginCodes: UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, AUTHENTICATION_FAILED;
// source: ClickHouse, src/Common/ErrorCodes.cpp.
var loginCodes = []int32{192, 193, 194, 516}
