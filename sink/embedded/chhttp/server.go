// Package chhttp serves ClickHouse's HTTP interface in front of an embedded engine,
// so that clickhouse-go, curl and the like talk to it as to a server.
//
// Each request gets a connection to the engine of its own, so that settings do
// not outlive it and a slow query holds nobody up but itself. Users, sessions and
// external tables are not supported; what is not supported is refused, never ignored.
package chhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
	"github.com/google/uuid"

	"github.com/hookline/hookline/sink/embedded/chdb"
)

// Config bounds what requests may cost. Zero values take the defaults.
type Config struct {
	// DataDir is the engine's data directory, which must exist.
	DataDir string
	// SpoolDir holds the rows of INSERTs where the library cannot stream them.
	SpoolDir string
	// MaxRequests is the number of queries under way at once; more wait up to
	// QueueTimeout and are then refused with code 202. Defaults to 32.
	MaxRequests int
	// QueueTimeout defaults to 10 s.
	QueueTimeout time.Duration
	// QueryTimeout is max_execution_time unless the query sets its own. Defaults to 5 minutes.
	QueryTimeout time.Duration
	// IOTimeout is how long a client may take to send or to take one piece. Defaults to 1 minute.
	IOTimeout time.Duration
	// MaxQueryBytes bounds a query's text (rows of an INSERT do not count). Defaults to 16 MiB.
	MaxQueryBytes int64
	// MaxInsertBytes bounds the rows of one INSERT, uncompressed. Defaults to 4 GiB.
	MaxInsertBytes int64
	// MaxHeldBytes bounds a result that must be held as a whole, because of its
	// format or of wait_end_of_query=1, in the engine's own form (as JSON it can be
	// ten times that). Others are streamed. Defaults to 64 MiB.
	MaxHeldBytes int64
	// MaxQueryMemory is max_memory_usage, in bytes, unless the query sets its own.
	// Defaults to 2 GiB.
	MaxQueryMemory int64
	// Log takes failures of the server's own; nil discards them.
	Log *slog.Logger
}

func (c *Config) setDefaults() {
	c.MaxRequests = orDefault(c.MaxRequests, 32)
	c.QueueTimeout = orDefault(c.QueueTimeout, 10*time.Second)
	c.QueryTimeout = orDefault(c.QueryTimeout, 5*time.Minute)
	c.IOTimeout = orDefault(c.IOTimeout, time.Minute)
	c.MaxQueryBytes = orDefault(c.MaxQueryBytes, 16<<20)
	c.MaxInsertBytes = orDefault(c.MaxInsertBytes, 4<<30)
	c.MaxHeldBytes = orDefault(c.MaxHeldBytes, 64<<20)
	c.MaxQueryMemory = orDefault(c.MaxQueryMemory, 2<<30)
	c.SpoolDir = first(c.SpoolDir, os.TempDir())
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func orDefault[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

// Server is an http.Handler over one engine.
type Server struct {
	cfg      Config
	lib      *chdb.Library
	base     *chdb.Conn    // keeps the engine alive; used by New and Close only
	slots    chan struct{} // one element per query under way; ServeHTTP puts and takes
	underway atomic.Int64  // requests inside ServeHTTP, those waiting included

	version  string
	timezone string
	name     string
	context  column.ServerContext
}

// New starts the engine on cfg.DataDir.
func New(lib *chdb.Library, cfg Config) (*Server, error) {
	cfg.setDefaults()
	base, err := lib.Connect("--path=" + cfg.DataDir)
	if err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, lib: lib, base: base, slots: make(chan struct{}, cfg.MaxRequests)}
	if err := s.identify(); err != nil {
		base.Close()
		return nil, fmt.Errorf("asking the ClickHouse engine for its version: %w", err)
	}
	return s, nil
}

func (s *Server) identify() error {
	result, err := s.base.Query("SELECT version(), timezone(), displayName()", "TabSeparated", nil)
	if err != nil {
		return err
	}
	defer result.Close()
	row, err := result.Next()
	if err != nil {
		return err
	}
	fields := strings.Split(strings.TrimSuffix(string(row), "\n"), "\t")
	if len(fields) != 3 {
		return fmt.Errorf("unexpected answer %q", row)
	}
	s.version, s.timezone, s.name = fields[0], fields[1], fields[2]
	v := proto.ParseVersion(s.version)
	s.context = column.ServerContext{VersionMajor: v.Major, VersionMinor: v.Minor, VersionPatch: v.Patch, Timezone: time.UTC}
	return nil
}

// Version is the engine's ClickHouse version, such as "26.5.1.1".
func (s *Server) Version() string { return s.version }

// UnderWay is the number of requests being served.
func (s *Server) UnderWay() int { return int(s.underway.Load()) }

// Close stops the engine. No request may be under way: shut the HTTP server down
// first. With requests that do not end, ending the process without Close is safe.
func (s *Server) Close() { s.base.Close() }

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/ping", "/replicas_status":
		_, _ = io.WriteString(w, "Ok.\n")
		return
	case "/", "/query":
	default:
		http.Error(w, "There is no handle "+r.URL.Path+"\n\nUse / or /ping for health checks.", http.StatusNotFound)
		return
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		if r.URL.RawQuery == "" {
			_, _ = io.WriteString(w, "Ok.\n")
			return
		}
	case http.MethodPost, http.MethodPut:
	default:
		writeException(w, newException(36, "Method "+r.Method+" is not supported", "BAD_ARGUMENTS"))
		return
	}
	s.underway.Add(1)
	defer s.underway.Add(-1)
	s.serve(w, r)
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	if err := s.enter(r.Context()); err != nil {
		writeException(w, asException(err))
		return
	}
	defer func() { <-s.slots }()
	control := http.NewResponseController(w)
	// Deadlines are the connection's, and it outlives this request.
	defer func() { _ = control.SetWriteDeadline(time.Time{}) }()
	r.Body = &deadlineBody{ReadCloser: r.Body, control: control, timeout: s.cfg.IOTimeout}
	req, err := readRequest(r)
	if err != nil {
		writeException(w, asException(err))
		return
	}
	defer req.closeBody()
	s.setHeaders(w, req)
	out := newReply(w, req, s.cfg.IOTimeout, s.cfg.MaxHeldBytes)
	if err := s.run(r.Context(), req, out); err != nil {
		var gone errGone
		if errors.As(err, &gone) {
			s.cfg.Log.Debug("client left before its reply was complete", "query_id", req.queryID, "error", err)
			panic(http.ErrAbortHandler) // the connection is of no more use
		}
		// A client still sending would see a broken connection instead of the error.
		_, _ = io.CopyN(io.Discard, r.Body, maxDrainBytes)
		out.fail(asException(err))
	}
}

