package match

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

func sub(id, tenant string, events ...string) *pipeline.Subscription {
	return &pipeline.Subscription{ID: id, Tenant: tenant, Events: events, State: pipeline.StateActive}
}

func ids(subs []*pipeline.Subscription) string {
	names := make([]string, len(subs))
	for i, s := range subs {
		names[i] = s.ID
	}
	return strings.Join(names, " ")
}

func TestMatch(t *testing.T) {
	paused, disabled := sub("paused", "p", "*"), sub("disabled", "p", "*")
	paused.State, disabled.State = pipeline.StatePaused, pipeline.StateDisabled
	formatted := sub("formatted", "f", "*")
	formatted.Formats = []pipeline.Format{"json", "task"}
	resthook := sub("resthook", "a", "*")
	resthook.Resthook = "success"
	x := NewIndex(slices.Values([]*pipeline.Subscription{
		sub("z-all", "*", "*"), sub("exact", "a", "COTTask.create"), sub("prefix", "a", "COTTask.*", "COTTask.create"),
		sub("alias", "a", "COTTask"), sub("suffix", "a", "*.create"), sub("inner", "a", "C*T*.c*e"), sub("other", "b", "COTTask.*"),
		paused, disabled, formatted, resthook,
	}))
	tests := []struct {
		name string
		ev   pipeline.Event
		want string
	}{
		{"all ways", pipeline.Event{Tenant: "a", Type: "COTTask.create", TypeAlias: "COTTask"}, "alias exact inner prefix suffix z-all"},
		{"no alias", pipeline.Event{Tenant: "a", Type: "COTTask.create"}, "exact inner prefix suffix z-all"},
		{"case counts", pipeline.Event{Tenant: "a", Type: "cottask.CREATE"}, "z-all"},
		{"no tenant", pipeline.Event{Type: "COTTask.create"}, "z-all"},
		{"tenant called *", pipeline.Event{Tenant: "*", Type: "COTTask.create"}, "z-all"},
		{"type called *", pipeline.Event{Tenant: "a", Type: "*"}, "z-all"},
		{"no type", pipeline.Event{Tenant: "a"}, "z-all"},
		{"paused, not disabled", pipeline.Event{Tenant: "p", Type: "x"}, "paused z-all"},
		{"format", pipeline.Event{Tenant: "f", Type: "x", Format: "task"}, "formatted z-all"},
		{"other format", pipeline.Event{Tenant: "f", Type: "x", Format: "goflow"}, "z-all"},
		{"target", pipeline.Event{Tenant: "a", Type: "COTTask.x", Target: "prefix"}, "prefix"},
		{"target of another tenant", pipeline.Event{Tenant: "a", Type: "COTTask.x", Target: "other"}, ""},
		{"target without that type", pipeline.Event{Tenant: "a", Type: "COTTask.x", Target: "exact"}, ""},
		{"target by alias", pipeline.Event{Tenant: "a", Type: "COTTask.x", TypeAlias: "COTTask", Target: "alias"}, "alias"},
		{"target disabled", pipeline.Event{Tenant: "p", Type: "x", Target: "disabled"}, ""},
		{"target unknown", pipeline.Event{Tenant: "a", Type: "x", Target: "nobody"}, ""},
		{"target of another format", pipeline.Event{Tenant: "f", Type: "x", Format: "goflow", Target: "formatted"}, ""},
		{"resthook", pipeline.Event{Tenant: "a", Type: "resthook_called", Resthook: "success"}, "resthook"},
		{"other resthook", pipeline.Event{Tenant: "a", Type: "resthook_called", Resthook: "failure"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			kept := sub("kept", "", "")
			got := x.Match(&tt.ev, []*pipeline.Subscription{kept})
			if got[0] != kept || ids(got[1:]) != tt.want {
				t.Errorf("got %q, want %q", ids(got[1:]), tt.want)
			}
		})
	}
	if x.Len() != 10 {
		t.Errorf("Len %d, want 10", x.Len())
	}
}

