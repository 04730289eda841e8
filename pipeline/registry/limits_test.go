package registry

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func TestParseRate(t *testing.T) {
	for text, want := range map[string]struct {
		rate     pipeline.Rate
		interval time.Duration
		burst    int
	}{
		"":         {},
		"50/s":     {pipeline.Rate{Count: 50, Per: time.Second}, 20 * time.Millisecond, 50},
		"600 / m":  {pipeline.Rate{Count: 600, Per: time.Minute}, 100 * time.Millisecond, 10},
		"1/h":      {pipeline.Rate{Count: 1, Per: time.Hour}, time.Hour, 1},
		"3/s":      {pipeline.Rate{Count: 3, Per: time.Second}, 333333334, 3},
		"100000/s": {pipeline.Rate{Count: 100_000, Per: time.Second}, 10 * time.Microsecond, 100_000},
	} {
		r, err := ParseRate(text)
		if err != nil || r != want.rate || r.Interval() != want.interval || r.Burst() != want.burst {
			t.Errorf("%q: %+v, each %v, burst %d, %v", text, r, r.Interval(), r.Burst(), err)
		}
	}
	for _, text := range []string{"50", "0/s", "-1/s", "1.5/s", "/s", "50/d", "50/s/s", "100001/s", "99999999999/h"} {
		if r, err := ParseRate(text); err == nil {
			t.Errorf("%q: %+v", text, r)
		}
	}
}

func TestParseDisableAfter(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "5d": 120 * time.Hour, "12h": 12 * time.Hour, "1m": time.Minute} {
		if d, err := parseDisableAfter(text); err != nil || d != want {
			t.Errorf("%q: %v, %v", text, d, err)
		}
	}
	for _, text := range []string{"59s", "366d", "-5d", "d", "5", "1.5d", "70000d"} {
		if d, err := parseDisableAfter(text); err == nil {
			t.Errorf("%q: %v", text, d)
		}
	}
}

// What the dispatcher notes of failures neither touches a decision nor outlives
// a new configuration or a resumption.
func TestHealthOfSnapshot(t *testing.T) {
	pol := &Policy{}
	doc := Document{ID: "s", Tenant: "t", URL: "https://a.example.com/", Rate: "50/s", DisableAfter: "5d"}
	since := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	b := newBuilder(pol)
	add := func(key, value []byte) *pipeline.Subscription {
		t.Helper()
		if err := b.add(key, value); err != nil {
			t.Fatal(err)
		}
		return b.snapshot(0).Get("s")
	}
	s := add([]byte("s"), encode(&doc, 1, since, nil))
	if s.Rate.Count != 50 || s.DisableAfter != 120*time.Hour || !s.FailingSince.IsZero() {
		t.Errorf("%+v", s)
	}
	if s = add(HealthRecord("s", 1, since)); !s.FailingSince.Equal(since) || s.State != pipeline.StateActive {
		t.Errorf("failing: %+v", s)
	}
	if s = add(StateRecord("s", &StateInfo{Revision: 1, State: pipeline.StatePaused, Since: since.Add(time.Hour)})); s.State != pipeline.StatePaused {
		t.Errorf("paused: %+v", s)
	}
	if s = add(HealthRecord("s", 1, since.Add(time.Second))); s.State != pipeline.StatePaused || s.FailingSince.IsZero() {
		t.Errorf("a note after the pause: %+v", s)
	}
	if s = add(StateRecord("s", &StateInfo{Revision: 1, State: pipeline.StateActive, Since: since.Add(2 * time.Hour)})); !s.FailingSince.IsZero() {
		t.Errorf("resumed: %+v", s)
	}
	if s = add(HealthRecord("s", 1, since.Add(3*time.Hour))); s.FailingSince.IsZero() {
		t.Errorf("failing after that: %+v", s)
	}
	if s = add([]byte("s"), encode(&doc, 2, since, nil)); !s.FailingSince.IsZero() {
		t.Errorf("a new configuration: %+v", s)
	}
	add(HealthRecord("s", 2, since))
	if s = add(HealthRecord("s", 2, time.Time{})); !s.FailingSince.IsZero() {
		t.Errorf("recovered: %+v", s)
	}
}
