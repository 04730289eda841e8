// Package chdb binds libchdb, ClickHouse as a shared library, without cgo.
//
// It knows the C interface and nothing of HTTP. One engine lives in a process
// and works on one data directory; any number of connections to it may be open,
// each running one statement at a time.
package chdb

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/ebitengine/purego"
)

// Library is a loaded libchdb. It cannot be unloaded: the engine leaves threads
// behind which run its code until the process ends.
type Library struct {
	path string
	fn   functions
}

// functions are the entry points of the C interface. Handles are opaque; they
// stay unsafe.Pointer, which for memory that is not Go's is only a number.
type functions struct {
	setSignalHandlers func(enabled int32)
	connect           func(argc int32, argv unsafe.Pointer) unsafe.Pointer
	closeConn         func(conn unsafe.Pointer)

	stream       statementFunc
	query        statementFunc
	fetch        func(conn, stream unsafe.Pointer) unsafe.Pointer
	cancelStream func(conn, stream unsafe.Pointer)
	destroy      func(result unsafe.Pointer)

	buffer      func(result unsafe.Pointer) unsafe.Pointer
	length      func(result unsafe.Pointer) uintptr
	resultError func(result unsafe.Pointer) string
	rowsRead    func(result unsafe.Pointer) uint64
	bytesRead   func(result unsafe.Pointer) uint64
	rowsWritten func(result unsafe.Pointer) uint64

	insertBegin   func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr) unsafe.Pointer
	insertAppend  func(stream, data unsafe.Pointer, length uintptr) int32
	insertDone    func(stream unsafe.Pointer) unsafe.Pointer
	insertCancel  func(stream unsafe.Pointer)
	insertError   func(stream unsafe.Pointer) string
	insertDestroy func(stream unsafe.Pointer)
}

// statementFunc runs a statement with parameters: four arrays of count elements.
type statementFunc func(conn, query unsafe.Pointer, queryLen uintptr, format unsafe.Pointer, formatLen uintptr,
	names, nameLens, values, valueLens unsafe.Pointer, count uintptr) unsafe.Pointer

// ErrIncompatible is returned by Open for a library which lacks a function that
// every supported version (26.5 and later) has.
var ErrIncompatible = errors.New("not a supported version of libchdb")

// Open loads the library at path. It starts no engine yet: the first Connect does.
func Open(path string) (*Library, error) {
	handle, err := purego.Dlopen(path, purego.RTLD_NOW|purego.RTLD_LOCAL)
	if err != nil {
		return nil, fmt.Errorf("loading the ClickHouse engine: %w", err)
	}
	lib := &Library{path: path}
	for name, fptr := range lib.fn.required() {
		if err := bind(handle, fptr, name); err != nil {
			return nil, fmt.Errorf("loading the ClickHouse engine %s: %w: %w", path, ErrIncompatible, err)
		}
	}
	// All of the insert functions are there or none counts.
	for name, fptr := range lib.fn.inserts() {
		if bind(handle, fptr, name) != nil {
			lib.fn.insertBegin = nil
			break
		}
	}
	// The Go runtime owns the signals: the engine's own handlers lack SA_ONSTACK
	// and would end a Go program at the first signal.
	lib.fn.setSignalHandlers(0)
	return lib, nil
}

// Path is the file the library was loaded from.
func (l *Library) Path() string { return l.path }

// StreamsInserts says whether the library takes the rows of an INSERT as a
// stream (26.7 and later). If not, Conn.Insert goes by a file.
func (l *Library) StreamsInserts() bool { return l.fn.insertBegin != nil }

func (f *functions) required() map[string]any {
	return map[string]any{
		"chdb_set_signal_handlers_enabled": &f.setSignalHandlers,
		"chdb_connect":                     &f.connect,
		"chdb_close_conn":                  &f.closeConn,
		"chdb_query_with_params_n":         &f.query,
		"chdb_stream_query_with_params_n":  &f.stream,
		"chdb_stream_fetch_result":         &f.fetch,
		"chdb_stream_cancel_query":         &f.cancelStream,
		"chdb_destroy_query_result":        &f.destroy,
		"chdb_result_buffer":               &f.buffer,
		"chdb_result_length":               &f.length,
		"chdb_result_error":                &f.resultError,
		"chdb_result_rows_read":            &f.rowsRead,
		"chdb_result_bytes_read":           &f.bytesRead,
		"chdb_result_rows_written":         &f.rowsWritten,
	}
}

func (f *functions) inserts() map[string]any {
	return map[string]any{
		"chdb_stream_insert_n":       &f.insertBegin,
		"chdb_stream_append":         &f.insertAppend,
		"chdb_stream_done":           &f.insertDone,
		"chdb_stream_cancel_insert":  &f.insertCancel,
		"chdb_stream_insert_error":   &f.insertError,
		"chdb_destroy_insert_stream": &f.insertDestroy,
	}
}

func bind(handle uintptr, fptr any, name string) error {
	symbol, err := purego.Dlsym(handle, name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	purego.RegisterFunc(fptr, symbol)
	return nil
}
