package main

import (
	"errors"
	"os"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// TestIdle lowers this process's own threads, and those that come later.
func TestIdle(t *testing.T) {
	if err := giveWay(3, true); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		id, err := strconv.Atoi(task.Name())
		if err != nil {
			t.Fatal(err)
		}
		attr, err := unix.SchedGetAttr(id, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil || attr.Policy != unix.SCHED_IDLE || attr.Nice != 3 {
			t.Errorf("thread %d: %+v, %v", id, attr, err)
		}
	}
}
