//go:build !linux

package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// giveWay lowers the process's priority.
func giveWay(niceness int) error {
	if niceness == 0 {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
		return fmt.Errorf("lowering the priority: %w", err)
	}
	return nil
}
