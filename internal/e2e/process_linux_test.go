package e2e

import "syscall"

// childAttr ends a child with a test process that is killed, which runs no
// clean-up.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
