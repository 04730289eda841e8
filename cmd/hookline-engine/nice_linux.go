package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// giveWay lowers the process's priority; idle: to the policy SCHED_IDLE, too, so that
// who wakes takes the processor at once (sched(7)), instead of after a time slice. On
// Linux it is the threads' own, which new ones have from who makes them: those that are
// there, twice, since one may make another meanwhile. The engine's threads all come later.
func giveWay(niceness int, idle bool) error {
	if niceness == 0 && !idle {
		return nil
	}
	for range 2 {
		tasks, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("lowering the priority: %w", err)
		}
		for _, t := range tasks {
			id, err := strconv.Atoi(t.Name())
			if err == nil {
				err = lower(id, niceness, idle)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("lowering the priority of thread %s: %w", t.Name(), err)
			}
		}
	}
	return nil
}

// lower leaves the niceness that there is where none is given: to raise it back is not
// everybody's right.
func lower(thread, niceness int, idle bool) error {
	if niceness != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, thread, niceness); err != nil {
			return err
		}
	}
	if !idle {
		return nil
	}
	return unix.SchedSetAttr(thread, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_IDLE}, 0)
}
