package registry

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
	"github.com/hookline/hookline/pipeline/match"
)

func TestFilterErrorsSayWhere(t *testing.T) {
	src := "subscriptions:\n  - {id: a, tenant: t, url: 'https://a.example.com/'}\n" +
		"  - id: b\n    tenant: t\n    url: https://b.example.com/\n    filter: 'data.isActive == true && hookline.typ == \"x\"'\n"
	_, err := ParseDocuments("subs.yaml", []byte(src), testPolicy())
	if want := "subs.yaml:6: subscriptions[1].filter: line 1, column 26: hookline.typ is not known"; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	_, err = ParseDocuments("subs.yaml", []byte(oneDoc("format: cotalker, filter: changed.endAt")), testPolicy())
	if err == nil || !strings.Contains(err.Error(), "filter: changed is for events of format task") {
		t.Errorf("got %v", err)
	}
	docs, err := ParseDocuments("subs.yaml", []byte(oneDoc("format: task, filter: changed.endAt")), testPolicy())
	if err != nil {
		t.Fatal(err)
	}
	s := docs[0].Subscription(1, testPolicy())
	if p, ok := s.Extra.(*filter.Program); !ok || p.String() != s.Filter || s.Filter != "changed.endAt" {
		t.Errorf("got %q with %v", s.Filter, s.Extra)
	}
}

// TestStoredFilterThatDoesNotCompile: what another version wrote. The
// subscription is inactive, counted and told of; the last good one stays.
func TestStoredFilterThatDoesNotCompile(t *testing.T) {
	b := newBuilder(testPolicy())
	d := doc("a")
	d.Filter = `data.next_version_function_of(1)`
	value := encode(&d, 1, time.Time{}, nil)
	if err := b.add([]byte("a"), value); err == nil || !strings.Contains(err.Error(), "filter: line 1, column 30: undeclared reference") {
		t.Errorf("got %v", err)
	}
	s := b.snapshot(1)
	if sub := s.Get("a"); sub == nil || sub.State != pipeline.StatePaused || sub.URL != "" || s.Bad() != 1 || s.Len() != 0 {
		t.Errorf("%v, %d bad of %d", s.Get("a"), s.Bad(), s.Len())
	}
	for sub := range s.All() {
		t.Errorf("%s would get events", sub.ID)
	}
	good := doc("b")
	good.Filter = `data.isActive`
	if err := b.add([]byte("b"), encode(&good, 1, time.Time{}, nil)); err != nil {
		t.Fatal(err)
	}
	good.Filter = `data.(`
	if err := b.add([]byte("b"), encode(&good, 2, time.Time{}, nil)); err == nil {
		t.Error("accepted")
	}
	s = b.snapshot(3)
	if sub := s.Get("b"); sub == nil || sub.Filter != `data.isActive` || s.Bad() != 2 {
		t.Errorf("%+v, %d bad", s.Get("b"), s.Bad())
	}
}

// filterCrowd is a snapshot of n subscriptions with the filters that text gives,
// read as a registry reads them.
func filterCrowd(t *testing.T, n int, text func(int) string) (*Snapshot, *Policy) {
	t.Helper()
	pol := Deps{Policy: *testPolicy()}.complete().Policy
	b := newBuilder(&pol)
	docs := crowdDocs(n)
	for i := range docs {
		docs[i].Filter = text(i)
		if err := b.add([]byte(docs[i].ID), encode(&docs[i], 1, time.Time{}, nil)); err != nil {
			t.Fatal(err)
		}
	}
	return b.snapshot(int64(n)), &pol
}

func TestSubscriptionsShareProgramsOfTheSameText(t *testing.T) {
	texts := []string{`data.isActive == true`, `data.weight > 3`}
	s, pol := filterCrowd(t, 100, func(i int) string { return texts[i%2] })
	distinct := map[any]int{}
	for sub := range s.All() {
		distinct[sub.Extra]++
	}
	if len(distinct) != 2 || pol.filters.Len() != 2 {
		t.Errorf("%d programs, %d in the cache", len(distinct), pol.filters.Len())
	}
}

// TestHundredThousandFilters: one filter for all costs next to nothing; as many
// filters as subscriptions stay within the memory that an index may have. Times
// are told, not judged.
func TestHundredThousandFilters(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("measures memory")
	}
	for _, tt := range []struct {
		name  string
		text  func(int) string
		bytes int64
	}{
		{"none", func(int) string { return "" }, 200 << 20},
		{"one text", func(int) string { return `data.isActive == true && data.weight > 3` }, 200 << 20},
		{"a text each", func(i int) string { return fmt.Sprintf(`data.isActive == true && data.weight > %d`, i) }, 500 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			heap, start := heapBytes(), time.Now()
			s, pol := filterCrowd(t, crowd, tt.text)
			loaded := time.Since(start)
			x := match.NewIndex(s.All())
			took := time.Since(start)
			heap = heapBytes() - heap
			t.Logf("%d subscriptions, %d programs: loaded in %v, with index %v, %d MiB", s.Len(), pol.filters.Len(), loaded, took, heap>>20)
			if heap > tt.bytes {
				t.Errorf("%d bytes are too much", heap)
			}
			ev := pipeline.Event{Format: pipeline.FormatCotalker, Tenant: "tenant-1", Type: "COTTask.create", Payload: []byte(`{"data":{"isActive":true,"weight":15}}`)}
			got := x.Match(&ev, nil)
			want := 10
			if tt.name == "a text each" {
				want = 5 // 10 to 14 are below 15
			}
			if len(got) != want || !slices.IsSortedFunc(got, func(a, b *pipeline.Subscription) int { return strings.Compare(a.ID, b.ID) }) {
				t.Errorf("%d takers, want %d", len(got), want)
			}
		})
	}
}
