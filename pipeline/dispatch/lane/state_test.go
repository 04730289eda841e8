package lane

import (
	"bytes"
	"encoding/binary"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

func stateGen(t *rapid.T) *State {
	s := &State{
		Incarnation: rapid.Uint64().Draw(t, "incarnation"), Seq: rapid.Uint64().Draw(t, "seq"),
		Front: rapid.Int64Range(0, math.MaxInt64).Draw(t, "front"),
	}
	for k := range s.Retry {
		s.Retry[k] = rapid.Int64Range(0, math.MaxInt64).Draw(t, "retry")
	}
	off := int64(0)
	for range rapid.IntRange(0, 5).Draw(t, "runs") {
		r := openRun{from: off + rapid.Int64Range(0, 1<<40).Draw(t, "gap")}
		r.to = r.from + rapid.Int64Range(0, 1<<40).Draw(t, "length")
		off = r.to
		s.Open.runs = append(s.Open.runs, r)
	}
	off = 0
	for range rapid.IntRange(0, 5).Draw(t, "partials") {
		p := openPartial{off: off + rapid.Int64Range(0, 1<<40).Draw(t, "gap")}
		off = p.off
		for i := range rapid.IntRange(0, len(p.open)).Draw(t, "words") {
			p.open[i] = rapid.Uint64().Draw(t, "word")
		}
		s.Open.partials = append(s.Open.partials, p)
	}
	s.ParkedBad = rapid.Int64Range(-1, math.MaxInt64-1).Draw(t, "parkedBad")
	s.Control = rapid.Int64Range(0, math.MaxInt64).Draw(t, "control")
	return s
}

func TestStateRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := stateGen(t)
		b := s.append([]byte("before"))
		if !bytes.HasPrefix(b, []byte("before")) {
			t.Fatal("append overwrites")
		}
		b = b[len("before"):]
		got, err := ParseState(b)
		if err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("got %+v, %v, want %+v", got, err, s)
		}
		if got, err = ParseState(append(b[:len(b):len(b)], 7, 7, 7)); err != nil || !reflect.DeepEqual(got, s) {
			t.Fatalf("with fields of a newer version: %+v, %v", got, err)
		}
		control := len(b) - len(binary.AppendUvarint(nil, uint64(s.Control)))
		if old, err := ParseState(b[:control]); err != nil || old.Control != 0 || old.ParkedBad != s.ParkedBad {
			t.Fatalf("as an older version wrote it: %+v, %v", old, err)
		}
		bad := control - len(binary.AppendUvarint(nil, uint64(s.ParkedBad+1)))
		if old, err := ParseState(b[:bad]); err != nil || old.ParkedBad != -1 || old.Front != s.Front {
			t.Fatalf("as a still older version wrote it: %+v, %v", old, err)
		}
		for n := range b {
			if n == control || n == bad {
				continue
			}
			if _, err := ParseState(b[:n]); err == nil {
				t.Fatalf("no error with %d of %d bytes", n, len(b))
			}
		}
	})
}

