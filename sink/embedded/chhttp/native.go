package chhttp

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	chproto "github.com/ClickHouse/ch-go/proto"
	"github.com/ClickHouse/clickhouse-go/v2/lib/column"
	"github.com/ClickHouse/clickhouse-go/v2/lib/proto"
)

// transcoder turns blocks in the Native format of revision 0, the only one the
// library writes, into that of the client's revision. The two differ in a block
// info in front of the block and a flag in front of each column; the columns'
// bytes are the same. Finding where a column ends needs its type, so the columns
// are decoded, by the client's own code, and then copied as they are.
type transcoder struct {
	revision uint64
	server   column.ServerContext
	out      chproto.Buffer
}

// transcode appends nothing it keeps: the result is valid until the next call.
// A piece of the engine's output holds whole blocks.
func (t *transcoder) transcode(piece []byte) (out []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = newException(48, fmt.Sprintf("Reading a block in the Native format: %v (use another FORMAT)", r), "NOT_IMPLEMENTED")
		}
	}()
	t.out.Reset()
	src := newSource(piece)
	for !src.atEnd() {
		if err := t.block(src); err != nil {
			return nil, newException(48, fmt.Sprintf("Reading a block in the Native format: %v (use another FORMAT)", err), "NOT_IMPLEMENTED")
		}
	}
	return t.out.Buf, nil
}

func (t *transcoder) block(src *source) error {
	columns, err := src.UVarInt()
	if err != nil {
		return err
	}
	rows, err := src.UVarInt()
	if err != nil {
		return err
	}
	// Block info: is_overflows and bucket_num, with their field numbers.
	t.out.PutUVarInt(1)
	t.out.PutBool(false)
	t.out.PutUVarInt(2)
	t.out.PutInt32(-1)
	t.out.PutUVarInt(0)
	t.out.PutUVarInt(columns)
	t.out.PutUVarInt(rows)
	for range columns {
		if err := t.column(src, int(rows)); err != nil {
			return err
		}
	}
	return nil
}

func (t *transcoder) column(src *source, rows int) error {
	name, err := src.Str()
	if err != nil {
		return err
	}
	typ, err := src.Str()
	if err != nil {
		return err
	}
	t.out.PutString(name)
	t.out.PutString(typ)
	if t.revision >= proto.DBMS_MIN_REVISION_WITH_CUSTOM_SERIALIZATION {
		t.out.PutBool(false)
	}
	if rows == 0 {
		return nil
	}
	start := src.position()
	if err := t.skip(src, name, column.Type(typ), rows); err != nil {
		return fmt.Errorf("column %s of type %s: %w", name, typ, err)
	}
	t.out.PutRaw(src.data[start:src.position()])
	return nil
}

func (t *transcoder) skip(src *source, name string, typ column.Type, rows int) error {
	col, err := typ.Column(name, &t.server)
	if err != nil {
		return err
	}
	if custom, ok := col.(column.CustomSerialization); ok {
		if err := custom.ReadStatePrefix(src.Reader); err != nil {
			return err
		}
	}
	return col.Decode(src.Reader, rows)
}

// source reads data and knows how far.
type source struct {
	*chproto.Reader
	data []byte
	raw  *bytes.Reader
	buf  *bufio.Reader
}

// sourceBuffer is the size below which ch-go would wrap the buffer in one of its own.
const sourceBuffer = 128 << 10

func newSource(data []byte) *source {
	s := &source{data: data, raw: bytes.NewReader(data)}
	s.buf = bufio.NewReaderSize(s.raw, sourceBuffer)
	s.Reader = chproto.NewReader(s.buf)
	return s
}

func (s *source) position() int { return len(s.data) - s.raw.Len() - s.buf.Buffered() }

func (s *source) atEnd() bool {
	_, err := s.buf.Peek(1)
	return err == io.EOF
}
