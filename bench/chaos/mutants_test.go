package main

import (
	"errors"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

// TestMutants: each mutant can be made of the sources as they are. Whether a run
// catches it, "make chaos-mutants" tells.
func TestMutants(t *testing.T) {
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	for i := range mutants {
		if _, err := mutants[i].overlay(root, t.TempDir()); err != nil {
			t.Error(err)
		}
	}
}

// TestAllMutantsBuild: all of them in one binary, which costs one build.
func TestAllMutantsBuild(t *testing.T) {
	all := mutant{name: "all"}
	for i := range mutants {
		all.edits = append(all.edits, mutants[i].edits...)
	}
	if _, err := all.build(t.Context(), t.TempDir()); err != nil {
		t.Error(err)
	}
}

// TestVerdicts: a mutant counts as caught by the invariant that it breaks only, and
// nothing is good where nothing is known.
func TestVerdicts(t *testing.T) {
	for name, tt := range map[string]struct {
		trial trial
		word  string
		good  bool
	}{
		"by its invariant":    {trial{expected: "I2 order", found: map[string]int{"I2 order": 1, "I10": 3}}, "caught", true},
		"by others":           {trial{expected: "I2 order", found: map[string]int{"I9 processes": 1}}, "MISSED", false},
		"by nothing":          {trial{expected: "I2 order"}, "MISSED", false},
		"no run":              {trial{expected: "I2 order", err: errors.New("no Kafka")}, "NO VERDICT", false},
		"no run as it is":     {trial{err: errors.New("no Kafka")}, "NO VERDICT", false},
		"as it is":            {trial{}, "clean", true},
		"as it is, and fails": {trial{found: map[string]int{"I8 bounds": 1}}, "ACCUSED", false},
	} {
		t.Run(name, func(t *testing.T) {
			if word, good := tt.trial.verdict(); word != tt.word || good != tt.good {
				t.Errorf("%s, good: %v; want %s, good: %v", word, good, tt.word, tt.good)
			}
		})
	}
}

// TestMutantsNamed: a name that is none is refused, as a run without any mutant
// would be one that cannot fail.
func TestMutantsNamed(t *testing.T) {
	for names, want := range map[string]int{"all": len(mutants), "early-retry": 1, "settle-by-offset,overtaking": 2, "early": -1, "": -1, "overtaking,x": -1} {
		chosen, err := chosenMutants(names)
		if got := len(chosen); want >= 0 && (err != nil || got != want) || want < 0 && err == nil {
			t.Errorf("%q: %d mutants, err %v; want %d", names, got, err, want)
		}
	}
}
