package chdb

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"
)

// InsertStatement is an INSERT without its rows, taken apart because the two ways
// to hand over the rows put different things between its parts.
type InsertStatement struct {
	Head     string // "INSERT INTO db.table (a, b)"
	Settings string // "SETTINGS x = 1", or nothing
	Format   string // format of the rows, e.g. "Native"
}

// Insert takes the rows of an INSERT. Nothing is committed before Commit, except
// whole blocks of over a million rows; one of Commit and Cancel must be called.
type Insert struct {
	conn      *Conn
	statement InsertStatement
	stream    unsafe.Pointer // nil if the library cannot stream
	spool     *os.File       // then the rows wait here
}

// Insert begins an INSERT. spoolDir holds the rows until Commit, in a temporary file,
// where the library cannot take them as a stream.
func (c *Conn) Insert(statement InsertStatement, spoolDir string) (*Insert, error) {
	if err := c.free(); err != nil {
		return nil, err
	}
	in := &Insert{conn: c, statement: statement}
	if !c.lib.StreamsInserts() {
		spool, err := os.CreateTemp(spoolDir, "insert-")
		if err != nil {
			return nil, fmt.Errorf("making a file for the rows of an INSERT: %w", err)
		}
		in.spool = spool
	} else if err := in.begin(); err != nil {
		return nil, err
	}
	c.busy = true
	return in, nil
}

func (in *Insert) begin() error {
	fn := &in.conn.lib.fn
	query := in.statement.Head + " " + in.statement.Settings
	in.stream = fn.insertBegin(in.conn.conn, stringPointer(query), uintptr(len(query)),
		stringPointer(in.statement.Format), uintptr(len(in.statement.Format)))
	if text := fn.insertError(in.stream); text != "" {
		fn.insertDestroy(in.stream)
		return &Error{Text: text}
	}
	return nil
}

// Write hands over rows, cut anywhere. It may wait for the engine. An error is
// the engine's refusal; Commit then gives the reason.
func (in *Insert) Write(rows []byte) (int, error) {
	if in.spool != nil {
		return in.spool.Write(rows)
	}
	if len(rows) == 0 {
		return 0, nil
	}
	if in.conn.lib.fn.insertAppend(in.stream, unsafe.Pointer(unsafe.SliceData(rows)), uintptr(len(rows))) != 0 {
		return 0, ErrRefused
	}
	return len(rows), nil
}

// ErrRefused is returned by Insert.Write when the engine has given the INSERT up;
// Commit tells why.
var ErrRefused = errors.New("handing over rows: the engine has refused them")

// Commit ends the INSERT and returns the number of rows written, those of
// materialized views included. When it returns nil the rows survive the end of
// this process, however it comes.
func (in *Insert) Commit() (rows uint64, err error) {
	defer in.close()
	if in.spool != nil {
		return in.commitSpool()
	}
	fn := &in.conn.lib.fn
	result := fn.insertDone(in.stream)
	defer fn.destroy(result)
	if err := in.conn.lib.err(result); err != nil {
		return 0, err
	}
	return fn.rowsWritten(result), nil
}

func (in *Insert) commitSpool() (uint64, error) {
	if err := in.spool.Close(); err != nil {
		return 0, fmt.Errorf("keeping the rows of an INSERT: %w", err)
	}
	in.conn.busy = false
	path := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(in.spool.Name())
	result, err := in.conn.Query(in.statement.Head+" FROM INFILE '"+path+"' COMPRESSION 'none' "+
		in.statement.Settings+" FORMAT "+in.statement.Format, "Null", nil)
	if err != nil {
		return 0, err
	}
	defer result.Close()
	return in.conn.lib.fn.rowsWritten(result.piece), nil
}

// Cancel gives the INSERT up. After Commit it does nothing.
func (in *Insert) Cancel() {
	if in.conn == nil {
		return
	}
	if in.stream != nil {
		in.conn.lib.fn.insertCancel(in.stream)
	}
	in.close()
}

func (in *Insert) close() {
	if in.stream != nil {
		in.conn.lib.fn.insertDestroy(in.stream)
		in.stream = nil
	}
	if in.spool != nil {
		_ = in.spool.Close()
		_ = os.Remove(in.spool.Name())
		in.spool = nil
	}
	in.conn.busy = false
	in.conn = nil
}
