package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hookline/hookline/internal/proof"
	"github.com/hookline/hookline/internal/testkit"
)

// slot is a place for one hookline process at a time. Its lock is held by who
// does something to it.
type slot struct {
	sync.Mutex
	r     *runner
	name  string
	extra bool // joins and leaves again; not there all the time

	life  int // 0: none yet
	log   string
	admin string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
	// expected: its end is our doing. Guarded by the runner's lock: the one who
	// waits for the process reads it.
	expected bool
}

// environ is a child's whole environment: nothing of ours but what it needs.
func (r *runner) environ(life int, more ...string) []string {
	env := []string{"GORACE=halt_on_error=0", fmt.Sprintf("%s=%s%d", lifeVar, lifePrefix, life)}
	for _, name := range []string{"PATH", "HOME", "TMPDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for name, v := range r.vars {
		env = append(env, "HOOKLINE_"+name+"="+v)
	}
	return append(env, more...)
}

// start starts a process. The slot is locked.
func (s *slot) start() error {
	ports, err := testkit.FreePorts(1)
	if err != nil {
		return err
	}
	r := s.r
	r.mu.Lock()
	r.lives++
	s.life, s.expected = r.lives, false
	r.mu.Unlock()
	s.log = filepath.Join(r.o.dir, fmt.Sprintf("hookline-%03d-%s.log", s.life, s.name))
	out, err := os.Create(s.log)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own descriptor
	s.admin = fmt.Sprintf("127.0.0.1:%d", ports[0])
	cmd := exec.Command(r.bin, "run", "--roles", "router,dispatcher,sink")
	cmd.Env = r.environ(s.life, "HOOKLINE_ADMIN_ADDR="+s.admin)
	if r.o.static {
		cmd.Env = append(cmd.Env, "HOOKLINE_INSTANCE_ID="+s.name)
	}
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, childAttr()
	from := r.now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("starting hookline: %w", err)
	}
	ended := make(chan struct{})
	s.cmd, s.ended = cmd, ended
	r.fault(proof.Started, s, from, "")
	life := s.life
	r.waiters.Go(func() {
		_ = cmd.Wait()
		at := r.now()
		r.mu.Lock()
		expected := s.expected || s.life != life
		r.mu.Unlock()
		r.exited(s.name, life, at, cmd.ProcessState, expected)
		close(ended)
		if !expected {
			s.revive(life)
		}
	})
	return nil
}

// revivePause is how long a supervisor waits before it starts a process again.
const revivePause = time.Second

// revive does what a supervisor would do for a process that ended by itself: one
// that finds no Kafka at its start says so and ends.
func (s *slot) revive(life int) {
	time.Sleep(revivePause)
	s.Lock()
	defer s.Unlock()
	if s.life == life && !s.extra {
		s.r.failing(s.start())
	}
}

// exited writes down how a process ended.
func (r *runner) exited(name string, life int, at time.Duration, st *os.ProcessState, expected bool) {
	note := st.String()
	if !expected {
		note += ", unasked"
	}
	r.write(&proof.Fault{Kind: proof.Exited, Life: life, Name: name, From: at, To: at, Code: st.ExitCode(), Note: note})
}

func (s *slot) expect() {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	s.expected = true
}

func (s *slot) running() bool {
	if s.cmd == nil {
		return false
	}
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// kill ends the process by SIGKILL and returns when it is gone.
func (s *slot) kill() {
	if !s.running() {
		return
	}
	s.expect()
	from := s.r.now()
	_ = s.cmd.Process.Kill() // it may have ended already
	<-s.ended
	s.r.fault(proof.Killed, s, from, "")
}

// pause freezes the process for a while.
func (s *slot) pause(ctx context.Context, d time.Duration) {
	from := s.r.now()
	if err := s.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return
	}
	s.r.fault(proof.Paused, s, from, d.String())
	wait(ctx, d)
	from = s.r.now()
	_ = s.cmd.Process.Signal(syscall.SIGCONT)
	s.r.fault(proof.Resumed, s, from, "")
}

