package sink

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// timeFilter is the macro of Grafana's ClickHouse plugin.
var timeFilter = regexp.MustCompile(`\$__timeFilter\((\w+)\)`)

// dashboardSQL collects what a dashboard asks ClickHouse, by title.
func dashboardSQL(t *testing.T, path string) map[string]string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ RawSQL string }
		}
		Templating struct {
			List []struct {
				Name, Type string
				Query      json.RawMessage
			}
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, p := range board.Panels {
		for _, target := range p.Targets {
			if target.RawSQL != "" {
				out[p.Title] = target.RawSQL
			}
		}
	}
	for _, v := range board.Templating.List {
		var sql string
		if v.Type == "query" && json.Unmarshal(v.Query, &sql) == nil {
			out["variable "+v.Name] = sql
		}
	}
	return out
}

// TestEngineDashboards runs what the Grafana dashboards ask ClickHouse; each
// query must give rows for one of the subscriptions of the sample log.
func TestEngineDashboards(t *testing.T) {
	l := &docLog{viewLog: newViewLog(t), now: time.Now().UTC().Truncate(time.Microsecond)}
	l.fill()
	paths, err := filepath.Glob("../deployments/grafana/dashboards/*.json")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no dashboards: %v", err)
	}
	ran := 0
	for _, path := range paths {
		for title, raw := range dashboardSQL(t, path) {
			sql := timeFilter.ReplaceAllString(raw, "$1 > now() - INTERVAL 3 HOUR")
			sql = strings.ReplaceAll(sql, "hookline.", "") // the test's database is another
			rows := ""
			for _, id := range []string{"erp", "shop", "slow"} {
				rows += ask(t, l.r, strings.ReplaceAll(sql, "${subscription}", id))
			}
			if ran++; rows == "" || strings.Contains(sql, "$") && !strings.Contains(sql, "${subscription}") {
				t.Errorf("%s: %s: no rows, or a macro that is not known:\n%s", path, title, raw)
			}
		}
	}
	if ran < 9 {
		t.Errorf("only %d queries were run", ran)
	}
}
