package doctest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// upLimit is the time within which a program does what is expected of it. All
// of them take a few seconds at most on an idle machine.
const upLimit = time.Minute

// proc is a program that runs until the test ends.
type proc struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed by the goroutine that waits for cmd

	mu   sync.Mutex
	out  bytes.Buffer  // of both streams; guarded by mu
	more chan struct{} // one place; Write fills it, await empties it
}

// environ is this process's environment without hookline's variables, and more.
func environ(more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HOOKLINE_") })
	return append(env, more...)
}

// start runs a program in the folder dir until the test ends.
func start(t *testing.T, dir string, env []string, name string, args ...string) *proc {
	t.Helper()
	p := &proc{t: t, name: name, ended: make(chan struct{}), more: make(chan struct{}, 1)}
	p.cmd = exec.Command(name, args...)
	p.cmd.Dir, p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = dir, env, p, p
	// A group of its own, so that a shell's children end with it.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // how it ended is seen in its output
		close(p.ended)
	}()
	t.Cleanup(p.stop)
	return p
}

// Write takes what the program prints.
func (p *proc) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.more <- struct{}{}:
	default:
	}
	return p.out.Write(b)
}

func (p *proc) output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// await returns when the program has printed text.
func (p *proc) await(text string) {
	p.t.Helper()
	limit := time.NewTimer(upLimit)
	defer limit.Stop()
	for !strings.Contains(p.output(), text) {
		select {
		case <-p.more:
		case <-p.ended:
			if !strings.Contains(p.output(), text) {
				p.t.Fatalf("%s ended without %q:\n%s", p.name, text, p.output())
			}
		case <-limit.C:
			p.t.Fatalf("%s: no %q within %v:\n%s", p.name, text, upLimit, p.output())
		}
	}
}

// stop interrupts the program and kills it where that does not end it.
func (p *proc) stop() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.t.Errorf("%s did not end within 20 s of SIGTERM", p.name)
	}
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // its children
	<-p.ended
	if p.t.Failed() {
		p.t.Logf("%s %s printed:\n%s", p.name, strings.Join(p.cmd.Args[1:], " "), p.output())
	}
}

// run runs a program to its end and returns what it printed on both streams.
func run(t *testing.T, dir string, env []string, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), upLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env, cmd.WaitDelay = dir, env, time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// eventually asks until ok, for what no program announces.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(upLimit)
	defer deadline.Stop()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("%s: not within %v", what, upLimit)
		}
	}
}
