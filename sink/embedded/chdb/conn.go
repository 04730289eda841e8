package chdb

import (
	"errors"
	"runtime"
	"strings"
	"unsafe"
)

// Conn is one connection: a session with its own settings and current database.
// It runs one statement at a time and must not be used by two goroutines at once.
type Conn struct {
	lib    *Library
	handle unsafe.Pointer // chdb_connection*, for closing
	conn   unsafe.Pointer // chdb_connection, for everything else
	busy   bool           // a Result or an Insert is open
}

// Param is a named query parameter, {name:Type} in the statement. The value is
// text in ClickHouse's escaped form (as param_name over HTTP), never put into the SQL.
type Param struct{ Name, Value string }

// Error is what the engine said, "Code: 60. DB::Exception: ...".
type Error struct{ Text string }

func (e *Error) Error() string { return e.Text }

// Connect opens a connection (0.2 ms once the engine runs). The first one starts
// the engine, with args as clickhouse-local takes them ("--path=DIR"); later ones
// must name the same path. When the last one is closed the engine stops.
func (l *Library) Connect(args ...string) (*Conn, error) {
	argv := make([]unsafe.Pointer, 0, len(args)+2)
	for _, arg := range append([]string{"clickhouse"}, args...) {
		argv = append(argv, unsafe.Pointer(unsafe.StringData(arg+"\x00")))
	}
	argv = append(argv, nil)
	handle := l.fn.connect(int32(len(argv)-1), unsafe.Pointer(unsafe.SliceData(argv)))
	runtime.KeepAlive(argv)
	if handle == nil {
		return nil, errors.New("opening the ClickHouse engine: it gave no reason (is the data directory readable, writable and written by this version or an older one?)")
	}
	return &Conn{lib: l, handle: handle, conn: *(*unsafe.Pointer)(handle)}, nil
}

// Close ends the session; an open Result or Insert must be closed first.
func (c *Conn) Close() {
	if c.handle == nil {
		return
	}
	c.lib.fn.closeConn(c.handle)
	c.handle, c.conn = nil, nil
}

// Exec runs a statement of which no result is wanted, such as SET or USE.
func (c *Conn) Exec(query string) error {
	result, err := c.Query(query, "Null", nil)
	if err != nil {
		return err
	}
	result.Close()
	return nil
}

// Query runs a statement and holds its whole result in memory.
func (c *Conn) Query(query, format string, params []Param) (*Result, error) {
	handle, err := c.run(c.lib.fn.query, query, format, params)
	if err != nil {
		return nil, err
	}
	return &Result{conn: c, piece: handle, whole: true}, nil
}

// notStreamable is how the library refuses to stream anything but a SELECT. The
// statement has not run then.
const notStreamable = "Streaming query is not supported"

// Stream runs a statement whose result is then handed out piece by piece, so
// that memory holds one piece at a time. Each piece is formatted for itself: the
// format must be one of which pieces can be put one behind the other (Native,
// TabSeparated, JSONEachRow, ...). What cannot be streamed goes by Query.
func (c *Conn) Stream(query, format string, params []Param) (*Result, error) {
	handle, err := c.run(c.lib.fn.stream, query, format, params)
	if err != nil {
		if strings.Contains(err.Error(), notStreamable) {
			return c.Query(query, format, params)
		}
		return nil, err
	}
	return &Result{conn: c, handle: handle}, nil
}

func (c *Conn) run(statement statementFunc, query, format string, params []Param) (unsafe.Pointer, error) {
	if err := c.free(); err != nil {
		return nil, err
	}
	p := encodeParams(params)
	handle := statement(c.conn, stringPointer(query), uintptr(len(query)), stringPointer(format), uintptr(len(format)),
		unsafe.Pointer(unsafe.SliceData(p.names)), unsafe.Pointer(unsafe.SliceData(p.nameLens)),
		unsafe.Pointer(unsafe.SliceData(p.values)), unsafe.Pointer(unsafe.SliceData(p.valueLens)), uintptr(len(params)))
	runtime.KeepAlive(p)
	runtime.KeepAlive(query)
	runtime.KeepAlive(format)
	if handle == nil {
		return nil, errors.New("running a statement: the engine gave neither a result nor a reason")
	}
	if err := c.lib.err(handle); err != nil {
		c.lib.fn.destroy(handle)
		return nil, err
	}
	c.busy = true
	return handle, nil
}

func (c *Conn) free() error {
	switch {
	case c.handle == nil:
		return errors.New("using a connection to the ClickHouse engine: it is closed")
	case c.busy:
		return errors.New("using a connection to the ClickHouse engine: a statement is under way on it")
	}
	return nil
}

type encodedParams struct {
	names, values       []unsafe.Pointer
	nameLens, valueLens []uintptr
}

func encodeParams(params []Param) encodedParams {
	var e encodedParams
	for _, p := range params {
		e.names, e.nameLens = append(e.names, stringPointer(p.Name)), append(e.nameLens, uintptr(len(p.Name)))
		e.values, e.valueLens = append(e.values, stringPointer(p.Value)), append(e.valueLens, uintptr(len(p.Value)))
	}
	return e
}

// stringPointer is the address of s's bytes; of an empty string, of a byte that
// is not read, since the library takes no null pointer.
func stringPointer(s string) unsafe.Pointer {
	if s == "" {
		s = "\x00"
	}
	return unsafe.Pointer(unsafe.StringData(s))
}

func (l *Library) err(result unsafe.Pointer) error {
	if text := l.fn.resultError(result); text != "" {
		return &Error{Text: text}
	}
	return nil
}
