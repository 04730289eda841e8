package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"time"

	"golang.org/x/sys/unix"
)

// parentPoll is how often the parent is looked at; on Linux a signal comes first.
const parentPoll = 500 * time.Millisecond

// watchParent returns a context that ends with the process pid; 0: none is
// watched. stop ends the watching and waits for it.
func watchParent(ctx context.Context, pid int) (watched context.Context, stop func(), err error) {
	if pid == 0 {
		return ctx, func() {}, nil
	}
	// Ask for the signal first and look second: a parent that ends in between is
	// then seen by the look. The signal also comes when only the parent's thread
	// which started us ends, so it is a reason to look, not to end.
	died := make(chan os.Signal, 1)
	signal.Notify(died, deathSignal)
	askForDeathSignal()
	alive := aliveCheck(pid)
	if !alive() {
		signal.Stop(died)
		return ctx, nil, fmt.Errorf("watching the parent: process %d has ended", pid)
	}
	watched, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		ticker := time.NewTicker(parentPoll)
		defer ticker.Stop()
		for alive() {
			select {
			case <-watched.Done():
				return
			case <-died:
			case <-ticker.C:
			}
		}
	}()
	return watched, func() { cancel(); signal.Stop(died); <-ended }, nil
}

// aliveCheck looks at the parent by the child's own parent id where it is that,
// since a process id may come back as another process.
func aliveCheck(pid int) func() bool {
	if os.Getppid() == pid {
		return func() bool { return os.Getppid() == pid }
	}
	return func() bool { return !errors.Is(unix.Kill(pid, 0), unix.ESRCH) }
}