func TestLaterOfEqualIDsWins(t *testing.T) {
	first, second := sub("a", "t", "x"), sub("a", "t", "y")
	x := NewIndex(slices.Values([]*pipeline.Subscription{first, second}))
	if got := x.Match(&pipeline.Event{Tenant: "t", Type: "y"}, nil); len(got) != 1 || got[0] != second || x.Len() != 1 {
		t.Errorf("got %v of %d", got, x.Len())
	}
}

// naiveGlob is the definition: a wildcard takes any run.
func naiveGlob(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] == '*' {
		return naiveGlob(pattern[1:], name) || name != "" && naiveGlob(pattern, name[1:])
	}
	return name != "" && name[0] == pattern[0] && naiveGlob(pattern[1:], name[1:])
}

func naiveMatch(subs []*pipeline.Subscription, ev *pipeline.Event) []string {
	var out []string
	for _, s := range subs {
		named := slices.ContainsFunc(s.Events, func(p string) bool {
			return naiveGlob(p, ev.Type) || ev.TypeAlias != "" && naiveGlob(p, ev.TypeAlias)
		})
		if named && s.State != pipeline.StateDisabled && (s.Tenant == "*" || s.Tenant == ev.Tenant) && s.Resthook == ev.Resthook &&
			(len(s.Formats) == 0 || slices.Contains(s.Formats, ev.Format)) && (ev.Target == "" || ev.Target == s.ID) {
			out = append(out, s.ID)
		}
	}
	slices.Sort(out)
	return out
}

func TestMatchEqualsNaive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name, pattern := rapid.StringMatching(`[ab.]{0,6}`), rapid.StringMatching(`[ab.*]{0,6}`)
		tenant := rapid.SampledFrom([]string{"t1", "t2", "*", ""})
		format := rapid.SampledFrom([]pipeline.Format{"json", "task", "goflow"})
		resthook := rapid.SampledFrom([]string{"", "", "r"})
		var subs []*pipeline.Subscription
		for i := range rapid.IntRange(0, 12).Draw(t, "subscriptions") {
			s := sub(fmt.Sprintf("s%d", (i*7)%13), tenant.Draw(t, "tenant"), rapid.SliceOfN(pattern, 1, 4).Draw(t, "events")...)
			s.Formats = rapid.SliceOfN(format, 0, 2).Draw(t, "formats")
			s.Resthook = resthook.Draw(t, "resthook")
			s.State = rapid.SampledFrom([]pipeline.State{"active", "paused", "disabled"}).Draw(t, "state")
			subs = append(subs, s)
		}
		x := NewIndex(slices.Values(subs))
		for range 10 {
			ev := pipeline.Event{
				Tenant: tenant.Draw(t, "tenant"), Type: name.Draw(t, "type"), TypeAlias: name.Draw(t, "alias"),
				Format: format.Draw(t, "format"), Resthook: resthook.Draw(t, "resthook"),
				Target: rapid.SampledFrom([]string{"", "", "s0", "s7", "s99"}).Draw(t, "target"),
			}
			if got, want := ids(x.Match(&ev, nil)), strings.Join(naiveMatch(subs, &ev), " "); got != want {
				t.Fatalf("%+v: got %q, want %q", ev, got, want)
			} else if got := strings.Join(x.IDs(&ev, []string{"kept"})[1:], " "); got != want {
				t.Fatalf("%+v: got the ids %q, want %q", ev, got, want)
			}
		}
	})
}

// TestGlobIsLinear holds a hostile pattern and name to a time that only a
// backtracking matcher exceeds.
func TestGlobIsLinear(t *testing.T) {
	x := NewIndex(slices.Values([]*pipeline.Subscription{sub("a", "*", strings.Repeat("a*", 100)+"b")}))
	ev := pipeline.Event{Type: strings.Repeat("a.", 10_000)}
	start := time.Now()
	if got := x.Match(&ev, nil); len(got) != 0 {
		t.Errorf("matched %s", ids(got))
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("took %v", took)
	}
}

