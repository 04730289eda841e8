package format

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// fixture is a record and what is to be read from it: testdata/NAME.json is its
// value, testdata/NAME.want has lines name=value. "options", "key" and
// "header:NAME" belong to the record, the rest to the event. An attribute that
// is not listed is empty, an id the derived one, a payload the whole value; an
// id written "safe:x" is SafeID of x.
type fixture struct {
	name    string
	record  Record
	options string
	want    map[string]string
}

func fixtures(tb testing.TB) []fixture {
	tb.Helper()
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		tb.Fatalf("no fixtures: %v", err)
	}
	out := make([]fixture, len(files))
	for i, file := range files {
		base := strings.TrimSuffix(file, ".json")
		value, err := os.ReadFile(file)
		if err != nil {
			tb.Fatal(err)
		}
		want, err := os.ReadFile(base + ".want")
		if err != nil {
			tb.Fatal(err)
		}
		out[i] = fixture{name: filepath.Base(base), record: Record{Value: value}, want: map[string]string{}}
		out[i].read(tb, string(want))
	}
	return out
}

func (f *fixture) read(tb testing.TB, golden string) {
	tb.Helper()
	f.want = map[string]string{
		"id": pipeline.DerivedID(&position), "correlation": "", "target": "", "resthook": "", "alias": "", "contenttype": "",
		"splice": "", "attributes": "", "payload": string(f.record.Value),
	}
	for line := range strings.Lines(golden) {
		name, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			tb.Fatalf("%s: %q is not name=value", f.name, line)
		}
		header, isHeader := strings.CutPrefix(name, "header:")
		id, unsafe := strings.CutPrefix(text, "safe:")
		switch {
		case isHeader:
			f.record.Headers = append(f.record.Headers, Header{Key: header, Value: []byte(text)})
		case name == "options":
			f.options = text
		case name == "key":
			f.record.Key = []byte(text)
		case unsafe:
			f.want[name] = pipeline.SafeID(id)
		default:
			f.want[name] = text
		}
	}
}

// describe names an event's fields as the .want files do.
func describe(ev *pipeline.Event) map[string]string {
	out := map[string]string{
		"format": string(ev.Format), "id": ev.ID, "tenant": ev.Tenant, "type": ev.Type, "alias": ev.TypeAlias, "entity": ev.Entity,
		"correlation": ev.Correlation, "target": ev.Target, "resthook": ev.Resthook, "time": ev.Time.Format(time.RFC3339Nano),
		"contenttype": ev.ContentType, "payload": string(ev.Payload), "splice": "", "attributes": "",
	}
	if sp := ev.Splice; sp != nil {
		out["splice"] = fmt.Sprintf("id=%d,%d insert=%d sub=%d,%d,%d", sp.IDFrom, sp.IDTo, sp.InsertAt, sp.Sub, sp.SubFrom, sp.SubTo)
	}
	var attributes []string
	for _, a := range ev.Attributes {
		attributes = append(attributes, a.Name+"="+a.Value)
	}
	out["attributes"] = strings.Join(attributes, " ")
	return out
}

func TestGolden(t *testing.T) {
	for _, f := range fixtures(t) {
		t.Run(f.name, func(t *testing.T) {
			f.record.Timestamp = time.UnixMilli(1700000000000)
			produced := slices.Clone(f.record.Value)
			var ev pipeline.Event
			if err := Parse(&f.record, mustOptions(t, f.options), &position, &ev); err != nil {
				t.Fatal(err)
			}
			got := describe(&ev)
			for name := range got {
				if got[name] != f.want[name] {
					t.Errorf("%s: got %q, want %q", name, got[name], f.want[name])
				}
			}
			if len(got) != len(f.want) {
				t.Errorf("the .want file names %v", f.want)
			}
			if !slices.Equal(f.record.Value, produced) || ev.Source != position || !ev.ProducedAt.Equal(f.record.Timestamp) {
				t.Error("the value was changed, or the position or the time is not the record's")
			}
		})
	}
}

// TestGoldenCoversEveryType counts the types that formats publish.
func TestGoldenCoversEveryType(t *testing.T) {
	types := map[string]bool{}
	for _, f := range fixtures(t) {
		types[f.want["format"]+" "+f.want["type"]] = true
	}
	for format, want := range map[string]int{"goflow": 23 + 1, "signl4": 10, "task": 4} {
		n := 0
		for typ := range types {
			if strings.HasPrefix(typ, format+" ") {
				n++
			}
		}
		if n != want {
			t.Errorf("%s: fixtures of %d types, want %d", format, n, want)
		}
	}
}

// TestDetectedByShape reads the fixtures without their topic's format: each has
// the shape of its own format and of no other, or of none.
func TestDetectedByShape(t *testing.T) {
	for _, f := range fixtures(t) {
		if len(f.record.Headers) > 0 {
			continue
		}
		var doc jsonscan.Doc
		if err := doc.Scan(f.record.Value); err != nil {
			t.Fatal(f.name, err)
		}
		found, err := detect(doc.Root())
		switch known := f.want["format"]; {
		case known == "json", known == "cloudevents", f.want["type"] == "airtime_sent":
			if err == nil {
				t.Errorf("%s: taken for %s", f.name, found.name)
			}
		case err != nil:
			t.Errorf("%s: %v", f.name, err)
		case string(found.name) != known:
			t.Errorf("%s: taken for %s", f.name, found.name)
		}
	}
}
