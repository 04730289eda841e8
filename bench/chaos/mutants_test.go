package main

import (
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
