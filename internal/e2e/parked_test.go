package e2e

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/receiver"
)

// Bounds of a million parked deliveries, all of one partition.
const (
	parkedGrowth    = 300 * mib // over the memory of an idle process
	recoveredWithin = 10 * time.Second
)

// parkedPlan has ten paused subscriptions that take every event.
func parkedPlan(events int) *plan {
	p := &plan{
		events: events, padding: 100, delays: []time.Duration{time.Second, time.Second, time.Second},
		typeOf: func(int) string { return "t" }, partition: 1,
	}
	for i := range 10 {
		p.subs = append(p.subs, subscriber{
			id: fmt.Sprintf("sub-%03d", i), kind: "good", events: "t",
			answer: func(*post) receiver.Reply { return receiver.Reply{} },
		})
	}
	return p.complete()
}

// TestMillionParked: subscriptions are paused, and everything is parked behind
// them, in one partition; the process is killed, takes its work up again and,
// when they are resumed, delivers all of it in order. The short form parks
// 20,000.
func TestMillionParked(t *testing.T) {
	t.Parallel()
	events := 2000
	if full() {
		events = 100_000
	}
	s := newStage(t, setting{plan: parkedPlan(events), binary: plain, vars: map[string]string{"PARTITIONS": "1", "INSTANCE_ID": "one"}})
	active := s.subscriptions(s.receiver)
	s.must(s.command(strings.ReplaceAll(active, `"id":`, `"state":"paused","id":`), "subs", "apply", "-f", "-"))
	p := s.run(nil)
	g := watchUse(t, p)
	s.settle(2 * time.Second)
	idle := peakRSS(g.between(0, g.now()))
	began := time.Now()
	s.produce(0)()
	want := strconv.Itoa(s.plan.expected)
	s.awaitMetric(p, "hookline_parked_deliveries", want)
	took := time.Since(began)
	list := g.between(0, g.now())
	t.Logf("%s deliveries parked in %v; idle %d MiB, at most %d MiB, then %d MiB", want, took.Round(time.Millisecond), idle/mib, peakRSS(list)/mib, list[len(list)-1].rssBytes/mib)
	if most := peakRSS(list); most > idle+parkedGrowth {
		t.Errorf("memory grew to %d MiB from %d MiB", most/mib, idle/mib)
	}
	s.kill(p)
	began = time.Now()
	p = s.run(nil)
	s.awaitMetric(p, "hookline_parked_deliveries", want)
	ready := time.Since(began)
	g = watchUse(t, p)
	s.settle(time.Second)
	t.Logf("ready again with all of them %v after its start, %d MiB", ready.Round(time.Millisecond), peakRSS(g.between(0, g.now()))/mib)
	if full() && ready > recoveredWithin {
		t.Errorf("it took %v, want at most %v", ready, recoveredWithin)
	}
	began = time.Now()
	s.must(s.command(active, "subs", "apply", "-f", "-"))
	s.await("every pair is settled", stageLimit, s.ledger.all)
	took = time.Since(began)
	t.Logf("drained in %v: %.0f a second; at most %d MiB", took.Round(time.Millisecond), float64(s.plan.expected)/took.Seconds(), peakRSS(g.between(0, g.now()))/mib)
	s.judge(p).noDupes(t)
}

// settle lets a process be, so that its memory can be looked at.
func (s *stage) settle(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.ctx.Done():
	}
}

// awaitMetric waits until a process's metric has a value.
func (s *stage) awaitMetric(p *process, name, want string) {
	s.t.Helper()
	tick := time.NewTicker(100 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	got := ""
	for {
		if v, ok := s.metric(p, name); ok {
			if n, err := strconv.ParseFloat(v, 64); err == nil {
				got = strconv.FormatFloat(n, 'f', -1, 64)
			}
		}
		if got == want {
			return
		}
		select {
		case <-tick.C:
		case <-p.ended:
			s.t.Fatalf("%s has ended while %s was %s, not yet %s", p.name, name, got, want)
		case <-s.ctx.Done():
			s.t.Fatalf("%s is %s, want %s", name, got, want)
		}
	}
}

// metric reads a metric, with its labels as Prometheus writes them.
func (s *stage) metric(p *process, name string) (string, bool) {
	_, body, err := get(s.ctx, "http://"+p.admin+"/metrics")
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(body) {
		if v, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}
