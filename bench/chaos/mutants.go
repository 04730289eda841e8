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
	by     string // the invariant that must fall; empty: none may, it is hookline as it is
	faults string // that provoke the case
	static bool
	few    bool // processes: two, so that what hangs could have all of their slots
	edits  []edit
}

// edit replaces text that stands exactly once in a file.
type edit struct{ file, from, to string }

const laneDir = "pipeline/dispatch/lane/"

var mutants = []mutant{
	// That the checker cries without a reason would look like a catch.
	{name: "none", faults: "zombie,kill,endpoint", static: true},
	{name: "none-among-hanging", faults: "hang", few: true},
	{
		name: "overtaking", by: "I2 order", faults: "endpoint", // every delivery is a lane of its own
		edits: []edit{{laneDir + "task.go", "pipeline.LaneKeyOf(id, s.kind, r.Envelope, r.Offset)", "pipeline.LaneKeyOf(id, pipeline.OrderingNone, r.Envelope, r.Offset)"}},
	},
	{
		name: "commit-before-settle", by: "I1 loss", faults: "kill", static: true, // what is under way counts as done
		edits: []edit{
			{laneDir + "commit.go", "if len(t.recs) > 0 {\n\t\tpos = min", "if false {\n\t\tpos = min"},
			{laneDir + "state.go", "for _, r := range t.recs {", "for _, r := range t.recs[:0] {"},
		},
	},
	{
		name: "skipped-recovery-scan", by: "I1 loss", faults: "kill,endpoint", static: true, // what is parked is not looked for
		edits: []edit{{"pipeline/dispatch/recover.go", "if !any {\n\t\treturn end, nil", "if !any || from >= 0 {\n\t\treturn end, nil"}},
	},
	{
		name: "unfenced-commit", by: "I5 duplicates", faults: "zombie,endpoint", static: true, // a zombie may commit
		edits: []edit{
			{"pipeline/kafkax/commit.go", "req.MemberID, req.Generation = m.ID, m.Generation", "req.MemberID, req.Generation = \"\", -1"},
			{"pipeline/kafkax/commit.go", "if m.Instance != \"\" {\n\t\treq.InstanceID", "if false {\n\t\treq.InstanceID"},
		},
	},
	{
		name: "early-retry", by: "I4 spacing", faults: "endpoint",
		edits: []edit{{laneDir + "config.go", "return c.Delays[min(k, len(c.Delays))-1]", "return c.Delays[min(k, len(c.Delays))-1] - 50*time.Millisecond"}},
	},
	{
		name: "retry-after-ignored", by: "I4 spacing", faults: "endpoint",
		edits: []edit{{laneDir + "result.go", "next := ended.Add(max(delay, res.RetryAfter))", "next := ended.Add(delay)"}},
	},
	{
		name: "release-before-durable", by: "I2 order", faults: "kill,endpoint", static: true, // the lane goes on before its exhausted delivery is in dead
		edits: []edit{{laneDir + "result.go", "l.fence++\n\tt.settle(l, &e)", "t.settle(l, &e)"}},
	},
	{
		name: "settle-by-offset", by: "I1 loss", faults: "kill", static: true, // a record counts as settled with the first of its deliveries
		edits: []edit{{laneDir + "state.go", "s.partials = append(s.partials, openPartial{r.Offset, r.open})", "_ = s.partials"}},
	},
	{
		name: "slots-not-shared", by: "I7 isolation", faults: "hang", few: true, // what hangs keeps its slots, and may have all
		edits: []edit{
			{"pipeline/dispatch/slots.go", "for s.slow < s.cfg.MaxSlow {", "for s.slow < 0 {"},
			{"pipeline/dispatch/slots.go", "lane.Shares{Suspect: s.failing < s.maxFailing, Cold: s.coldFree()}", "lane.Shares{Suspect: true, Cold: true}"},
		},
	},
}

