package format

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// TestGolden reads each testdata/*.json with the options that the .want file
// beside it names, and compares the attributes listed there. The payload must be
// the file, byte for byte; an id that is not listed is the derived one.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			value, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".want")
			if err != nil {
				t.Fatal(err)
			}
			checkGolden(t, value, string(want))
		})
	}
}

func checkGolden(t *testing.T, value []byte, golden string) {
	t.Helper()
	want := map[string]string{"id": pipeline.DerivedID(&position), "correlation": "", "target": "", "resthook": ""}
	for line := range strings.Lines(golden) {
		name, text, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok {
			t.Fatalf("%q is not name=value", line)
		}
		want[name] = text
	}
	rec := Record{Value: value}
	var ev pipeline.Event
	if err := Parse(&rec, mustOptions(t, want["options"]), &position, &ev); err != nil {
		t.Fatal(err)
	}
	got := map[string]string{
		"options": want["options"], "format": string(ev.Format), "id": ev.ID, "tenant": ev.Tenant, "type": ev.Type, "alias": ev.TypeAlias,
		"entity": ev.Entity, "correlation": ev.Correlation, "target": ev.Target, "resthook": ev.Resthook,
		"time": ev.Time.Format(time.RFC3339Nano),
	}
	for name := range got {
		if got[name] != want[name] {
			t.Errorf("%s: got %q, want %q", name, got[name], want[name])
		}
	}
	if !bytes.Equal(ev.Payload, value) || ev.Source != position {
		t.Error("the payload or the position is not the record's")
	}
}