func TestStateRefused(t *testing.T) {
	ok := (&State{Front: 3, Open: openSet{runs: []openRun{{1, 2}}}}).append(nil)
	var tail []byte
	tail = append(tail, ok[:9]...)
	tail = append(tail, 0, 0, 0, 0, 0)
	tests := map[string][]byte{
		"empty":                    nil,
		"other version":            append([]byte{stateVersion + 1}, ok[1:]...),
		"more runs than bytes":     append(bytes.Clone(tail), 200),
		"a bitmap of five words":   append(bytes.Clone(tail), 0, 1, 0, 5, 1, 1, 1, 1, 1),
		"an offset that overflows": append(bytes.Clone(tail), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0),
		"a varint that overflows":  append(bytes.Clone(tail), 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0, 0),
	}
	for name, b := range tests {
		if s, err := ParseState(b); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func FuzzParseState(f *testing.F) {
	f.Add((&State{Front: 3, Open: openSet{runs: []openRun{{1, 2}}, partials: []openPartial{{4, positions{5}}}}}).append(nil))
	f.Add([]byte{stateVersion, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseState(b)
		if err != nil {
			return
		}
		again, err := ParseState(s.append(nil))
		if err != nil || !reflect.DeepEqual(s, again) {
			t.Fatalf("%+v, then %+v, %v", s, again, err)
		}
	})
}

func TestPositions(t *testing.T) {
	for _, n := range []int{0, 1, 63, 64, 65, 128, 255, 256} {
		p := allPositions(n)
		if p.count() != n {
			t.Errorf("allPositions(%d) has %d", n, p.count())
		}
		for i := range MaxPositions {
			if p.has(i) != (i < n) {
				t.Errorf("allPositions(%d): has(%d) is %v", n, i, p.has(i))
			}
		}
		for i := range n {
			p.clear(i)
		}
		if p != (positions{}) {
			t.Errorf("cleared: %v", p)
		}
		if n > 0 {
			if p.set(n - 1); !p.has(n-1) || p.count() != 1 {
				t.Errorf("set(%d): %v", n-1, p)
			}
		}
	}
}

func TestOpenSetTake(t *testing.T) {
	s := openSet{runs: []openRun{{2, 4}, {8, 8}, {10, 20}}, partials: []openPartial{{6, positions{0b10}}, {9, positions{0b101}}}}
	if o, ok := s.first(); !ok || o != 2 {
		t.Errorf("first: %d, %v", o, ok)
	}
	for _, want := range []struct {
		off  int64
		open int
	}{{1, 0}, {2, 3}, {4, 3}, {5, 0}, {6, 1}, {7, 0}, {9, 2}, {10, 3}, {15, 3}, {20, 3}, {21, 0}} {
		if p := s.take(want.off, 3); p.count() != want.open {
			t.Errorf("take(%d): %d open, want %d", want.off, p.count(), want.open)
		}
	}
	if o, ok := s.first(); ok {
		t.Errorf("first of the empty set: %d", o)
	}
}

// TestOpenSetKeepsTheRest: after each take the lowest open offset is above it.
func TestOpenSetKeepsTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		open := rapid.SliceOfN(rapid.IntRange(0, 3), 1, 40).Draw(t, "open positions") // of two, 3: both
		task := &Task{}
		for off, bits := range open {
			r := &Record{Offset: int64(off), Subs: []string{"a", "b"}, open: positions{uint64(bits)}}
			if r.nopen = r.open.count(); r.nopen == 0 {
				task.gap = true
				continue
			}
			r.gap, task.gap = task.gap, false
			task.recs = append(task.recs, r)
		}
		s, err := ParseState(task.appendState(nil))
		if err != nil {
			t.Fatal(err)
		}
		for off, bits := range open {
			if rapid.IntRange(0, 3).Draw(t, "skip") == 0 {
				continue
			}
			if p := s.Open.take(int64(off), 2); p != (positions{uint64(bits)}) {
				t.Fatalf("take(%d): %b, want %b", off, p[0], bits)
			}
			if low, ok := s.Open.first(); ok && low <= int64(off) {
				t.Fatalf("first after take(%d): %d", off, low)
			}
		}
	})
}

func TestQueue(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue[int]
		var want []int
		for i := range rapid.IntRange(0, 5000).Draw(t, "steps") {
			if i%5 < 3 {
				q.push(i)
				want = append(want, i)
			} else if v, ok := q.pop(); ok != (len(want) > 0) || ok && v != want[0] {
				t.Fatalf("pop: %d, %v", v, ok)
			} else if ok {
				want = want[1:]
			}
			if q.len() != len(want) {
				t.Fatalf("len %d, want %d", q.len(), len(want))
			}
		}
	})
}

func TestConfigValidate(t *testing.T) {
	c := DefaultConfig()
	if err := c.Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	if len(c.Delays) != pipeline.MaxRetries {
		t.Errorf("%d delays", len(c.Delays))
	}
	for name, change := range map[string]func(*Config){
		"four delays": func(c *Config) { c.Delays = append(c.Delays, c.Delays[0]) },
		"no delay":    func(c *Config) { c.Delays[1] = 0 },
		"a week":      func(c *Config) { c.Delays[0] *= 24 * 3600 },
		"queued":      func(c *Config) { c.MaxQueued = 0 },
		"parked":      func(c *Config) { c.MaxParked = 0 },
		"records":     func(c *Config) { c.MaxRecords = 0 },
		"bytes":       func(c *Config) { c.MaxPayloadBytes = 0 },
		"held":        func(c *Config) { c.MaxRetryHeld = 0 },
		"slow":        func(c *Config) { c.SlowAfter = 0 },
		"age":         func(c *Config) { c.MaxParkedAge = 0 },
		"local":       func(c *Config) { c.LocalRetryAfter = 0 },
	} {
		c := DefaultConfig()
		change(&c)
		if c.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
