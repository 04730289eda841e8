package dispatch

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// parkedLog is a partition of parked in memory, which counts how often it is read.
type parkedLog struct {
	recs  []*kgo.Record
	batch int64 // records of a batch: reads end where a batch does
	reads int
}

func newParkedLog(records int, batch int64, sub func(i int) string) *parkedLog {
	l := &parkedLog{batch: batch}
	for i := range records {
		l.recs = append(l.recs, &kgo.Record{Topic: "parked", Offset: int64(i), Key: []byte(sub(i)), Value: make([]byte, 500)})
	}
	return l
}

func (l *parkedLog) At(_ context.Context, _ string, _ int32, offset int64, maxBytes int32) (recs []*kgo.Record, next int64, err error) {
	l.reads++
	end := offset + max(1, int64(maxBytes)/500)
	end = min(int64(len(l.recs)), end-end%l.batch+l.batch)
	return l.recs[offset:end], end, nil
}

// drain takes one record after the other of every subscription, in the order
// that next says, and tells how many reads that took.
func (l *parkedLog) drain(t *testing.T, lanes map[string][]int64, next func(left []string) string) {
	t.Helper()
	c := newParkedCache(l, "parked")
	// Not in the order of the log, which is too easy, nor in the map's own, by which
	// the reads differ from run to run.
	left := slices.Sorted(maps.Keys(lanes))
	rng := rand.New(rand.NewPCG(1, 1))
	rng.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
	for n := 0; len(left) > 0; n++ {
		lane := next(left)
		off := lanes[lane][0]
		r, err := c.get(t.Context(), 0, string(l.recs[off].Key), off, true)
		if err != nil {
			t.Fatal(err)
		}
		if r.Offset != off {
			t.Fatalf("lane %s wanted offset %d and got %d", lane, off, r.Offset)
		}
		if lanes[lane] = lanes[lane][1:]; len(lanes[lane]) == 0 {
			left = remove(left, lane)
		}
		if n%97 > 0 {
			continue
		}
		pp := c.part(0)
		bytes := 0
		for id, sh := range pp.shelves {
			own := 0
			for _, r := range sh.recs {
				own += size(r)
			}
			if own != sh.bytes {
				t.Fatalf("the shelf of %s says %d bytes and has %d", id, sh.bytes, own)
			}
			bytes += own
		}
		if bytes != pp.bytes || bytes > mostPartitionBytes || len(pp.order) != len(pp.shelves) {
			t.Fatalf("the partition says %d bytes and has %d on %d shelves, %d in their order", pp.bytes, bytes, len(pp.shelves), len(pp.order))
		}
	}
}

func remove(list []string, s string) []string {
	var out []string
	for _, have := range list {
		if have != s {
			out = append(out, have)
		}
	}
	return out
}

// TestLanesShareReads: many lanes that drain at about the same pace read the log
// about once all together, not once each; also where what they had in memory was
// parked first, one lane's whole and then the next one's.
func TestLanesShareReads(t *testing.T) {
	const records = 30_000
	for _, subs := range []int{1, 2, 7, 12, 100, 1500} {
		runs := 4800 / subs
		l := newParkedLog(records, 1000, func(i int) string {
			if i < subs*runs {
				return fmt.Sprint("s", i/runs)
			}
			return fmt.Sprint("s", i%subs)
		})
		lanes := map[string][]int64{}
		for i, r := range l.recs {
			lanes[string(r.Key)] = append(lanes[string(r.Key)], int64(i))
		}
		n := 0
		l.drain(t, lanes, func(left []string) string { n++; return left[n%len(left)] })
		once := records / 1000
		t.Logf("%d subscriptions: %d reads", subs, l.reads)
		if most := 3*subs + 4*once; l.reads > most {
			t.Errorf("%d subscriptions: %d reads of a log that %d bring whole", subs, l.reads, once)
		}
	}
}

// TestManyThatFailShareReads: those that fail have a delivery or two each, beside a
// few that drain. They share what is read for one of them, however much is read for
// the others between two of them.
func TestManyThatFailShareReads(t *testing.T) {
	const failing, healthy, each = 1250, 12, 1000
	l := newParkedLog(failing+healthy*each, 100, func(i int) string {
		if i < failing {
			return fmt.Sprint("dark", i)
		}
		return fmt.Sprint("good", i%healthy)
	})
	c := newParkedCache(l, "parked")
	take := func(off int, drains bool) (reads int) {
		before := l.reads
		if _, err := c.get(t.Context(), 0, string(l.recs[off].Key), int64(off), drains); err != nil {
			t.Fatal(err)
		}
		return l.reads - before
	}
	reads := 0
	for i := range failing {
		reads += take(i, false)
		for n := range healthy * each / failing {
			take(failing+i*(healthy*each/failing)+n, true)
		}
	}
	if most := 2 * failing / 100; reads > most {
		t.Errorf("%d reads for %d records that lie together: at most %d were expected", reads, failing, most)
	}
}

// TestParkedCacheGivesWhatIsWanted: subscriptions with one or many lanes, at
// paces of their own, over a log of which some are rare.
func TestParkedCacheGivesWhatIsWanted(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		subs := 1 + rng.IntN(40)
		laneOf := make([]string, 4000)
		l := newParkedLog(len(laneOf), 1+rng.Int64N(100), func(i int) string {
			sub := rng.IntN(1 + rng.IntN(subs)) // low numbers are frequent
			laneOf[i] = fmt.Sprintf("s%d/%d", sub, rng.IntN(1+sub%5))
			return fmt.Sprint("s", sub)
		})
		lanes, pace := map[string][]int64{}, map[string]int{}
		for i, lane := range laneOf {
			lanes[lane] = append(lanes[lane], int64(i))
			pace[lane] = 1 + rng.IntN(20)
		}
		l.drain(t, lanes, func(left []string) string {
			for {
				if lane := left[rng.IntN(len(left))]; rng.IntN(pace[lane]) == 0 {
					return lane
				}
			}
		})
	}
}