func mutantNames() []string {
	var names []string
	for i := range mutants {
		names = append(names, mutants[i].name)
	}
	return names
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

// mutantPatience replaces settlePatience and giveBack: a mutant that loses or
// keeps something has nothing to wait for.
const mutantPatience = 15 * time.Second

// trial is what became of a run with a mutant.
type trial struct {
	name, expected string
	found          map[string]int // violations of each invariant
	err            error          // the harness could not do its work: nothing is known of the mutant
}

// verdict says in a word whether the mutant was caught, and by what.
func (t *trial) verdict() (word string, good bool) {
	switch {
	case t.err != nil:
		return "NO VERDICT", false
	case t.expected == "" && len(t.found) > 0:
		return "ACCUSED", false
	case t.expected == "":
		return "clean", true
	case t.found[t.expected] == 0:
		return "MISSED", false
	}
	return "caught", true
}

func (t *trial) String() string {
	word, _ := t.verdict()
	var parts []string
	for _, k := range slices.Sorted(maps.Keys(t.found)) {
		parts = append(parts, fmt.Sprintf("%s %d", k, t.found[k]))
	}
	if t.err != nil {
		parts = append(parts, t.err.Error())
	}
	return fmt.Sprintf("mutant %-24s %-11s %s", t.name, word, strings.Join(parts, ", "))
}

// catchMutants has a run with each mutant, or those named; each must be caught by
// the invariant that it breaks. Where the harness fails with one, the others are
// tried all the same.
func catchMutants(ctx context.Context, o *options) error {
	chosen, err := chosenMutants(o.mutants)
	if err != nil {
		return err
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "hookline-mutants-"); err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(o.dir) }() // the system's folder for what nobody needs
	}
	var trials []*trial
	for _, m := range chosen {
		if ctx.Err() != nil {
			break
		}
		begun := time.Now()
		t := m.try(ctx, o)
		fmt.Printf("%v (%v)\n", t, time.Since(begun).Round(time.Second))
		trials = append(trials, t)
	}
	var bad []string
	fmt.Println()
	for _, t := range trials {
		fmt.Println(t)
		if _, good := t.verdict(); !good {
			bad = append(bad, t.name)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("mutants without the verdict that they must have: %s", strings.Join(bad, ", "))
	}
	return ctx.Err()
}

// chosenMutants are those named, in their order in the list.
func chosenMutants(names string) ([]*mutant, error) {
	var chosen []*mutant
	left := strings.Split(names, ",")
	for i := range mutants {
		m := &mutants[i]
		if names != "all" && !slices.Contains(left, m.name) {
			continue
		}
		chosen = append(chosen, m)
		left = slices.DeleteFunc(left, func(name string) bool { return name == m.name })
	}
	if names != "all" && len(left) > 0 {
		return nil, fmt.Errorf("-mutants: no mutant %q", left[0])
	}
	return chosen, nil
}

// try makes a run with the mutant, whose ledgers are in a folder of its own.
func (m *mutant) try(ctx context.Context, o *options) *trial {
	t := &trial{name: m.name, expected: m.by, found: map[string]int{}}
	own := *o
	own.dir, own.static, own.faults = filepath.Join(o.dir, m.name), m.static, m.faults
	own.patience, own.giveBack = mutantPatience, mutantPatience
	if m.few {
		own.processes = 2
	}
	if t.err = os.MkdirAll(own.dir, 0o700); t.err != nil {
		return t
	}
	if own.bin, t.err = m.build(ctx, own.dir); t.err != nil {
		return t
	}
	if t.err = chaos(ctx, &own); t.err != nil {
		return t
	}
	// What Kafka and ClickHouse have is large, and of use to nobody here.
	if t.err = errors.Join(os.RemoveAll(filepath.Join(own.dir, "kafka")), os.RemoveAll(filepath.Join(own.dir, "engine"))); t.err != nil {
		return t
	}
	l, err := proof.Load(own.dir)
	if t.err = err; err != nil {
		return t
	}
	v := proof.Check(l)
	for i := range v.Violations {
		t.found[v.Violations[i].Invariant]++
	}
	return t
}
