package sink

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Inserts that take long become fewer, up to a limit, unless memory gets short.
func TestInsertsArePaced(t *testing.T) {
	s := &Sink{streams: map[string]*stream{}}
	s.cfg.FlushInterval = time.Second
	s.buffer.limit = 1000
	now := time.Unix(1_000_000, 0)
	for id := range 4 {
		st := &stream{}
		s.streams[fmt.Sprint("topic", id)] = st
		if id < 2 {
			st.inserted.Store(now.Add(-time.Second).UnixNano())
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
	pace(20 * time.Millisecond) // of two streams, the others have none
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
	s.buffer.paused = map[partitionID]bool{{"attempts", 1}: true} // nothing is fetched until half is free
	expect(time.Second)
	s.buffer.paused = nil
	now = now.Add(time.Minute) // nothing was inserted lately
	pace(time.Second)
	expect(time.Second)
}

// waitingStreams have a partition with a record each.
func waitingStreams(s *Sink, n int) (all []*stream) {
	s.streams = map[string]*stream{}
	s.count.Store(int64(n))
	for id := range n {
		st := newStream(s, fmt.Sprint("topic", id))
		p := newPartition(st, 0, [16]byte{})
		p.queue = []*kgo.Record{{}}
		st.partitions[0] = p
		st.note()
		st.note() // counts once
		s.streams[st.topic] = st
		all = append(all, st)
	}
	return all
}

// While fetching is paused, or nearly, a sink that is alone stores whoever has half of its
// share of the buffer at once, however lately it had an insert: nothing else makes room.
// Topics with little wait: their inserts would cost ClickHouse as much.
func TestNoneWaitsForRoom(t *testing.T) {
	s := &Sink{}
	s.cfg.FlushInterval, s.cfg.BlockRows, s.cfg.BlockBytes = time.Second, 1_000_000, 1000
	s.buffer.limit, s.buffer.eager = 1000, true
	all := waitingStreams(s, 4)
	for i, bytes := range []int64{500, 150, 125, 124} {
		p := all[i].partitions[0]
		p.bytes, p.queued, all[i].flushed = bytes, time.Now(), time.Now()
	}
	expect := func(state string, stored int) {
		t.Helper()
		for i, st := range all {
			if wait := st.due(time.Now()); (wait <= 0) != (i < stored) {
				t.Errorf("%s: topic %d with %d bytes waits for %v", state, i, st.partitions[0].bytes, wait)
			}
		}
	}
	expect("much room", 0)
	s.buffer.bytes = 899
	expect("little room", 3)
	s.buffer.bytes = 600
	s.buffer.paused = map[partitionID]bool{{"attempts", 1}: true}
	expect("fetching is paused", 3)
	s.buffer.enough = 126
	expect("little is not worth an insert", 2)
	s.buffer.eager = false
	expect("beside deliveries", 0)

	s.hurry()
	for _, st := range all {
		<-st.wake // it looked, and was told to wait
	}
	s.hurry()
	for i, st := range all {
		if len(st.wake) != 1 {
			t.Errorf("topic %d is not woken by what came since it looked", i)
		}
	}
}

// Inserts that are due at once take turns within the interval, unless memory gets
// short.
func TestInsertsAreSpread(t *testing.T) {
	s := &Sink{}
	s.cfg.FlushInterval, s.cfg.BlockRows, s.cfg.BlockBytes = time.Second, 1000, 1000
	s.buffer.limit = 1000
	all := waitingStreams(s, 4)
	now := time.Unix(1_000_000, 0)
	due := now.Add(-time.Minute)
	expect := func(st *stream, want time.Duration) {
		t.Helper()
		if got := st.untilTurn(now, due); got != want {
			t.Errorf("to wait for %v, not %v", got, want)
		}
	}
	for i, st := range all {
		expect(st, time.Duration(i)*250*time.Millisecond)
	}
	expect(all[3], 750*time.Millisecond) // its turn does not change
	s.buffer.bytes = 750
	expect(all[3], 0)
	s.hurry()
	s.hurry() // once is enough
	for _, st := range all {
		if len(st.wake) != 1 {
			t.Error("a topic that waits for its turn is not woken while memory gets short")
		}
	}
	s.buffer.bytes = 0
	for _, st := range all {
		if st.take() == nil {
			t.Error("nothing to store")
		}
		if !st.turn.IsZero() {
			t.Error("a turn is kept for the next block")
		}
	}
	if n := s.waiting.Load(); n != 0 {
		t.Errorf("%d topics wait, not 0", n)
	}
	s.active.Store(8)
	s.paced.Store(int64(4 * time.Second))
	expect(all[0], 1250*time.Millisecond) // half a second after the last turn
	s.spread.last = now.Add(-time.Minute)
	expect(all[1], 0)
	due = now.Add(10 * time.Second)
	expect(all[2], 10*time.Second)
}

// After a pause topics begin to wait one after the other. None is kept for longer
// than the interval, and the second of two no longer than inserts need.
func TestTurnsAfterAPause(t *testing.T) {
	s := &Sink{}
	s.cfg.FlushInterval = time.Second
	s.buffer.limit = 1000
	all := waitingStreams(s, 44) // so that the interval is 3 s
	s.waiting.Store(0)
	s.active.Store(1)
	s.paced.Store(int64(250 * time.Millisecond)) // an insert of 50 ms
	now := time.Unix(1_000_000, 0)
	for i, st := range all {
		s.waiting.Add(1)
		now = now.Add(20 * time.Millisecond)
		wait := st.untilTurn(now, now)
		if i < 2 && wait > 250*time.Millisecond {
			t.Errorf("topic %d waits for %v", i, wait)
		}
		if wait > 3*time.Second {
			t.Errorf("topic %d waits for %v, longer than the interval", i, wait)
		}
	}
}
