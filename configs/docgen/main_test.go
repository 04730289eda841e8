package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func TestGeneratedFilesAreUpToDate(t *testing.T) {
	root := filepath.Join("..", "..")
	files, err := generate(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		got, err := os.ReadFile(filepath.Join(root, f.path))
		if err != nil {
			t.Errorf("%v (run go generate ./configs)", err)
			continue
		}
		if !bytes.Equal(got, f.content) {
			t.Errorf("%s is out of date (run go generate ./configs)", f.path)
		}
	}
}

func TestSentence(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"Brokers", "Brokers are the bootstrap addresses", "The bootstrap addresses."},
		{"Token", "Token guards the console.\n", "Guards the console."},
		{"Token", "", ""},
		{"Addr", "where the console listens:\n nothing else.", "Where the console listens: nothing else."},
	} {
		if got := sentence(tt.in, tt.name); got != tt.want {
			t.Errorf("sentence(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}
