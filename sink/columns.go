package sink

import (
	"encoding/binary"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/google/uuid"

	"github.com/hookline/hookline/pipeline"
)

// column is one column of a block: what ch-go encodes, and the value of a row
// for the native protocol, whose client wants rows.
type column interface {
	proto.ColInput
	proto.Resettable
	value(row int) any
}

// strColumn also fills LowCardinality(String): the server converts it. Its rows
// are kept as the format Native has them, each with its length before it, so that
// a block is compressed from where they stand.
type strColumn struct {
	wire []byte
	rows int
	ends []int // in wire, of the rows that value was asked for so far
}

var _ column = (*strColumn)(nil)

func (*strColumn) Type() proto.ColumnType { return proto.ColumnTypeString }
func (c *strColumn) Rows() int            { return c.rows }
func (c *strColumn) Reset()               { c.wire, c.rows, c.ends = c.wire[:0], 0, c.ends[:0] }

// Append and AppendBytes add a row.
func (c *strColumn) Append(s string)      { c.wire, c.rows = appendRow(c.wire, s), c.rows+1 }
func (c *strColumn) AppendBytes(s []byte) { c.wire, c.rows = appendRow(c.wire, s), c.rows+1 }

func appendRow[S string | []byte](wire []byte, s S) []byte {
	if len(s) < 0x80 { // most rows: a length of one byte
		return append(append(wire, byte(len(s))), s...)
	}
	return append(binary.AppendUvarint(wire, uint64(len(s))), s...)
}

func (c *strColumn) EncodeColumn(b *proto.Buffer) { b.PutRaw(c.wire) }
func (c *strColumn) WriteColumn(w *proto.Writer)  { w.ChainWrite(c.wire) }

// value is quick where rows are asked for in their order.
func (c *strColumn) value(row int) any {
	at := 0
	if n := len(c.ends); n > 0 {
		at = c.ends[n-1]
	}
	for len(c.ends) <= row {
		length, n := binary.Uvarint(c.wire[at:])
		at += n + int(length)
		c.ends = append(c.ends, at)
	}
	from := 0
	if row > 0 {
		from = c.ends[row-1]
	}
	_, n := binary.Uvarint(c.wire[from:])
	return string(c.wire[from+n : c.ends[row]])
}

type uuidColumn struct{ proto.ColUUID }

func (c *uuidColumn) value(row int) any { return c.Row(row) }
func (c *uuidColumn) Append(v [16]byte) { c.ColUUID.Append(uuid.UUID(v)) }

type u8Column struct{ proto.ColUInt8 }

func (c *u8Column) value(row int) any { return c.Row(row) }

type u16Column struct{ proto.ColUInt16 }

func (c *u16Column) value(row int) any { return c.Row(row) }

type u32Column struct{ proto.ColUInt32 }

func (c *u32Column) value(row int) any { return c.Row(row) }

// micros appends a duration in microseconds, at most about 71 minutes.
func (c *u32Column) micros(d time.Duration) {
	c.Append(uint32(min(max(0, d.Microseconds()), 1<<32-1)))
}

type i32Column struct{ proto.ColInt32 }

func (c *i32Column) value(row int) any { return c.Row(row) }

type i64Column struct{ proto.ColInt64 }

func (c *i64Column) value(row int) any { return c.Row(row) }

type boolColumn struct{ proto.ColBool }

func (c *boolColumn) value(row int) any { return c.Row(row) }

// outcomeColumn is the Enum8 of pipeline.Outcome.
type outcomeColumn struct{ proto.ColInt8 }

var outcomeType = outcomeEnum()

func outcomeEnum() string {
	var b strings.Builder
	for i, o := range pipeline.Outcomes {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString("'" + o.String() + "' = " + strconv.Itoa(int(o)))
	}
	return "Enum8(" + b.String() + ")"
}

