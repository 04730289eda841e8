package main

import "golang.org/x/sys/unix"

const deathSignal = unix.SIGHUP

func askForDeathSignal() {
	// Without it the poll notices, half a second later.
	_ = unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(deathSignal), 0, 0, 0)
}
