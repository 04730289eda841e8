package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/registry"
)

// What --prune deletes is said before and after, and files without a
// subscription do not delete all of them by mistake.
func TestPrune(t *testing.T) {
	cluster := testkit.KFake(t)
	env := []string{"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0], "HOOKLINE_REPLICATION=1", "HOOKLINE_PARTITIONS=2"}
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	sub := func(id, host string) string { return "  - {id: " + id + ", tenant: t, url: 'https://" + host + "/'}\n" }
	two := file("two.yaml", "subscriptions:\n"+sub("a", "a.example.com")+sub("b", "b.example.com"))
	other := file("other.yaml", "subscriptions:\n"+sub("b", "new.example.com")+sub("c", "c.example.com"))
	none := file("none.yaml", "subscriptions: []\n")
	apply := func(code int, want string, args ...string) {
		t.Helper()
		r := run(t, env, append([]string{"subs", "apply"}, args...)...)
		if r.code != code || !strings.Contains(r.out+r.err, want) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", args, r.code, code, want, r.out, r.err)
		}
	}
	apply(exitDone, "2 subscriptions are valid; nothing was changed\n", "-f", two, "--dry-run")
	apply(exitDone, `"action": "valid"`, "-f", two, "--dry-run", "--json")
	apply(exitDone, "a created\nb created\n", "-f", two, "--prune")
	apply(exitDone, "b would be updated\nc would be created\na would be deleted\n2 subscriptions are valid, 1 would be deleted; nothing was changed\n", "-f", other, "--prune", "--dry-run")
	apply(exitDone, `"action": "deleted"`, "-f", other, "--prune", "--dry-run", "--json")
	for _, args := range [][]string{{"-f", none, "--prune"}, {"-f", none, "--prune", "--dry-run"}} {
		apply(exitUsage, "--prune would delete all that there are (give --allow-empty to do that)", args...)
	}
	apply(exitDone, "a unchanged\nb unchanged\n", "-f", two)
	apply(exitDone, "a would be deleted\nb would be deleted\n0 subscriptions are valid, 2 would be deleted", "-f", none, "--prune", "--allow-empty", "--dry-run")
	apply(exitDone, "a deleted\nb deleted\n", "-f", none, "--prune", "--allow-empty")
}

// Scripts read the lines of standard output: one for each subscription, whatever
// else there is to tell of it.
func TestChangesAreOneLineEach(t *testing.T) {
	var out, told bytes.Buffer
	c := &cli{out: &out, err: &told}
	if err := c.printChanges([]registry.Change{{ID: "a", Action: "updated", Reactivated: "gone"}, {ID: "b", Action: "unchanged"}}, false); err != nil {
		t.Fatal(err)
	}
	if out.String() != "a updated\nb unchanged\n" {
		t.Errorf("standard output: %q", out.String())
	}
	if want := "hookline: a: it was disabled (gone) and is in use again, without what it missed (hookline subs resume a --replay delivers that first)\n"; told.String() != want {
		t.Errorf("standard error: %q, want %q", told.String(), want)
	}
}
