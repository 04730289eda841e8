package filelock

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestOneHolder(t *testing.T) {
	dir := t.TempDir()
	l, err := Acquire(dir, "x.lock")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Acquire(dir, "x.lock"); err == nil || !strings.Contains(err.Error(), "in use by process "+strconv.Itoa(os.Getpid())) {
		t.Errorf("a second holder got %v, want an error that names this process", err)
	}
	l.Release()
	again, err := Acquire(dir, "x.lock")
	if err != nil {
		t.Fatal(err)
	}
	again.Release()
}
