package chdb

import (
	"strings"
	"unsafe"
)

// Result is the result of a statement, as a whole or under way.
type Result struct {
	conn   *Conn
	handle unsafe.Pointer // the stream; nil if whole
	piece  unsafe.Pointer // what was handed out last
	whole  bool           // piece is the whole result and not handed out yet
	done   bool
	rows   uint64
	bytes  uint64
}

// noStream is what 26.5 says when asked for a piece after the one it knew to be
// the last; later versions answer with an empty piece.
const noStream = "No active streaming query"

// Next returns the next piece of the result, nil at its end. The bytes are the
// library's memory, valid until the next call of Next or Close.
func (r *Result) Next() ([]byte, error) {
	if r.done {
		return nil, nil
	}
	if r.whole {
		r.whole, r.done = false, true
		return r.bytesOfPiece(), nil
	}
	r.release()
	fn := &r.conn.lib.fn
	r.piece = fn.fetch(r.conn.conn, r.handle)
	if err := r.conn.lib.err(r.piece); err != nil {
		r.done = true
		if strings.HasPrefix(err.Error(), noStream) {
			return nil, nil
		}
		return nil, err
	}
	piece := r.bytesOfPiece()
	r.done = piece == nil
	return piece, nil
}

func (r *Result) bytesOfPiece() []byte {
	fn := &r.conn.lib.fn
	n := fn.length(r.piece)
	if n == 0 {
		return nil
	}
	r.rows += fn.rowsRead(r.piece)
	r.bytes += fn.bytesRead(r.piece)
	return unsafe.Slice((*byte)(fn.buffer(r.piece)), n)
}

// Rows and Bytes are what has been handed out so far.
func (r *Result) Rows() uint64 { return r.rows }

// Bytes is the size of Rows in the engine's memory.
func (r *Result) Bytes() uint64 { return r.bytes }

// Close frees the result, and cancels the statement if it is not at its end.
func (r *Result) Close() {
	if r.conn == nil {
		return
	}
	r.release()
	if r.handle != nil {
		if !r.done {
			r.conn.lib.fn.cancelStream(r.conn.conn, r.handle)
		}
		r.conn.lib.fn.destroy(r.handle)
	}
	r.conn.busy = false
	r.conn = nil
}

func (r *Result) release() {
	if r.piece != nil {
		r.conn.lib.fn.destroy(r.piece)
		r.piece = nil
	}
}
