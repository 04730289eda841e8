package sink

import (
	"bytes"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// benchRecords are batches of 256 attempts of about 1.2 kB.
func benchRecords(n int) []*kgo.Record {
	list := sampleAttempts(256)
	for i := range list {
		list[i].RequestHeaders = bytes.Repeat([]byte("X-Header-Name: some value\r\n"), 12)
		list[i].ResponseHeaders = bytes.Repeat([]byte("Server: nginx\r\n"), 10)
		list[i].ResponseBody = bytes.Repeat([]byte{byte('a' + i%20)}, 200)
		list[i].Envelope.Time, list[i].Envelope.ProducedAt = time.Now(), time.Now()
	}
	out := make([]*kgo.Record, n)
	for i := range out {
		out[i] = &kgo.Record{Topic: attemptsTopic, Offset: int64(i), Value: attemptlog.AppendBatch(nil, list, attemptlog.Options{})}
	}
	return out
}

func TestBlockAllocs(t *testing.T) {
	recs := benchRecords(8)
	b := newBlock(tableAttempts, newAttemptRows())
	build := func() {
		if used, bad := b.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30); used != len(recs) || bad != nil {
			t.Fatal(used, bad)
		}
		if err := b.encode(); err != nil {
			t.Fatal(err)
		}
	}
	build()
	// None without the race detector, which makes the compressor's pool forget.
	if n := testing.AllocsPerRun(20, build); n > 64 {
		t.Errorf("a block of %d rows allocates %v times", b.rows, n)
	}
	ev := &pipeline.Event{ID: "e", Type: "t", ProducedAt: time.Now()}
	e := newBlock(tableEvents, newEventRows(func(rec *kgo.Record, _ *pipeline.Position) (*pipeline.Event, error) {
		ev.Payload = rec.Value
		return ev, nil
	}, func(*pipeline.Event) bool { return true }))
	add := func() { e.build(recs, origin{}, 1<<30) }
	add()
	if n := testing.AllocsPerRun(20, add); n != 0 {
		t.Errorf("%d events allocate %v times", len(recs), n)
	}
}

func BenchmarkBlock(b *testing.B) {
	recs := benchRecords(196) // 50,176 rows
	for _, c := range []struct {
		name   string
		encode bool
	}{{"append", false}, {"append+native+lz4", true}} {
		b.Run(c.name, func(b *testing.B) {
			blk := newBlock(tableAttempts, newAttemptRows())
			rows := 0
			blk.build(recs, origin{}, 1<<30) // memory grows once
			if err := blk.encode(); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				blk.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30)
				if c.encode {
					if err := blk.encode(); err != nil {
						b.Fatal(err)
					}
				}
				rows += blk.rows
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(rows), "ns/row")
		})
	}
}

// BenchmarkEngine inserts blocks into the embedded engine, one after another.
func BenchmarkEngine(b *testing.B) {
	cfg, r := benchEngine(b)
	if err := Migrate(b.Context(), cfg); err != nil {
		b.Fatal(err)
	}
	recs := benchRecords(196)
	blk := newBlock(tableAttempts, newAttemptRows())
	rows := 0
	for b.Loop() {
		blk.build(recs, origin{storedAt: time.UnixMilli(1)}, 1<<30)
		if err := blk.encode(); err != nil {
			b.Fatal(err)
		}
		if err := r.server.insert(b.Context(), blk, time.Now().String()); err != nil {
			b.Fatal(err)
		}
		rows += blk.rows
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
}