// maxDrainBytes is how much of a refused request is read before the answer.
const maxDrainBytes = 64 << 20

// enter waits for a slot.
func (s *Server) enter(ctx context.Context) error {
	select {
	case s.slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(s.cfg.QueueTimeout)
	defer timer.Stop()
	select {
	case s.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
	case <-timer.C:
	}
	return newException(202, fmt.Sprintf("Too many simultaneous queries. Maximum: %d", s.cfg.MaxRequests), "TOO_MANY_SIMULTANEOUS_QUERIES")
}

func (s *Server) setHeaders(w http.ResponseWriter, req *request) {
	if req.queryID == "" || strings.ContainsAny(req.queryID, "\r\n") {
		req.queryID = uuid.NewString()
	}
	h := w.Header()
	h.Set("X-ClickHouse-Query-Id", req.queryID)
	h.Set("X-ClickHouse-Server-Display-Name", s.name)
	h.Set("X-ClickHouse-Timezone", s.timezone)
}

func (s *Server) run(ctx context.Context, req *request, out *reply) error {
	head, all, err := req.head()
	if err != nil {
		return err
	}
	st, err := parseStatement(string(head))
	if err != nil && !(errors.Is(err, errMultiStatement) && !all) {
		return err
	}
	conn, err := s.lib.Connect("--path=" + s.cfg.DataDir)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := s.prepare(conn, req, st); err != nil {
		return err
	}
	if st.insert != nil {
		return s.insert(conn, req, st, out)
	}
	return s.query(ctx, conn, req, out)
}

// prepare sets the session up: database, then settings, read-only last.
func (s *Server) prepare(conn *chdb.Conn, req *request, st statement) error {
	if req.database != "" && req.database != "default" {
		if err := conn.Exec("USE " + quoteName(req.database)); err != nil {
			return err
		}
	}
	req.mark = "hookline-engine-" + uuid.NewString()
	// First, so that the request's own settings win.
	set := []string{
		fmt.Sprintf("max_execution_time = %g", s.cfg.QueryTimeout.Seconds()),
		fmt.Sprintf("max_memory_usage = %d", s.cfg.MaxQueryMemory),
		"log_comment = " + quoteString(req.mark),
	}
	for _, setting := range req.settings {
		set = append(set, setting.Name+" = "+quoteString(setting.Value))
	}
	if st.insert != nil { // the library binds no parameters to an INSERT's head by itself
		for _, param := range req.params {
			set = append(set, "param_"+param.Name+" = "+quoteString(param.Value))
		}
	}
	if req.readOnly && !has(req.settings, "readonly") {
		set = append(set, "readonly = 2")
	}
	return conn.Exec("SET " + strings.Join(set, ", "))
}

// killWith ends the query marked so when ctx ends: its client has left, or the
// server is stopping. The library itself can only cancel between two pieces. The
// function it returns must be called at the query's end and waits for all this.
func (s *Server) killWith(ctx context.Context, mark string) func() {
	killed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(killed)
		conn, err := s.lib.Connect("--path=" + s.cfg.DataDir)
		if err == nil {
			defer conn.Close()
			err = conn.Exec("KILL QUERY WHERE Settings['log_comment'] = " + quoteString(mark) + " ASYNC")
		}
		if err != nil {
			s.cfg.Log.Warn("ending a query whose client has left", "error", err)
		}
	})
	return func() {
		if !stop() {
			<-killed
		}
	}
}

