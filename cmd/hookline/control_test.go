package main

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	lanecmd "github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/registry"
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

// What only the process that would send knows is told with what is stored: a key
// that it lacks and this program has.
func TestCannotSendIsTold(t *testing.T) {
	const why = "secret: signing.secrets[0]: key k1: not there"
	item := func(effective pipeline.State, live *lanecmd.Status) *liveItem {
		return &liveItem{Item: registry.Item{Effective: effective, Revision: 7}, Live: live}
	}
	for want, it := range map[string]*liveItem{
		"active, cannot send: " + cut(why, wideCell): item(pipeline.StateActive, &lanecmd.Status{Known: true, RegistryVersion: 7, State: pipeline.StatePaused, Reason: why}),
		"active, cannot send: env:X is not set":      item(pipeline.StateActive, &lanecmd.Status{Known: true, State: pipeline.StateActive, Local: "env:X is not set"}),
		"active, cannot send: it is paused there":    item(pipeline.StateActive, &lanecmd.Status{Known: true, RegistryVersion: 8, State: pipeline.StatePaused}),
		"active":   item(pipeline.StateActive, &lanecmd.Status{Known: true, RegistryVersion: 6, State: pipeline.StatePaused, Reason: "it has not read the change yet"}),
		"paused":   item(pipeline.StatePaused, &lanecmd.Status{Known: true, RegistryVersion: 7, State: pipeline.StatePaused, Reason: "x"}),
		"disabled": item(pipeline.StateDisabled, nil),
	} {
		if got := it.stateText(); got != want {
			t.Errorf("%q, want %q", got, want)
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
