package e2e

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
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

const (
	buildLimit   = 5 * time.Minute
	commandLimit = 60 * time.Second
	readyLimit   = 90 * time.Second // two cores, several tests at once, race detector
	tailLines    = 40
)

// builder builds bin/hookline once for the test binary.
type builder struct {
	race bool   // with the race detector
	tags string // build tags
	once sync.Once
	dir  string
	bin  string
	err  error
}

func (b *builder) get(t *testing.T) string {
	t.Helper()
	b.once.Do(func() { b.bin, b.err = b.build() })
	if b.err != nil {
		t.Fatal(b.err)
	}
	return b.bin
}

func (b *builder) build() (string, error) {
	root, err := testkit.Root()
	if err != nil {
		return "", err
	}
	if b.dir, err = os.MkdirTemp("", "hookline-e2e-"); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), buildLimit)
	defer cancel()
	bin := filepath.Join(b.dir, "hookline")
	args := []string{"build", "-o", bin}
	cgo := "CGO_ENABLED=0"
	if b.race {
		args, cgo = append(args, "-race"), "CGO_ENABLED=1"
	}
	cmd := exec.CommandContext(ctx, "go", append(args, "-tags", b.tags, "./cmd/hookline")...)
	cmd.Dir, cmd.Env = root, append(os.Environ(), cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building hookline: %w\n%s", err, out)
	}
	return bin, nil
}

func (b *builder) close() {
	if b.dir != "" {
		os.RemoveAll(b.dir)
	}
}

// environ is a child's whole environment: nothing of ours but what it needs.
func environ(vars map[string]string) []string {
	env := []string{"GORACE=halt_on_error=0"}
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "GOMEMLIMIT"} {
		if v, ok := os.LookupEnv(name); ok {
			env = append(env, name+"="+v)
		}
	}
	for name, v := range vars {
		env = append(env, "HOOKLINE_"+name+"="+v)
	}
	return env
}

// result is what a command came to.
type result struct {
	code           int
	stdout, stderr string
	took           time.Duration
}

// command runs a hookline command to its end.
func command(t *testing.T, vars map[string]string, stdin string, args ...string) result {
	t.Helper()
	bin := hookline.get(t) // the first time it is built, which is no part of the command
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...)
	cmd.Env, cmd.Stdin, cmd.SysProcAttr = environ(vars), strings.NewReader(stdin), childAttr()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatalf("running hookline %v: %v", args, err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errs.String(), time.Since(began)}
}

// process is one `hookline run`. One goroutine at a time uses it.
type process struct {
	t     *testing.T
	name  string
	log   string // file
	admin string
	cmd   *exec.Cmd
	ended chan struct{} // closed when the process is gone
}

// losses are the times at which the process noticed that its session was lost.
func (p *process) losses() []time.Time {
	p.t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	var out []time.Time
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, "partitions lost: the session ended") {
			continue
		}
		text, _, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			p.t.Fatalf("reading the time of %q: %v", line, err)
		}
		out = append(out, at)
	}
	return out
}

// launch starts a process. It is killed with the test, if it still runs, and the
// end of its log is shown when the test has failed.
func launch(t *testing.T, b *builder, name string, vars map[string]string, args ...string) *process {
	t.Helper()
	return launchIn(t, b, name, environ(vars), args...)
}

// launchIn is launch with an environment.
func launchIn(t *testing.T, b *builder, name string, env []string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, ended: make(chan struct{}), log: filepath.Join(t.TempDir(), "log")}
	p.admin = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	out, err := os.Create(p.log)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close() // the process has its own descriptor
	p.cmd = exec.Command(b.get(t), append([]string{"run"}, args...)...)
	p.cmd.Env = append(env, "HOOKLINE_ADMIN_ADDR="+p.admin)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.SysProcAttr = out, out, childAttr()
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting hookline run: %v", err)
	}
	go func() { // ends with the process, for which the clean-up waits
		_ = p.cmd.Wait()
		close(p.ended)
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGCONT)
		p.kill()
		p.inspect()
	})
	return p
}

// inspect looks into the log for what no test may show.
func (p *process) inspect() {
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	for _, bad := range []string{"DATA RACE", "panic:", "BUG:", "fatal error:"} {
		if at := bytes.Index(log, []byte(bad)); at >= 0 {
			p.t.Errorf("%s wrote %q:\n%s", p.name, bad, log[at:min(len(log), at+6000)])
		}
	}
	if p.t.Failed() {
		lines := strings.Split(strings.TrimSpace(string(log)), "\n")
		p.t.Logf("%s (%s), the last lines of its log:\n%s", p.name, p.cmd.ProcessState, strings.Join(lines[max(0, len(lines)-tailLines):], "\n"))
	}
}

// kill ends the process by SIGKILL and returns when it is gone.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended already
	<-p.ended
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Errorf("sending %v to %s: %v", sig, p.name, err)
	}
}

// terminate sends SIGTERM and returns how long it took to end, and its code.
func (p *process) terminate(limit time.Duration) (time.Duration, int) {
	p.t.Helper()
	began := time.Now()
	p.signal(syscall.SIGTERM)
	return p.wait(began, limit)
}

// wait returns when the process has ended.
func (p *process) wait(began time.Time, limit time.Duration) (time.Duration, int) {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("%s is still there after %v", p.name, limit)
	}
	return time.Since(began), p.cmd.ProcessState.ExitCode()
}

// ready returns when every part of the process is.
func (p *process) ready() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), readyLimit)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond) // another process: no signal to wait for
	defer tick.Stop()
	last := "no answer"
	for {
		select {
		case <-p.ended:
			p.t.Fatalf("%s has ended before it was ready: %v", p.name, p.cmd.ProcessState)
		case <-ctx.Done():
			p.t.Fatalf("%s is not ready after %v: %s", p.name, readyLimit, last)
		case <-tick.C:
		}
		code, body, err := get(ctx, "http://"+p.admin+"/readyz")
		if err != nil {
			continue
		}
		if code == http.StatusOK {
			return
		}
		last = body
	}
}

// get fetches a page, without leaving a connection behind.
func get(ctx context.Context, url string) (int, string, error) { return getAs(ctx, url, "") }

// getAs does so with a token; empty: without.
func getAs(ctx context.Context, url, token string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res.StatusCode, string(body), err
}
