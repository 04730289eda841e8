package sink

import (
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/ch-go/proto"
	"github.com/twmb/franz-go/pkg/kgo"
)

// The tables that the sink fills.
const (
	tableAttempts = "attempts"
	tableEvents   = "events"
)

// fill appends the rows of one record to a block's columns. A record that
// cannot be stored gives an error; rows appended before it stay. It must give
// the same rows whenever it is asked about the same record.
type fill interface {
	add(rec *kgo.Record, from origin) error
	columns() []namedColumn
	// bytes in the columns of long text, about.
	bytes() int
}

// origin is what a record does not say about where it comes from.
type origin struct {
	topicID  [16]byte
	cluster  string
	storedAt time.Time
}

type namedColumn struct {
	name string
	col  column
}

// block holds the columns of one insert, used again for the next.
type block struct {
	table string
	fill  fill
	names string // "(a, b, c)"
	input []proto.InputColumn
	raw   proto.Buffer // columns that are not kept as they are sent
	// frames are what is sent; those of a blockPool belong to no block but one in use.
	frames *frames
	rows   int
}

func newBlock(table string, f fill) *block {
	b := &block{table: table, fill: f}
	names := make([]string, 0, len(f.columns()))
	for _, c := range f.columns() {
		b.input = append(b.input, proto.InputColumn{Name: c.name, Data: c.col})
		names = append(names, c.name)
	}
	b.names = "(" + strings.Join(names, ", ") + ")"
	return b
}

// badRecord is a record that cannot be stored, or not wholly.
type badRecord struct {
	rec *kgo.Record
	why error
}

// build fills the columns, anew, from the first of recs, until they have about
// limit bytes: a batch of attempts that share a body takes more memory than its
// record. It returns how many records it used, at least one where there is one.
func (b *block) build(recs []*kgo.Record, from origin, limit int) (used int, bad []badRecord) {
	for _, c := range b.fill.columns() {
		c.col.Reset()
	}
	for used < len(recs) && (used == 0 || b.fill.bytes() < limit) {
		if err := b.fill.add(recs[used], from); err != nil {
			bad = append(bad, badRecord{recs[used], err})
		}
		used++
	}
	b.rows = b.input[0].Data.Rows()
	return used, bad
}

// encode writes the block in format Native and compresses it into b.frames.
func (b *block) encode() error {
	b.raw.Reset()
	if b.frames == nil {
		b.frames = newFrames()
	}
	b.frames.reset()
	head := proto.Block{Columns: len(b.input), Rows: b.rows}
	w := proto.NewWriter(b.frames, &b.raw)
	// Revision 0: over HTTP client_protocol_version does not apply to inserts.
	if err := head.WriteBlock(w, 0, b.input); err != nil {
		return fmt.Errorf("encoding a block of %s: %w", b.table, err)
	}
	if _, err := w.Flush(); err != nil {
		return fmt.Errorf("compressing a block of %s: %w", b.table, err)
	}
	if err := b.frames.close(); err != nil {
		return fmt.Errorf("compressing a block of %s: %w", b.table, err)
	}
	return nil
}

// row gives the values of one row, for a client that wants rows.
func (b *block) row(i int, dst []any) []any {
	for _, c := range b.fill.columns() {
		dst = append(dst, c.col.value(i))
	}
	return dst
}
