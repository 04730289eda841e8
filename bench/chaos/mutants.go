package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/proof"
	"github.com/hookline/hookline/internal/testkit"
)

// mutant is hookline with one of its rules taken out: a run must notice. The
// sources stay as they are: the compiler is given other text by -overlay.
type mutant struct {
	name   string
	faults string
	static bool
	edits  []edit
}

// edit replaces text that stands exactly once in a file.
type edit struct{ file, from, to string }

const laneDir = "pipeline/dispatch/lane/"

var mutants = []mutant{
	{
		name: "overtaking", faults: "endpoint", // every delivery is a lane of its own
		edits: []edit{{laneDir + "task.go", "pipeline.LaneKeyOf(id, s.kind, r.Envelope, r.Offset)", "pipeline.LaneKeyOf(id, pipeline.OrderingNone, r.Envelope, r.Offset)"}},
	},
	{
		name: "commit-before-settle", faults: "kill", static: true, // what is under way counts as done
		edits: []edit{
			{laneDir + "commit.go", "if len(t.recs) > 0 {\n\t\tpos = min", "if false {\n\t\tpos = min"},
			{laneDir + "state.go", "for _, r := range t.recs {", "for _, r := range t.recs[:0] {"},
		},
	},
	{
		name: "skipped-recovery-scan", faults: "kill,endpoint", static: true, // what is parked is not looked for
		edits: []edit{{"pipeline/dispatch/recover.go", "if !any {\n\t\treturn end, nil", "if !any || from >= 0 {\n\t\treturn end, nil"}},
	},
	{
		name: "unfenced-commit", faults: "pause,kill,endpoint", // a zombie may commit
		edits: []edit{
			{"pipeline/kafkax/commit.go", "req.MemberID, req.Generation = m.ID, m.Generation", "req.MemberID, req.Generation = \"\", -1"},
			{"pipeline/kafkax/commit.go", "if m.Instance != \"\" {\n\t\treq.InstanceID", "if false {\n\t\treq.InstanceID"},
		},
	},
	{
		name: "early-retry", faults: "endpoint",
		edits: []edit{{laneDir + "config.go", "return c.Delays[min(k, len(c.Delays))-1]", "return c.Delays[min(k, len(c.Delays))-1] - 50*time.Millisecond"}},
	},
	{
		name: "retry-after-ignored", faults: "endpoint",
		edits: []edit{{laneDir + "result.go", "next := ended.Add(max(delay, res.RetryAfter))", "next := ended.Add(delay)"}},
	},
	{
		name: "release-before-durable", faults: "kill,endpoint", static: true, // the lane goes on before its exhausted delivery is in dead
		edits: []edit{{laneDir + "result.go", "l.fence++\n\tt.settle(l, &e)", "t.settle(l, &e)"}},
	},
	{
		name: "settle-by-offset", faults: "kill", static: true, // a record counts as settled with the first of its deliveries
		edits: []edit{{laneDir + "state.go", "s.partials = append(s.partials, openPartial{r.Offset, r.open})", "_ = s.partials"}},
	},
}

// overlay writes the mutated files and what tells the compiler of them.
func (m *mutant) overlay(root, dir string) (string, error) {
	texts := map[string]string{}
	for _, e := range m.edits {
		path := filepath.Join(root, e.file)
		if texts[path] == "" {
			text, err := os.ReadFile(path)
			if err != nil {
				return "", err
			}
			texts[path] = string(text)
		}
		if n := strings.Count(texts[path], e.from); n != 1 {
			return "", fmt.Errorf("mutant %s: %q stands %d times in %s, want once: adapt bench/chaos/mutants.go to the code", m.name, e.from, n, e.file)
		}
		texts[path] = strings.Replace(texts[path], e.from, e.to, 1)
	}
	replace := map[string]string{}
	for i, path := range slices.Sorted(maps.Keys(texts)) {
		replace[path] = filepath.Join(dir, fmt.Sprintf("%s-%d.go", m.name, i))
		if err := os.WriteFile(replace[path], []byte(texts[path]), 0o600); err != nil {
			return "", err
		}
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, m.name+".json")
	return file, os.WriteFile(file, text, 0o600)
}

// build makes the mutant's binary.
func (m *mutant) build(ctx context.Context, dir string) (string, error) {
	root, err := testkit.Root()
	if err != nil {
		return "", err
	}
	overlay, err := m.overlay(root, dir)
	if err != nil {
		return "", err
	}
	bin := filepath.Join(dir, "hookline-"+m.name)
	cmd := exec.CommandContext(ctx, "go", "build", "-overlay", overlay, "-o", bin, "./cmd/hookline")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building mutant %s: %w\n%s", m.name, err, out)
	}
	return bin, nil
}

// mutantPatience replaces settlePatience: a mutant that loses something has
// nothing to wait for.
const mutantPatience = 15 * time.Second

// catchMutants has a run with each mutant, or those named; each must be caught.
func catchMutants(ctx context.Context, o *options) error {
	missed := []string{}
	for i := range mutants {
		m := &mutants[i]
		if o.mutants != "all" && !slices.Contains(strings.Split(o.mutants, ","), m.name) {
			continue
		}
		begun := time.Now()
		caught, err := m.catch(ctx, o)
		if err != nil {
			return fmt.Errorf("mutant %s: %w", m.name, err)
		}
		fmt.Printf("mutant %-24s %v: %s\n", m.name, time.Since(begun).Round(time.Second), caught)
		if caught == "" {
			missed = append(missed, m.name)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("mutants that were not caught: %s", strings.Join(missed, ", "))
	}
	return nil
}

// catch makes a run with the mutant and says what it violates; "": nothing.
func (m *mutant) catch(ctx context.Context, o *options) (caught string, err error) {
	dir, err := os.MkdirTemp("", "hookline-mutant-")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	own := *o
	own.dir, own.static, own.faults, own.patience = filepath.Join(dir, "run"), m.static, m.faults, mutantPatience
	if own.bin, err = m.build(ctx, dir); err != nil {
		return "", err
	}
	if err := chaos(ctx, &own); err != nil {
		return "", err
	}
	l, err := proof.Load(own.dir)
	if err != nil {
		return "", err
	}
	count := map[string]int{}
	v := proof.Check(l)
	for i := range v.Violations {
		count[v.Violations[i].Invariant]++
	}
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%s %d times", k, count[k]))
	}
	return strings.Join(parts, ", "), nil
}
