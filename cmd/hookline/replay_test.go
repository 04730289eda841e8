package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hookline/hookline/internal/testkit"
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

// A replay of nothing has no id to look for: none is kept.
func TestReplayOfNothing(t *testing.T) {
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "orders"))
	env := []string{
		"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0], "HOOKLINE_REPLICATION=1", "HOOKLINE_PARTITIONS=2", "HOOKLINE_EVENTS_TOPICS=orders=json:type=/type",
	}
	file := filepath.Join(t.TempDir(), "s.yaml")
	if err := os.WriteFile(file, []byte("subscriptions:\n  - {id: a, tenant: t, url: 'https://a.example.com/'}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, env, "subs", "apply", "-f", file); r.code != exitDone {
		t.Fatalf("%s%s", r.out, r.err)
	}
	r := run(t, env, "replay", "--subscription", "a", "--since", "1h", "--yes")
	if want := "0 events, matched with today's filter; nothing to deliver again\n"; r.code != exitDone || r.out != want {
		t.Errorf("exit code %d, told %q, want %q\n%s", r.code, r.out, want, r.err)
	}
}