// crowd is n subscriptions of n/10 tenants with names of every kind.
func crowd(n int) []*pipeline.Subscription {
	subs := make([]*pipeline.Subscription, n)
	for i := range subs {
		tenant := fmt.Sprintf("tenant-%d", i/10)
		pattern := []string{"COTTask.create", "COTTask.*", "*", fmt.Sprintf("kind%d.*", i), "*.delete"}[i%5]
		subs[i] = sub(fmt.Sprintf("sub-%06d", i), tenant, pattern, "COTUser")
	}
	return subs
}

func TestHundredThousand(t *testing.T) {
	subs := crowd(100_000)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	start := time.Now()
	x := NewIndex(slices.Values(subs))
	took := time.Since(start)
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("100,000 subscriptions: index built in %v, %d MiB", took, size>>20)
	if took > 5*time.Second || size > 500<<20 {
		t.Errorf("took %v and %d bytes, want at most 5 s and 500 MB", took, size)
	}
	ev := pipeline.Event{Tenant: "tenant-77", Type: "COTTask.create"}
	if got := x.Match(&ev, nil); ids(got) != "sub-000770 sub-000771 sub-000772 sub-000775 sub-000776 sub-000777" {
		t.Errorf("got %s", ids(got))
	}
	runtime.KeepAlive(subs)
}

func TestMatchAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	x := NewIndex(slices.Values(crowd(1000)))
	dst := make([]*pipeline.Subscription, 0, 16)
	names := make([]string, 0, 16)
	for _, ev := range []pipeline.Event{
		{Tenant: "nobody", Type: "COTTask.create", TypeAlias: "COTTask"},
		{Tenant: "tenant-7", Type: "COTTask.create", TypeAlias: "COTTask"},
	} {
		if n := testing.AllocsPerRun(100, func() { dst = x.Match(&ev, dst[:0]) }); n != 0 {
			t.Errorf("%+v: %v allocations, want 0", ev, n)
		}
		if n := testing.AllocsPerRun(100, func() { names = x.IDs(&ev, names[:0]) }); n != 0 {
			t.Errorf("%+v: %v allocations for the ids, want 0", ev, n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	x := NewIndex(slices.Values(crowd(100_000)))
	for _, bm := range []struct{ name, tenant string }{{"hit", "tenant-77"}, {"miss", "nobody"}} {
		b.Run(bm.name, func(b *testing.B) {
			ev := pipeline.Event{Tenant: bm.tenant, Type: "COTTask.create", TypeAlias: "COTTask"}
			var dst []*pipeline.Subscription
			b.ReportAllocs()
			for b.Loop() {
				dst = x.Match(&ev, dst[:0])
			}
		})
	}
}

// BenchmarkIDs is one event of 10 takers, of another type each time: among many
// subscriptions they are in no cache of the processor.
func BenchmarkIDs(b *testing.B) {
	for _, n := range []int{100, 100_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			types := make([]string, n/10)
			for i := range types {
				types[i] = fmt.Sprintf("bench.%d", i)
			}
			subs := make([]*pipeline.Subscription, n)
			for i := range subs {
				subs[i] = sub(fmt.Sprintf("sub-%020d", i), "a", types[i%len(types)])
			}
			x := NewIndex(slices.Values(subs))
			random := rand.New(rand.NewPCG(1, 2))
			ev := pipeline.Event{Tenant: "a"}
			var dst []string
			b.ReportAllocs()
			for b.Loop() {
				ev.Type = types[random.IntN(len(types))]
				if dst = x.IDs(&ev, dst[:0]); len(dst) != 10 {
					b.Fatal(len(dst), "takers, want 10")
				}
			}
		})
	}
}

func BenchmarkNewIndex(b *testing.B) {
	subs := crowd(100_000)
	for b.Loop() {
		NewIndex(slices.Values(subs))
	}
}