func has(settings []chdb.Param, name string) bool {
	for _, s := range settings {
		if s.Name == name {
			return true
		}
	}
	return false
}

// insert streams the rows of the body into an INSERT.
func (s *Server) insert(conn *chdb.Conn, req *request, st statement, out *reply) error {
	if req.readOnly {
		return newException(164, "Cannot execute query in readonly mode. For queries over HTTP, method GET implies readonly. You should use method POST for modifying queries", "READONLY")
	}
	if _, err := req.body.Discard(st.data); err != nil {
		return fmt.Errorf("reading the request's body: %w", err)
	}
	in, err := conn.Insert(*st.insert, s.cfg.SpoolDir)
	if err != nil {
		return err
	}
	defer in.Cancel()
	n, err := io.Copy(in, io.LimitReader(req.body, s.cfg.MaxInsertBytes+1))
	switch {
	case errors.Is(err, chdb.ErrRefused): // Commit says why
	case err != nil:
		return fmt.Errorf("reading the rows of an INSERT: %w", err)
	case n > s.cfg.MaxInsertBytes:
		return newException(307, fmt.Sprintf("The rows of the INSERT are over %d bytes", s.cfg.MaxInsertBytes), "TOO_MANY_BYTES")
	}
	rows, err := in.Commit()
	if err != nil {
		return err
	}
	out.w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"0","read_bytes":"0","written_rows":"%d","written_bytes":"%d"}`, rows, n))
	return out.finish("TabSeparated")
}

// query runs anything else and sends its result.
func (s *Server) query(ctx context.Context, conn *chdb.Conn, req *request, out *reply) error {
	text, err := req.text(s.cfg.MaxQueryBytes)
	if err != nil {
		return err
	}
	st, err := parseStatement(text)
	if err != nil {
		return err
	}
	defer s.killWith(ctx, req.mark)()
	format := first(st.format, req.format, "TabSeparated")
	result, err := s.start(conn, text, format, req.params)
	if err != nil {
		return err
	}
	defer result.Close()
	transcode := func(piece []byte) ([]byte, error) { return piece, nil }
	if strings.EqualFold(format, "Native") && req.revision > 0 {
		transcode = (&transcoder{revision: req.revision, server: s.context}).transcode
	}
	for {
		piece, err := result.Next()
		if err != nil {
			return err
		}
		if piece == nil {
			return out.finish(format)
		}
		if piece, err = transcode(piece); err != nil {
			return err
		}
		if err := out.write(piece, format); err != nil {
			return err
		}
	}
}

// streamable are the formats whose pieces, put one behind the other, are the
// whole: no header, no footer, nothing between rows. Native counts as such.
var streamable = map[string]bool{
	"native": true, "tabseparated": true, "tsv": true, "tabseparatedraw": true, "tsvraw": true, "csv": true,
	"jsoneachrow": true, "ndjson": true, "jsonlines": true, "jsonstringseachrow": true, "jsoncompacteachrow": true,
	"jsoncompactstringseachrow": true, "rowbinary": true, "tskv": true, "msgpack": true, "rawblob": true,
}

func (s *Server) start(conn *chdb.Conn, text, format string, params []chdb.Param) (*chdb.Result, error) {
	if streamable[strings.ToLower(format)] {
		return conn.Stream(text, format, params)
	}
	err := conn.Exec(fmt.Sprintf("SET max_result_bytes = %d, result_overflow_mode = 'throw'", s.cfg.MaxHeldBytes))
	if err != nil && !strings.Contains(err.Error(), "(READONLY)") {
		return nil, err
	}
	return conn.Query(text, format, params)
}

// deadlineBody gives the client a while for each read instead of for all of them.
type deadlineBody struct {
	io.ReadCloser
	control *http.ResponseController
	timeout time.Duration
}

func (b *deadlineBody) Read(p []byte) (int, error) {
	_ = b.control.SetReadDeadline(time.Now().Add(b.timeout))
	n, err := b.ReadCloser.Read(p)
	if err != nil { // the next read is the server's, for the next request
		_ = b.control.SetReadDeadline(time.Time{})
	}
	return n, err
}
