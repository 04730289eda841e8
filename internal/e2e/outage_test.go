package e2e

import (
	"context"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// TestClickHouseOutage: the engine is killed under load and comes back;
// deliveries go on meanwhile in bounded memory, the sink catches up at twice the
// pace at which rows come, and every request has its row once in the end.
func TestClickHouseOutage(t *testing.T) {
	t.Parallel()
	outage, events, rate := 10*time.Second, 3000, 200
	if full() {
		outage, events, rate = 10*time.Minute, 28_000, 40
	}
	engine := testkit.Engine(t)
	s := newStage(t, setting{plan: smallPlan(events, 3, failingFirst(10)), engine: engine, binary: plain})
	p := s.run(nil)
	g := watchUse(t, p)
	wait := s.produce(rate)
	s.posts(1000, time.Minute)
	perSecond := float64(rate*s.plan.expected) / float64(events)
	loaded := peakRSS(g.between(0, g.now()))
	engine.Kill9()
	began, at, before := time.Now(), g.now(), s.ledger.count()
	over := time.NewTimer(outage) // the length of the outage is what is tested
	defer over.Stop()
	<-over.C
	during := s.ledger.count() - before
	t.Logf("%d posts in %v without ClickHouse", during, time.Since(began).Round(time.Second))
	if during == 0 || full() && float64(during) < perSecond*outage.Seconds()/3 { // how many is a matter of the machine
		t.Errorf("only %d posts in %v without ClickHouse, at %.0f a second", during, outage, perSecond)
	}
	if code, body, err := get(s.ctx, "http://"+p.admin+"/readyz"); err != nil || code != 200 || !strings.Contains(body, `"degraded":true`) {
		t.Errorf("/readyz without ClickHouse: status %d, %v, %s; want 200 and degraded", code, err, body)
	}
	s.judgeMemory(g.between(at, g.now()), loaded, sinkGrowth)
	s.judgeLog(p, began)
	engine.Start()
	s.catchUp(perSecond)
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	s.judge(p).noDupes(t)
	s.compareRows()
}

// catchUp waits until ClickHouse has rows for all requests of the moment, and
// judges the pace.
func (s *stage) catchUp(perSecond float64) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.ctx, settleLimit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	began, first := time.Now(), -1
	for {
		text, err := s.ask(ctx, "SELECT countIf(request_written) + sum(resends) FROM hookline.attempts")
		n, bad := strconv.Atoi(text)
		if err == nil && bad == nil && first < 0 {
			first = n
		}
		// A second's worth is always on its way.
		if err == nil && bad == nil && float64(s.ledger.count()-n) <= perSecond {
			took := time.Since(began)
			pace := float64(n-first) / took.Seconds()
			s.t.Logf("the sink stored %d rows in %v and has caught up: %.0f/s, %.1f times the input of %.0f/s", n-first, took.Round(time.Millisecond), pace, pace/perSecond, perSecond)
			if full() && pace < 2*perSecond { // of the short form half is the wait for the next try
				s.t.Errorf("the sink caught up at %.0f rows a second, less than twice the input of %.0f", pace, perSecond)
			}
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.t.Fatalf("the sink did not catch up: %s rows (%v)", text, err)
		}
	}
}

// Bounds of an outage, of a process built without the race detector.
const (
	outageGrowth = 96 * mib // of memory over what it had under load
	// sinkGrowth is CLICKHOUSE_BUFFER_BYTES full, twice for the garbage
	// collector's slack, and what is fetched ahead.
	sinkGrowth  = 2*64*mib + 32*mib
	outageCores = 0.25 // on average: nothing spins
)

