package e2e

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// TestClickHouseRefuses: what somebody does to the tables, one thing after the
// other. Deliveries go on; blocks are tried again, none is dropped, and all rows
// are there when it is undone.
func TestClickHouseRefuses(t *testing.T) {
	t.Parallel()
	s := newStage(t, setting{plan: smallPlan(1800, 3, failingFirst(10)), engine: testkit.Engine(t), binary: plain})
	p := s.run(nil)
	wait := s.produce(100)
	s.posts(300, time.Minute)
	s.alter("ALTER TABLE hookline.attempts ADD COLUMN somebodys String DEFAULT 'x'") // is no trouble
	s.posts(300, time.Minute)
	for _, fault := range []struct{ name, do, undo string }{
		{"table renamed", "RENAME TABLE hookline.attempts TO hookline.attempts_away", "RENAME TABLE hookline.attempts_away TO hookline.attempts"},
		{
			"column dropped", "ALTER TABLE hookline.attempts RENAME COLUMN response_body TO gone",
			"ALTER TABLE hookline.attempts RENAME COLUMN gone TO response_body",
		},
		{
			"too many parts", "ALTER TABLE hookline.attempts MODIFY SETTING parts_to_delay_insert = 1, parts_to_throw_insert = 1",
			"ALTER TABLE hookline.attempts RESET SETTING parts_to_delay_insert, parts_to_throw_insert",
		},
	} {
		before := s.counted(p, "hookline_sink_insert_errors_total")
		s.alter(fault.do)
		s.awaitMore(p, "hookline_sink_insert_errors_total", before)
		began := s.ledger.count()
		s.posts(200, time.Minute)
		t.Logf("%s: the sink is refused, %d posts meanwhile", fault.name, s.ledger.count()-began)
		s.alter(fault.undo)
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	if n := s.counted(p, "hookline_sink_dead_total"); n != 0 {
		t.Errorf("%v records went to attempts.dead", n)
	}
	s.judge(p).noDupes(t)
	s.compareRows()
}

// alter runs a statement that changes something: those of GET requests may not.
func (s *stage) alter(statement string) {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, s.engine.URL()+"/", strings.NewReader(statement))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	if text, _ := io.ReadAll(res.Body); res.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: status %d: %s", statement, res.StatusCode, text)
	}
}

// counted is a counter's value; 0 where it is not shown.
func (s *stage) counted(p *process, name string) float64 {
	v, _ := s.metric(p, name)
	n, _ := strconv.ParseFloat(v, 64)
	return n
}

// awaitMore waits until a counter is beyond what it was.
func (s *stage) awaitMore(p *process, name string, before float64) {
	s.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	for s.counted(p, name) <= before {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.t.Fatalf("%s stays at %v", name, before)
		}
	}
}

// TestDiskFull: the disk of ClickHouse runs full, then that of the broker, which
// ends by it and is started again when there is room. Only in the full form: it
// needs root, to mount small file systems.
func TestDiskFull(t *testing.T) {
	if !full() {
		t.Skip("runs in the full form")
	}
	t.Parallel()
	ofEngine, ofKafka := tmpfs(t, "192m"), tmpfs(t, "256m")
	s := newStage(t, setting{
		plan: smallPlan(6000, 3, failingFirst(10)), binary: plain,
		engine: testkit.EngineIn(t, ofEngine), kafka: testkit.KafkaIn(t, ofKafka, 1),
	})
	p := s.run(nil)
	wait := s.produce(50)
	s.posts(1000, time.Minute)

	ballast(t, ofEngine)
	s.awaitMore(p, "hookline_sink_insert_errors_total", s.counted(p, "hookline_sink_insert_errors_total"))
	began := s.ledger.count()
	s.posts(2000, time.Minute)
	t.Logf("ClickHouse's disk is full: %d posts meanwhile", s.ledger.count()-began)
	os.Remove(filepath.Join(ofEngine, "ballast"))
	s.engine.Kill9() // the embedded engine may not answer any more
	s.engine.Start()
	s.rowsFor(s.ledger.count() - 1000)

	ballast(t, ofKafka)
	from := s.ledger.now()
	s.quiet(10 * time.Second)
	t.Logf("the broker's disk is full: the last post came %v later", (s.ledger.last() - from).Round(time.Millisecond))
	os.Remove(filepath.Join(ofKafka, "ballast"))
	s.kafka.Kill9(1) // it has ended by itself, mostly
	s.kafka.Start(1)
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	s.judge(p).noDupes(t)
	s.compareRows()
}

// quiet waits until no post has come for so long.
func (s *stage) quiet(d time.Duration) {
	s.t.Helper()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for s.ledger.now()-s.ledger.last() < d {
		select {
		case <-tick.C:
		case <-s.ctx.Done():
			s.t.Fatalf("posts go on")
		}
	}
}

// last is when the last post came.
func (l *ledger) last() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.posts) == 0 {
		return 0
	}
	return l.posts[len(l.posts)-1].at
}

// ballast fills a file system.
func ballast(t *testing.T, dir string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for chunk := make([]byte, mib); len(chunk) > 0; {
		if _, err := f.Write(chunk); err != nil {
			chunk = chunk[:len(chunk)/2]
		}
	}
}
