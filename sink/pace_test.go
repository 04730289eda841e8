package sink

import (
	"testing"
	"time"
)

// Inserts that take long become fewer, up to a limit, unless memory gets short.
func TestInsertsArePaced(t *testing.T) {
	s := &Sink{partitions: map[partitionID]*partition{}}
	s.cfg.FlushInterval = time.Second
	s.buffer.limit = 1000
	now := time.Unix(1_000_000, 0)
	for id := range int32(4) {
		p := &partition{}
		s.partitions[partitionID{"attempts", id}] = p
		if id < 2 {
			p.inserted.Store(now.Add(-time.Second).UnixNano())
		}
	}
	s.count.Store(4)
	pace := func(took time.Duration) {
		for range 100 {
			s.pace(now, took)
		}
	}
	expect := func(want time.Duration) {
		t.Helper()
		if got := s.interval(); got < want-10*time.Millisecond || got > want+10*time.Millisecond {
			t.Errorf("%v between inserts, not %v", got, want)
		}
	}
	expect(time.Second)
	pace(20 * time.Millisecond) // of two partitions, the others have none
	expect(time.Second)
	pace(150 * time.Millisecond)
	expect(1500 * time.Millisecond)
	s.count.Store(64)
	expect(4 * time.Second)
	pace(time.Minute)
	expect(5 * time.Second)
	s.count.Store(4)
	s.buffer.bytes = 750
	expect(time.Second)
	s.buffer.bytes = 749
	expect(5 * time.Second)
	now = now.Add(time.Minute) // nothing was inserted lately
	pace(time.Second)
	expect(time.Second)
}
