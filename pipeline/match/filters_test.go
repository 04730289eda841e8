package match

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
)

// filtered is a subscription of tenant a with a compiled filter.
func filtered(t testing.TB, id, expr string) *pipeline.Subscription {
	t.Helper()
	s := sub(id, "a", "*")
	p, err := filter.Compile(expr, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Filter, s.Extra = expr, p
	return s
}

// failures is an Observer.
type failures struct {
	mu  sync.Mutex
	got []string
}

func (f *failures) FilterFailed(s *pipeline.Subscription, ev *pipeline.Event, r filter.Result, why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.got = append(f.got, strings.TrimSpace(s.ID+" "+ev.ID+" "+r.String()+" "+why))
}

func TestMatchWithFilters(t *testing.T) {
	uncompiled := sub("uncompiled", "a", "*")
	uncompiled.Filter = "true"
	var told failures
	x := NewObservedIndex(slices.Values([]*pipeline.Subscription{
		filtered(t, "active", `data.isActive == true`), filtered(t, "closed", `has(data.closedAt)`), filtered(t, "missing", `data.nope == 1`),
		filtered(t, "number", `data.weight`), filtered(t, "type", `hookline.type.startsWith("COTTask.")`), sub("none", "a", "*"), uncompiled,
		filtered(t, "zz-loop", `data.tags.exists(x, x == "red")`),
	}), &told)
	ev := pipeline.Event{ID: "e1", Tenant: "a", Type: "COTTask.update", Payload: []byte(`{"data":{"isActive":true,"weight":3,"tags":["red"]}}`)}
	kept := sub("kept", "", "")
	got := x.Match(&ev, []*pipeline.Subscription{kept})
	if got[0] != kept || ids(got[1:]) != "active none type zz-loop" {
		t.Errorf("got %q", ids(got))
	}
	if want := []string{"missing e1 error the event has no member nope", "number e1 not_boolean", "uncompiled e1 error"}; !slices.Equal(told.got, want) {
		t.Errorf("told %q, want %q", told.got, want)
	}
	if !x.Taken(&ev) || len(told.got) != 3 {
		t.Errorf("Taken: told %q", told.got)
	}
	for target, want := range map[string]string{"active": "active", "closed": "", "missing": "", "none": "none"} {
		ev := ev
		ev.Target = target
		if got := ids(x.Match(&ev, nil)); got != want || x.Taken(&ev) != (want != "") {
			t.Errorf("target %s: got %q, want %q", target, got, want)
		}
	}
	ev.Payload = []byte(`not JSON`)
	told.got = nil
	if got := ids(x.Match(&ev, nil)); got != "none type" || !slices.Contains(told.got, "active e1 not_json") {
		t.Errorf("got %q, told %q", got, told.got)
	}
}

// TestMatchIsConcurrent is for the race detector: evaluations are pooled.
func TestMatchIsConcurrent(t *testing.T) {
	x := NewIndex(slices.Values([]*pipeline.Subscription{filtered(t, "even", `data.n % 2 == 0`), filtered(t, "text", `data.s == string(data.n)`)}))
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 200 {
				n := g*1000 + i
				ev := pipeline.Event{Tenant: "a", Type: "x", Payload: fmt.Appendf(nil, `{"data":{"n":%d,"s":"%d"}}`, n, n)}
				want := "text"
				if n%2 == 0 {
					want = "even text"
				}
				if got := ids(x.Match(&ev, nil)); got != want {
					t.Errorf("%d: got %q", n, got)
				}
				if got := strings.Join(x.IDs(&ev, nil), " "); got != want {
					t.Errorf("%d: got the ids %q", n, got)
				}
			}
		})
	}
	wg.Wait()
}

func TestFiltersCostNothingWhereNobodyHasOne(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	subs := crowd(1000)
	subs = append(subs, filtered(t, "filtered", `data.isActive`))
	x := NewIndex(slices.Values(subs))
	dst := make([]*pipeline.Subscription, 0, 16)
	ev := pipeline.Event{Tenant: "tenant-7", Type: "COTTask.create", Payload: []byte(`not looked at`)}
	if n := testing.AllocsPerRun(100, func() { dst = x.Match(&ev, dst[:0]) }); n != 0 || len(dst) == 0 {
		t.Errorf("%v allocations, %d takers", n, len(dst))
	}
}

// BenchmarkMatchFilters is one event of 1 KiB and its takers, of whom so many
// have a filter of their own, or all the same one.
func BenchmarkMatchFilters(b *testing.B) {
	payload, err := os.ReadFile("testdata/event_1k.json")
	if err != nil {
		b.Fatal(err)
	}
	for _, bm := range []struct {
		name     string
		n        int
		distinct bool
	}{{"0", 0, true}, {"1", 1, true}, {"10", 10, true}, {"10-same", 10, false}, {"100-same", 100, false}} {
		b.Run(bm.name, func(b *testing.B) {
			subs := []*pipeline.Subscription{sub("plain", "a", "*")}
			shared := filtered(b, "shared", `data.isActive == true && data.weight >= 0`)
			for i := range bm.n {
				s := filtered(b, fmt.Sprintf("s%03d", i), fmt.Sprintf(`data.isActive == true && data.weight >= %d`, i-100))
				if !bm.distinct {
					s.Filter, s.Extra = shared.Filter, shared.Extra
				}
				subs = append(subs, s)
			}
			x := NewIndex(slices.Values(subs))
			ev := pipeline.Event{Tenant: "a", Type: "COTTask.update", Payload: payload}
			var dst []*pipeline.Subscription
			b.ReportAllocs()
			for b.Loop() {
				dst = x.Match(&ev, dst[:0])
			}
			if len(dst) != bm.n+1 {
				b.Fatalf("%d takers", len(dst))
			}
		})
	}
}
