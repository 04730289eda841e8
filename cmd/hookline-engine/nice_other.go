//go:build !linux

package main

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// giveWay lowers the process's priority; idle is Linux's.
func giveWay(niceness int, idle bool) error {
	if idle {
		return errUsage{errors.New("reading the options: --idle is there on Linux only (give --nice)")}
	}
	if niceness == 0 {
		return nil
	}
	if err := unix.Setpriority(unix.PRIO_PROCESS, 0, niceness); err != nil {
		return fmt.Errorf("lowering the priority: %w", err)
	}
	return nil
}
