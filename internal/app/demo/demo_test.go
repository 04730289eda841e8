package demo

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

var plan = &Plan{Events: 20, RetryDelays: []time.Duration{time.Second, time.Second, time.Second}}

// perfect plays the plan by the rules and gives what would be observed.
func perfect(t *testing.T, p *Plan) *Observed {
	t.Helper()
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	o := &Observed{GoneState: pipeline.StateDisabled, Rows: map[string]Rows{}, EventRows: p.Events}
	script := p.Script()
	for n, e := range p.Records(now) {
		var kind struct{ Type, Event string }
		if err := json.Unmarshal(e.Value, &kind); err != nil {
			t.Fatalf("%s: %v", e.Value, err)
		}
		for _, d := range p.Subscriptions("http://127.0.0.1:1") {
			name := kind.Type
			if e.Topic == TopicTasks {
				name += "." + kind.Event
			}
			if !slices.Contains(d.Events, name) && !(d.Events[0] == "COTTask.*" && e.Topic == TopicTasks) {
				continue
			}
			deliver(p, o, script, d.ID, fmt.Sprintf("dlv_%d_%s", n, d.ID), string(e.Value), now.Add(time.Duration(n)*time.Millisecond))
		}
	}
	// The flaky endpoint's first delivery holds back the others.
	slices.SortStableFunc(o.Requests, func(a, b receiver.Request) int { return strings.Compare(a.Subscription, b.Subscription) })
	return o
}

func deliver(p *Plan, o *Observed, script func(*receiver.Request) receiver.Reply, sub, id, body string, at time.Time) {
	rows := o.Rows[sub]
	for attempt := 1; ; attempt++ {
		r := receiver.Request{Time: at, Path: "/" + sub, Subscription: sub, DeliveryID: id, Attempt: attempt, Body: body}
		r.Status = max(200, script(&r).Status)
		o.Requests = append(o.Requests, r)
		rows.Attempts++
		rows.Unique++
		if ok(&r) {
			rows.Successes++
		} else if r.Status != 410 && attempt <= len(p.RetryDelays) {
			at = at.Add(p.RetryDelays[attempt-1])
			continue
		} else {
			o.Dead = append(o.Dead, kafkax.Dead{Subscription: sub, Reason: pipeline.DeadExhausted, Attempts: attempt})
		}
		rows.Final++
		o.Rows[sub] = rows
		return
	}
}

func TestPerfectRunHolds(t *testing.T) {
	for _, p := range []*Plan{plan, {Events: MinEvents, RetryDelays: []time.Duration{time.Second}}, {Events: 201, RetryDelays: plan.RetryDelays}} {
		o := perfect(t, p)
		if err := Failed(p.Verify(o)); err != nil {
			t.Errorf("%d events: %v", p.Events, err)
		}
		if len(o.Requests) != p.Requests() {
			t.Errorf("%d events: %d requests, the plan says %d", p.Events, len(o.Requests), p.Requests())
		}
	}
}

// Each claim must fail when what it claims is broken: a demo that cannot fail
// shows nothing.
func TestEachBrokenClaimIsFound(t *testing.T) {
	find := func(o *Observed, sub string, nth int) *receiver.Request {
		return bySubscription(o.Requests)[sub][nth]
	}
	for name, tt := range map[string]struct {
		breakIt func(o *Observed)
		claim   string
	}{
		"a lost event": {func(o *Observed) {
			o.Requests = slices.DeleteFunc(o.Requests, func(r receiver.Request) bool {
				return r.Subscription == Good && r.Attempt == 1 && strings.Contains(r.Body, `"serial":3,`)
			})
		}, "every event reached"},
		"a request twice":      {func(o *Observed) { o.Requests = append(o.Requests, *find(o, Slow, 7)) }, "came twice"},
		"wrong order":          {func(o *Observed) { a, b := find(o, Good, 0), find(o, Good, 5); *a, *b = *b, *a }, "in their order"},
		"overtaken":            {func(o *Observed) { r := find(o, Flaky, 2); r.Status = 503 }, "in their order"},
		"an early retry":       {func(o *Observed) { r := find(o, Flaky, 1); r.Time = r.Time.Add(-time.Millisecond) }, "waited for their delays"},
		"no dead letter":       {func(o *Observed) { o.Dead = nil }, "is a dead letter"},
		"a stray dead letter":  {func(o *Observed) { o.Dead = append(o.Dead, kafkax.Dead{Subscription: Good}) }, "is a dead letter"},
		"wrong attempt number": {func(o *Observed) { find(o, Broken, 2).Attempt = 7 }, "is a dead letter"},
		"still active":         {func(o *Observed) { o.GoneState = pipeline.StateActive }, "410 is disabled"},
		"a row too many":       {func(o *Observed) { r := o.Rows[Good]; r.Attempts++; o.Rows[Good] = r }, "one row for each request"},
		"no rows":              {func(o *Observed) { o.Rows = map[string]Rows{} }, "one row for each request"},
		"an event twice":       {func(o *Observed) { o.EventRows++ }, "one row for each request"},
	} {
		o := perfect(t, plan)
		tt.breakIt(o)
		found := map[string]bool{}
		for _, c := range plan.Verify(o) {
			if c.Err != nil {
				found[c.Text] = true
			}
		}
		if !slices.ContainsFunc(slices.Collect(maps.Keys(found)), func(s string) bool { return strings.Contains(s, tt.claim) }) {
			t.Errorf("%s: %q still holds; failed: %v", name, tt.claim, found)
		}
	}
}

func TestWithoutClickHouseNothingIsClaimedOfIt(t *testing.T) {
	o := perfect(t, plan)
	o.Rows = nil
	for _, c := range plan.Verify(o) {
		if strings.Contains(c.Text, "ClickHouse") {
			t.Errorf("claims that %s", c.Text)
		}
	}
}
