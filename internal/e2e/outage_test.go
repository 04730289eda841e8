package e2e

import (
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// TestClickHouseOutage: the engine is killed under load and comes back;
// deliveries go on meanwhile, and every request has its row in the end.
func TestClickHouseOutage(t *testing.T) {
	t.Parallel()
	outage, events, rate := 10*time.Second, 3000, 200
	if full() {
		outage, events, rate = time.Minute, 14_000, 200
	}
	engine := testkit.Engine(t)
	s := newStage(t, setting{plan: smallPlan(events, 3, failingFirst(10)), engine: engine})
	p := s.run(nil)
	wait := s.produce(rate)
	s.posts(1000, time.Minute)
	engine.Kill9()
	began, before := s.ledger.now(), s.ledger.count()
	over := time.NewTimer(outage) // the length of the outage is what is tested
	defer over.Stop()
	<-over.C
	during := s.ledger.count() - before
	t.Logf("%d posts in %v without ClickHouse", during, s.ledger.now()-began)
	if during < 500 {
		t.Errorf("only %d posts in %v without ClickHouse", during, outage)
	}
	if code, body, err := get(s.ctx, "http://"+p.admin+"/readyz"); err != nil || code != 200 || !strings.Contains(body, `"degraded":true`) {
		t.Errorf("/readyz without ClickHouse: status %d, %v, %s; want 200 and degraded", code, err, body)
	}
	engine.Start()
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	s.judge(p).noDupes(t)
	s.compareRows()
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
