//go:build !linux

package main

import "golang.org/x/sys/unix"

const deathSignal = unix.SIGHUP

func askForDeathSignal() {}
