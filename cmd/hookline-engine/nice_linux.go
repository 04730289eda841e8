package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// giveWay lowers the process's priority. On Linux it is the threads' own, which new
// ones have from who makes them: those that are there, twice, since one may make
// another meanwhile. The engine's threads all come later.
func giveWay(niceness int) error {
	if niceness == 0 {
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
				err = unix.Setpriority(unix.PRIO_PROCESS, id, niceness)
			}
			if err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("lowering the priority of thread %s: %w", t.Name(), err)
			}
		}
	}
	return nil
}
