package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/hookline/hookline/internal/telemetry"
)

// metricNames finds hookline's metrics in dashboards and rules; the suffixes of
// histograms' series are left off.
var metricNames = regexp.MustCompile(`\bhookline_[a-z_]+[a-z]\b`)

// TestDeploymentsNameMetricsThatExist compares what dashboards and alerts ask
// for with what a running service serves, by name.
func TestDeploymentsNameMetricsThatExist(t *testing.T) {
	served := map[string]bool{}
	for line := range strings.Lines(servedMetrics(t)) {
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			served[strings.Fields(name)[0]] = true
		}
	}
	for _, m := range telemetry.Catalog() {
		if !served[m.Name] {
			t.Errorf("/metrics does not have %s", m.Name)
		}
	}
	files := 0
	for path, text := range deploymentFiles(t) {
		names := metricNames.FindAllString(text, -1)
		if len(names) > 0 {
			files++
		}
		for _, name := range names {
			base := name
			for _, suffix := range []string{"_bucket", "_sum", "_count"} {
				base = strings.TrimSuffix(base, suffix)
			}
			if !served[name] && !served[base] {
				t.Errorf("%s names %s, which /metrics does not have", path, name)
			}
		}
	}
	if files < 4 {
		t.Errorf("only %d files name metrics", files)
	}
}

// deploymentFiles are the dashboards and rules.
func deploymentFiles(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	root := os.DirFS("../../deployments")
	err := fs.WalkDir(root, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasPrefix(path, "grafana/dashboards/") && !strings.HasSuffix(path, ".rules.yaml") {
			return err
		}
		text, err := fs.ReadFile(root, path)
		out[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if out["helm/hookline/files/hookline.rules.yaml"] != out["prometheus/hookline.rules.yaml"] {
		t.Error("the chart's rules are not those of deployments/prometheus: copy them")
	}
	return out
}

// servedMetrics are those of a service of all roles, by HTTP.
func servedMetrics(t *testing.T) string {
	t.Helper()
	cfg := canaryConfig(t, "127.0.0.1:1") // it need not reach Kafka for this
	if err := cfg.Set("ADMIN_ADDR", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	a := newForTest(t, cfg)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	resp, err := http.Get("http://" + a.AdminAddr() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// Every alert has its runbook, and every runbook its alert.
func TestRunbooksAreThoseOfTheAlerts(t *testing.T) {
	page, err := os.ReadFile("../../docs/runbooks.md")
	if err != nil {
		t.Fatal(err)
	}
	var headings, alerts []string
	for _, m := range regexp.MustCompile(`(?m)^## (\w+)$`).FindAllStringSubmatch(string(page), -1) {
		headings = append(headings, m[1])
	}
	rules := deploymentFiles(t)["prometheus/hookline.rules.yaml"]
	for _, m := range regexp.MustCompile(`(?m)alert: (\w+)$`).FindAllStringSubmatch(rules, -1) {
		alerts = append(alerts, m[1])
		if !strings.Contains(rules, "docs/runbooks.md#"+strings.ToLower(m[1])+"\n") {
			t.Errorf("%s has no link to its runbook", m[1])
		}
	}
	if !slices.Equal(headings, alerts) || len(alerts) == 0 {
		t.Errorf("runbooks %v, alerts %v", headings, alerts)
	}
}

// Each panel has an id of its own and a place that no other has.
func TestDashboardsAreLaidOut(t *testing.T) {
	for path, text := range deploymentFiles(t) {
		if !strings.HasSuffix(path, ".json") {
			continue
		}
		var board struct {
			UID    string
			Panels []struct {
				ID      int
				Title   string
				GridPos struct{ X, Y, W, H int }
			}
		}
		if err := json.Unmarshal([]byte(text), &board); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if path != "grafana/dashboards/"+board.UID+".json" {
			t.Errorf("%s has the uid %s", path, board.UID)
		}
		taken := map[string]string{}
		for _, p := range board.Panels {
			for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
				for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
					at := fmt.Sprint(x, "/", y)
					if other, ok := taken[at]; ok || x >= 24 {
						t.Fatalf("%s: %q lies over %q at %s", path, p.Title, other, at)
					}
					taken[at] = p.Title
				}
			}
		}
	}
}