// stopLimit is when a process that was told to stop is killed, as a violation.
const stopLimit = 60 * time.Second

// stop tells the process to stop and returns when it is gone.
func (s *slot) stop() {
	if !s.running() {
		return
	}
	s.expect()
	from := s.r.now()
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return
	}
	s.r.fault(proof.Told, s, from, "")
	select {
	case <-s.ended:
	case <-time.After(stopLimit):
		s.r.stray(fmt.Sprintf("%s (life %d) is still there %v after SIGTERM", s.name, s.life, stopLimit))
		s.kill()
	}
}

// ready returns when the process says that it is.
func (s *slot) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := "no answer"
	for {
		select {
		case <-s.ended:
			return fmt.Errorf("%s has ended before it was ready (see %s)", s.name, s.log)
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready: %s (see %s)", s.name, last, s.log)
		case <-tick.C:
		}
		if body, err := get(ctx, "http://"+s.admin+"/readyz"); err == nil {
			return nil
		} else if body != "" {
			last = body
		}
	}
}

// adminToken is what the processes' admin addresses ask for: not secret here.
const adminToken = "chaos-admin-token-of-a-run"

// get fetches a page, without leaving a connection behind.
func get(ctx context.Context, url string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+adminToken)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %d: %.300s", res.StatusCode, body)
	}
	return string(body), err
}

// command runs a hookline command to its end.
func (r *runner) command(ctx context.Context, stdin string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.bin, args...)
	cmd.Env, cmd.Stdin, cmd.SysProcAttr = r.environ(0), strings.NewReader(stdin), childAttr()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running hookline %s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}

// inspect reads the processes' logs for lost sessions, and for what no log may
// have.
func (r *runner) inspect() error {
	logs, err := filepath.Glob(filepath.Join(r.o.dir, "hookline-*.log"))
	if err != nil {
		return err
	}
	var errs []error
	for _, path := range logs {
		text, err := os.ReadFile(path)
		errs = append(errs, err)
		var life int
		if _, err := fmt.Sscanf(filepath.Base(path), "hookline-%d-", &life); err != nil {
			errs = append(errs, err)
		}
		for _, bad := range []string{"DATA RACE", "panic:", "BUG:", "fatal error:"} {
			if at := bytes.Index(text, []byte(bad)); at >= 0 {
				r.stray(fmt.Sprintf("life %d wrote (%s): %.2000s", life, path, text[at:]))
			}
		}
		for _, f := range lostSessions(string(text), r.began) {
			f.Life = life
			r.write(&f)
		}
	}
	return errors.Join(errs...)
}

// lostSessions are the sessions that a process says in its log it has lost. It may
// hear of that long after another has its partitions: from when on it did not know,
// it says, too. One that was killed before it knew never says more: what it was
// answered by then it could not commit.
func lostSessions(log string, began time.Time) []proof.Fault {
	var out []proof.Fault
	var last time.Duration
	interrupted := time.Duration(-1)
	for line := range strings.Lines(log) {
		stamp, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, stamp)
		if err != nil {
			continue // a stack, or what the kill cut off
		}
		last = at.Sub(began)
		switch {
		case strings.Contains(line, "the session is interrupted"):
			interrupted = last
		case strings.Contains(line, "the session goes on"):
			interrupted = -1
		case strings.Contains(line, "partitions lost: the session ended"):
			from := last
			if interrupted >= 0 {
				from = interrupted
			}
			out = append(out, proof.Fault{Kind: proof.Lost, From: from, To: last})
			interrupted = -1
		case strings.Contains(line, "partitions lost:"): // by what Kafka had lost: it has a session
			interrupted = -1
		}
	}
	if interrupted >= 0 {
		out = append(out, proof.Fault{Kind: proof.Lost, From: interrupted, To: last})
	}
	return out
}

// wait returns after d, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