// TestKafkaOutage: the only broker is killed under load and comes back. While it
// is away memory stays, the log has at most a line a second and nothing spins;
// afterwards what the producer had kept back is delivered at twice the pace at
// which it came, nothing is sent twice, and each request has its row.
//
// A broker that comes back can lose the end of a transaction of the router's, which
// the router mends after 25 s: what waits for a post has time for that twice.
func TestKafkaOutage(t *testing.T) {
	t.Parallel()
	outage, rate, before := 15*time.Second, 40, 5*time.Second // longer than a session
	if full() {
		outage, before = 5*time.Minute, 30*time.Second
	}
	events := rate * int((outage + 2*before).Seconds())
	kafka := testkit.Kafka(t, 1)
	s := newStage(t, setting{plan: smallPlan(events, 3, failingFirst(10)), kafka: kafka, engine: testkit.Engine(t), binary: plain})
	p := s.run(nil)
	g := watchUse(t, p)
	wait := s.produce(rate)
	s.posts(rate*int(before.Seconds())*s.plan.expected/events, time.Minute)
	loaded := peakRSS(g.between(0, g.now()))
	kafka.Kill9(1)
	began, at := time.Now(), g.now()
	sent := s.ledger.count()
	over := time.NewTimer(outage) // the length of the outage is what is tested
	defer over.Stop()
	<-over.C
	s.judgeOutage(p, g, began, at, loaded)
	if code, body, err := get(s.ctx, "http://"+p.admin+"/readyz"); err != nil || code != 503 || !strings.Contains(body, "no answer from Kafka") {
		t.Errorf("/readyz without Kafka: status %d, %v, %s; want 503 and why", code, err, body)
	}
	if code, _, err := get(s.ctx, "http://"+p.admin+"/healthz"); err != nil || code != 200 {
		t.Errorf("/healthz without Kafka: status %d, %v; want 200: a restart would not help", code, err)
	}
	kafka.Start(1)
	back, started := s.ledger.now(), time.Now()
	first := s.ledger.count()
	s.posts(1, 2*time.Minute)
	t.Logf("%d posts until the outage, %d in it; the first one %v after the broker was back", sent, first-sent, (s.ledger.now() - back).Round(time.Millisecond))
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	_, said := p.logged(started, time.Now())
	t.Logf("logged since the broker was back:%s", most(said)) // whether there was something to mend
	s.judgeDrain(back, float64(rate*s.plan.expected)/float64(events))
	s.rowsFor(s.ledger.count())
	if code, body, err := get(s.ctx, "http://"+p.admin+"/readyz"); err != nil || code != 200 {
		t.Errorf("/readyz after the outage: status %d, %v, %s; want 200", code, err, body)
	}
	s.judge(p).noDupes(t)
	s.compareRows()
}

// judgeOutage judges what a process used since an outage began.
func (s *stage) judgeOutage(p *process, g *gauge, began time.Time, at time.Duration, loaded int64) {
	s.t.Helper()
	list := g.between(at, g.now())
	s.judgeMemory(list, loaded, outageGrowth)
	s.judgeLog(p, began)
	s.t.Logf("%.3f cores busy", cores(list))
	if busy := cores(list); busy > outageCores {
		s.t.Errorf("%.2f cores were busy, want at most %.2f", busy, outageCores)
	}
}

func (s *stage) judgeMemory(list []sample, loaded, growth int64) {
	s.t.Helper()
	s.t.Logf("memory under load %d MiB, then (s:MiB) %s", loaded/mib, curve(list, 12))
	if most := peakRSS(list); most > loaded+growth {
		s.t.Errorf("memory grew to %d MiB from %d MiB", most/mib, loaded/mib)
	}
}

func (s *stage) judgeLog(p *process, began time.Time) {
	s.t.Helper()
	lines, byMessage := p.logged(began, time.Now())
	took := time.Since(began)
	s.t.Logf("%d log lines in %v:%s", lines, took.Round(time.Second), most(byMessage))
	if float64(lines) > took.Seconds() {
		s.t.Errorf("%d log lines in %v, more than one a second", lines, took)
	}
}

// judgeDrain: from a moment on at least twice as much was delivered as came, on
// average, until nine tenths of it all were.
func (s *stage) judgeDrain(from time.Duration, perSecond float64) {
	s.t.Helper()
	s.ledger.mu.Lock()
	defer s.ledger.mu.Unlock()
	var n int
	var last time.Duration
	all := 0
	for i := range s.ledger.posts {
		if s.ledger.posts[i].at >= from {
			all++
		}
	}
	for i := range s.ledger.posts {
		if p := &s.ledger.posts[i]; p.at >= from && n < all*9/10 {
			n++
			last = p.at
		}
	}
	pace := float64(n) / (last - from).Seconds()
	s.t.Logf("drained %d posts in %v: %.0f/s, %.1f times the input of %.0f/s", n, (last - from).Round(time.Millisecond), pace, pace/perSecond, perSecond)
	if full() && pace < 2*perSecond {
		s.t.Errorf("drained at %.0f posts a second, less than twice the input of %.0f", pace, perSecond)
	}
}

// TestBrokerKill: of three brokers, one after the other is killed under load
// and comes back, so that leaders and coordinators of all kinds are among them.
func TestBrokerKill(t *testing.T) {
	t.Parallel()
	kafka := testkit.Kafka(t, 3)
	s := newStage(t, setting{plan: smallPlan(6000, 3, failingFirst(10)), kafka: kafka, vars: map[string]string{"REPLICATION": "3"}})
	p := s.run(nil)
	wait := s.produce(150)
	nodes := s.rng.Perm(3)
	if !full() {
		nodes = nodes[:2]
	}
	for _, i := range nodes {
		s.posts(1000, time.Minute)
		led, roles := s.leads(int32(i + 1))
		kafka.Kill9(i + 1)
		at := s.ledger.now()
		s.posts(1000, time.Minute)
		t.Logf("broker %d killed: leader of %d partitions, coordinator of %v; 1000 posts later after %v", i+1, led, roles, (s.ledger.now() - at).Round(time.Millisecond))
		kafka.Start(i + 1)
	}
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.judge(p).noDupes(t)
}
