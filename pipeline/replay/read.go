package replay

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// readBytes is how much is read of a source at once.
const readBytes = 1 << 20

// reader reads event records by their places, a piece of each source at a time.
type reader struct {
	r       *Replayer
	sources []source
	pieces  []piece // by source
}

// piece is what was read last: all records of the source in [from, to).
type piece struct {
	from, to int64
	recs     []*kgo.Record
	archived bool
}

func newReader(r *Replayer, sources []source) *reader {
	return &reader{r: r, sources: sources, pieces: make([]piece, len(sources))}
}

// record gives the record at offset; nil: neither Kafka nor the archive has it.
func (d *reader) record(ctx context.Context, source int32, offset int64) (rec *kgo.Record, archived bool, err error) {
	pc := &d.pieces[source]
	if offset < pc.from || offset >= pc.to {
		if err := d.read(ctx, source, offset); err != nil {
			return nil, false, err
		}
	}
	i, ok := slices.BinarySearchFunc(pc.recs, offset, func(r *kgo.Record, o int64) int { return cmp.Compare(r.Offset, o) })
	if !ok {
		return nil, false, nil
	}
	return pc.recs[i], pc.archived, nil
}

func (d *reader) read(ctx context.Context, i int32, offset int64) error {
	s, pc := &d.sources[i], &d.pieces[i]
	if offset >= s.start {
		recs, next, err := d.r.fetcher.At(ctx, s.Topic, s.Partition, offset, readBytes)
		if err == nil {
			*pc = piece{from: offset, to: max(next, offset+1), recs: recs}
			return nil
		}
		if _, gone := errors.AsType[*kafkax.OutOfRangeError](err); !gone {
			return err
		}
		s.start = offset + 1 // deleted since
	}
	*pc = piece{from: offset, to: offset + 1, archived: true}
	if d.r.deps.Archive == nil {
		return nil
	}
	at := s.Position
	at.Offset = offset
	recs, err := d.r.deps.Archive.EventRecords(ctx, at, min(s.start, s.end), time.Time{}, time.Time{}, archivePage)
	if err != nil {
		return err
	}
	pc.recs = recs
	if n := len(recs); n > 0 {
		pc.to = recs[n-1].Offset + 1
	}
	return nil
}
