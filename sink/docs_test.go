package sink

import (
	"os"
	"strings"
	"testing"
)

// TestEngineDocs runs the statements of docs/schema.md, and looks for every
// column and outcome in it.
func TestEngineDocs(t *testing.T) {
	text, err := os.ReadFile("../docs/schema.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	cfg, _ := engineConfig(t)
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r := openReader(t, cfg)
	_, examples, _ := strings.Cut(doc, "```sql\n")
	examples, _, ok := strings.Cut(examples, "```")
	if !ok || strings.Count(examples, ";\n") < 4 {
		t.Fatalf("examples: %q", examples)
	}
	for sql := range strings.SplitSeq(examples, ";\n") {
		if strings.TrimSpace(sql) != "" {
			ask(t, r, sql)
		}
	}
	for _, name := range strings.Fields(ask(t, r, "SELECT DISTINCT name FROM system.columns WHERE database = currentDatabase() AND table IN ('attempts', 'events', 'subscription_stats_1m')")) {
		if !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("column %s is not in docs/schema.md", name)
		}
	}
	for _, name := range strings.Fields(ask(t, r, "SELECT arrayJoin(extractAll(type, '\\'(\\\\w+)\\'')) FROM system.columns WHERE database = currentDatabase() AND table = 'attempts' AND name = 'outcome'")) {
		if !strings.Contains(doc, "| `"+name+"` |") {
			t.Errorf("outcome %s is not in docs/schema.md", name)
		}
	}
}
