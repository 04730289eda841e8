package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// TestSQL: the log answers SQL by the command and by plain HTTP alike.
func TestSQL(t *testing.T) {
	t.Parallel()
	p := &plan{
		events: 50, delays: []time.Duration{100 * time.Millisecond, 100 * time.Millisecond, 100 * time.Millisecond},
		typeOf: func(seq int) string { return fmt.Sprintf("t%d", seq%10) },
		subs: []subscriber{
			{id: "good", kind: "good", events: "t1", answer: good},
			{id: "dead", kind: "dead", events: "t2", answer: dead},
		},
	}
	s := newStage(t, setting{plan: p.complete(), engine: testkit.Engine(t)})
	proc := s.run(nil)
	s.produce(0)()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	const query = "SELECT outcome, count() FROM hookline.attempts GROUP BY outcome ORDER BY outcome"
	if got := s.sql(query); got != "success\t5\nresponse_error\t20" {
		t.Errorf("by HTTP:\n%s\nwant 5 success and 20 response_error", got)
	}
	r := s.must(s.command("", "sql", query))
	if f := strings.Fields(r.stdout); !strings.Contains(strings.Join(f, " "), "success 5 response_error 20") {
		t.Errorf("hookline sql wrote:\n%s\nwant 5 success and 20 response_error", r.stdout)
	}
	s.judge(proc).noDupes(t)
	s.compareRows()
}

// TestKafkaDown: a process that cannot reach Kafka says so and ends with code 3.
func TestKafkaDown(t *testing.T) {
	t.Parallel()
	broker := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	r := command(t, map[string]string{
		"KAFKA_BROKERS": broker, "EVENTS_TOPICS": "events=json:type=/kind", "ADMIN_ADDR": fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t)),
	}, "", "run")
	t.Logf("code %d after %v: %s", r.code, r.took.Round(time.Millisecond), strings.TrimSpace(r.stderr))
	if r.code != 3 || r.took > 15*time.Second || !strings.Contains(r.stderr, broker) {
		t.Errorf("got code %d after %v, want 3 within 15 s, and %s named", r.code, r.took, broker)
	}
}

// TestBadConfiguration: all errors at once, code 2, and nothing is started.
func TestBadConfiguration(t *testing.T) {
	t.Parallel()
	bad := map[string]string{
		"RETRY_DELAYS": "soon", "MAX_IN_FLIGHT": "0", "ALLOW_CIDRS": "everywhere", "PARTITIONS": "many",
		"EVENTS_TOPICS": "orders=csv", "REQUEST_TIMEOUTS": "1s",
	}
	r := command(t, bad, "", "run")
	t.Logf("code %d after %v:\n%s", r.code, r.took.Round(time.Millisecond), r.stderr)
	if r.code != 2 {
		t.Errorf("got code %d, want 2", r.code)
	}
	for name := range bad {
		if !strings.Contains(r.stderr, "HOOKLINE_"+name) {
			t.Errorf("HOOKLINE_%s is not named", name)
		}
	}
}
