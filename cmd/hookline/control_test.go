package main

import (
	"testing"
	"time"

	lanecmd "github.com/hookline/hookline/pipeline/command"
)

// A delivery that will be tried again is not "stuck": it is said what it waits
// for, and until when.
func TestWaitsFor(t *testing.T) {
	at := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	for _, tt := range []struct {
		s          lanecmd.Stuck
		name, text string
	}{
		{lanecmd.Stuck{Delivery: "dlv_1", Attempts: 1, NextAt: at}, "retrying", "dlv_1 after 1 attempt, 0 behind it, waits for attempt 2 at 2026-01-31T08:00:00Z"},
		{lanecmd.Stuck{Entity: "o-1", Attempts: 2, Behind: 3}, "retrying", "o-1: a delivery after 2 attempts, 3 behind it, waits for room to be sent"},
		{lanecmd.Stuck{Delivery: "dlv_1", Attempts: 4, Blocked: true}, "blocked", "dlv_1 after 4 attempts, 0 behind it, waits until somebody does: hookline subs retry, or subs skip"},
	} {
		if name, text := waitsFor(&tt.s); name != tt.name || text != tt.text {
			t.Errorf("%s: %s, want %s: %s", name, text, tt.name, tt.text)
		}
	}
}

func TestCount(t *testing.T) {
	for want, got := range map[string]string{
		"1 subscription is": are(1, "subscription"), "0 subscriptions are": are(0, "subscription"), "1 delivery": count(1, "delivery"), "2 deliveries": count(2, "delivery"),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