func (c *outcomeColumn) Type() proto.ColumnType { return proto.ColumnType(outcomeType) }
func (c *outcomeColumn) value(row int) any      { return pipeline.Outcome(c.Row(row)).String() }

// Times that DateTime64 holds in every scale that we use; others are cut to
// these, so that a foreign clock never stops a block.
var (
	minTime = time.Date(1900, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2299, 12, 31, 23, 59, 59, 0, time.UTC)
)

func clampTime(t time.Time) time.Time {
	switch {
	case t.Before(minTime):
		return minTime
	case t.After(maxTime):
		return maxTime
	}
	return t
}

// microColumn is DateTime64(6).
type microColumn struct{ proto.ColInt64 }

func (c *microColumn) Type() proto.ColumnType { return "DateTime64(6, 'UTC')" }
func (c *microColumn) value(row int) any      { return time.UnixMicro(c.Row(row)).UTC() }
func (c *microColumn) time(t time.Time)       { c.Append(clampTime(t).UnixMicro()) }

// milliColumn is DateTime64(3).
type milliColumn struct{ proto.ColInt64 }

func (c *milliColumn) Type() proto.ColumnType { return "DateTime64(3, 'UTC')" }
func (c *milliColumn) value(row int) any      { return time.UnixMilli(c.Row(row)).UTC() }
func (c *milliColumn) time(t time.Time)       { c.Append(clampTime(t).UnixMilli()) }

// nullMicroColumn is Nullable(DateTime64(6)); the zero time is NULL.
type nullMicroColumn struct {
	nulls  proto.ColUInt8
	micros proto.ColInt64
}

func (c *nullMicroColumn) Type() proto.ColumnType { return "Nullable(DateTime64(6, 'UTC'))" }
func (c *nullMicroColumn) Rows() int              { return len(c.nulls) }
func (c *nullMicroColumn) Reset()                 { c.nulls.Reset(); c.micros.Reset() }

func (c *nullMicroColumn) EncodeColumn(b *proto.Buffer) {
	c.nulls.EncodeColumn(b)
	c.micros.EncodeColumn(b)
}

func (c *nullMicroColumn) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }

func (c *nullMicroColumn) value(row int) any {
	if c.nulls[row] != 0 {
		return (*time.Time)(nil)
	}
	t := time.UnixMicro(c.micros[row]).UTC()
	return &t
}

func (c *nullMicroColumn) time(t time.Time) {
	if t.IsZero() {
		c.nulls.Append(1)
		c.micros.Append(0)
		return
	}
	c.nulls.Append(0)
	c.micros.Append(clampTime(t).UnixMicro())
}

// mapColumn is Map(String, String); a key may occur more than once.
type mapColumn struct {
	ends         proto.ColUInt64
	keys, values strColumn
}

func (c *mapColumn) Type() proto.ColumnType { return "Map(String, String)" }
func (c *mapColumn) Rows() int              { return len(c.ends) }
func (c *mapColumn) Reset()                 { c.ends.Reset(); c.keys.Reset(); c.values.Reset() }

func (c *mapColumn) EncodeColumn(b *proto.Buffer) {
	c.ends.EncodeColumn(b)
	c.keys.EncodeColumn(b)
	c.values.EncodeColumn(b)
}

func (c *mapColumn) WriteColumn(w *proto.Writer) { w.ChainBuffer(c.EncodeColumn) }

func (c *mapColumn) value(row int) any {
	m := map[string]string{}
	from := 0
	if row > 0 {
		from = int(c.ends[row-1])
	}
	for i := from; i < int(c.ends[row]); i++ {
		m[c.keys.value(i).(string)] = c.values.value(i).(string)
	}
	return m
}

// add appends one pair to the row under way; end ends the row.
func (c *mapColumn) add(key string, value []byte) {
	c.keys.Append(key)
	c.values.AppendBytes(value)
}

func (c *mapColumn) end() { c.ends.Append(uint64(c.keys.Rows())) }
