package main

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline/replay"
)

// A replay of nothing, and one of a time that ends before it begins, are wrong
// usage; they are told before anything is reached.
func TestReplayRefusesWrongUsage(t *testing.T) {
	for name, o := range map[string]*replayFlags{
		"no selection":    {rate: "1/s"},
		"ends too early":  {rate: "1/s", sel: replay.Selection{Subscription: "s"}, since: "1h", until: "2h"},
		"rate no number":  {rate: "fast", sel: replay.Selection{Subscription: "s"}},
		"since no moment": {rate: "1/s", sel: replay.Selection{Subscription: "s"}, since: "yesterday"},
	} {
		if _, err := o.complete(time.Now()); exitCode(err) != exitUsage {
			t.Errorf("%s: exit code %d of %v, want %d", name, exitCode(err), err, exitUsage)
		}
	}
	o := &replayFlags{rate: "1/s", sel: replay.Selection{Subscription: "s"}, since: "2h", until: "1h"}
	if _, err := o.complete(time.Now()); err != nil {
		t.Error(err)
	}
}
