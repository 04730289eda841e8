package sink

import (
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// cut deletes the records of the attempts topic below an offset, as retention does.
func (w *world) cut(below int64) {
	w.t.Helper()
	at := kadm.Offsets{}
	at.AddOffset(attemptsTopic, 0, below, -1)
	if _, err := w.adm.DeleteRecords(w.t.Context(), at); err != nil {
		w.t.Fatal(err)
	}
}

// distinct is how many rows there are.
func (f *fakeServer) distinct() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return int64(len(f.rows))
}

// TestGapIsToldAtTheStart: records that were removed while no sink ran.
func TestGapIsToldAtTheStart(t *testing.T) {
	w := newWorld(t)
	w.attempts(1, 1)
	s := w.start(attemptsOnly)
	w.committed(2)
	s.stop()
	w.attempts(1, 1, 1, 1)
	w.cut(5)
	counts := &counting{}
	w.start(attemptsOnly, func(_ *Config, d *Deps) { d.Metrics = counts })
	w.committed(6)
	w.ch.once(t, 3)
	if n := counts.missing.Load(); n != 3 {
		t.Errorf("%d records are counted as missing, want 3", n)
	}
	if text := w.logs.String(); !strings.Contains(text, "from=2 missing=3") {
		t.Errorf("the log does not tell of the gap:\n%s", text)
	}
}

// TestGapIsToldWhileRunning: ClickHouse is away for so long that retention takes
// what the sink has not fetched yet.
func TestGapIsToldWhileRunning(t *testing.T) {
	w := newWorld(t)
	counts := &counting{errs: make(chan struct{}, 100)}
	w.start(attemptsOnly, func(c *Config, d *Deps) {
		c.BlockBytes, c.BufferBytes = 64<<10, 128<<10
		d.Metrics = counts
	})
	w.attempts(1)
	w.committed(1)
	w.ch.setDown(true)
	const records = 400
	for range records { // some 25 kB each: most stay in Kafka
		big := sampleAttempts(1)
		big[0].ResponseBody = make([]byte, 24<<10)
		w.produce(attemptsTopic, attemptlog.AppendBatch(nil, big, attemptlog.Options{}))
	}
	counts.await(t, 2)
	w.cut(records - 1) // two are left
	w.ch.setDown(false)
	w.committed(records + 1)
	stored := w.ch.distinct()
	missing := counts.missing.Load()
	t.Logf("%d rows are stored, %d records missing", stored, missing)
	if stored+missing != records+1 || missing == 0 {
		t.Errorf("%d rows are stored and %d records counted as missing, together want %d", stored, missing, records+1)
	}
}

// TestOffsetBeyondTheEnd: the topic was made anew, or lost records, while no sink
// ran: what it has is stored, and it is told.
func TestOffsetBeyondTheEnd(t *testing.T) {
	w := newWorld(t)
	w.attempts(1, 1, 1)
	at := kadm.Offsets{}
	at.AddOffset(attemptsTopic, 0, 50, -1)
	if err := w.adm.CommitAllOffsets(t.Context(), groupName, at); err != nil {
		t.Fatal(err)
	}
	w.start(attemptsOnly)
	w.ch.once(t, 3)
	w.committed(3)
	if text := w.logs.String(); !strings.Contains(text, "made anew") || !strings.Contains(text, "committed=50 end=3") {
		t.Errorf("the log does not tell:\n%s", text)
	}
}
