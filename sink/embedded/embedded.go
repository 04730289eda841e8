// Package embedded starts the embedded ClickHouse, bin/hookline-engine, as a
// child process, for the commands and tests that run without a server.
//
// The engine itself is behind sink/embedded/chdb and sink/embedded/chhttp, which
// only that second binary imports: they load a shared library, and bin/hookline
// stays static.
package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Config says what to start and where.
type Config struct {
	// Binary is the path of hookline-engine. Defaults to the one beside the
	// running program, else the one in PATH.
	Binary string
	// Library is the path of libchdb.so; empty: as FindLibrary has it.
	Library string
	// Addr is the address to listen on. Defaults to 127.0.0.1:0, a free port.
	Addr string
	// DataDir is made if missing; one engine at a time may use it.
	DataDir string
	// Log takes the engine's own lines; nil discards them.
	Log *slog.Logger
}

// Limits of waiting for the engine.
const (
	startLimit = 60 * time.Second // opening big data directories takes a while
	stopLimit  = 8 * time.Second  // of these the engine gives requests under way 3
)

// Engine is a running engine process.
type Engine struct {
	cmd  *exec.Cmd
	addr string
	log  *slog.Logger

	stopping sync.Once
	done     chan struct{} // closed by wait when the process has ended
	err      error         // set before done is closed
	last     *lastLine
}

// Start starts the engine and returns when it answers. ctx bounds only the start.
// The engine ends with this process, however that ends. It is not started again
// if it ends: wait on Done for that.
func Start(ctx context.Context, cfg Config) (*Engine, error) {
	e, ready, err := launch(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case e.addr = <-ready:
		return e, nil
	case <-e.done:
		return nil, fmt.Errorf("starting the ClickHouse engine: %w", e.endReason())
	case <-ctx.Done():
		e.kill()
		return nil, fmt.Errorf("starting the ClickHouse engine in %s: %w", cfg.DataDir, ctx.Err())
	}
}

func launch(cfg Config) (*Engine, <-chan string, error) {
	binary, err := findBinary(cfg.Binary)
	if err != nil {
		return nil, nil, err
	}
	library, err := FindLibrary(cfg.Library)
	if err != nil {
		return nil, nil, err
	}
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	e := &Engine{log: cfg.Log, done: make(chan struct{}), last: &lastLine{log: cfg.Log}}
	e.cmd = exec.Command(binary, "--addr", cfg.Addr, "--data", cfg.DataDir, "--lib", library, "--parent", strconv.Itoa(os.Getpid()))
	e.cmd.Stderr = e.last
	// A Ctrl-C at the terminal is for the parent, which stops the engine last.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := e.cmd.StdoutPipe()
	if err != nil {
		return nil, nil, fmt.Errorf("starting the ClickHouse engine: %w", err)
	}
	if err := e.cmd.Start(); err != nil {
		return nil, nil, fmt.Errorf("starting the ClickHouse engine: %w", err)
	}
	ready := make(chan string, 1)
	go e.wait(stdout, ready)
	return e, ready, nil
}

// wait owns the child: it reads its output to the end and reaps it.
func (e *Engine) wait(stdout io.Reader, ready chan<- string) {
	defer close(e.done)
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if addr, ok := strings.CutPrefix(lines.Text(), ReadyPrefix); ok && ready != nil {
			ready <- strings.TrimSpace(addr)
			ready = nil
		}
	}
	_, _ = io.Copy(io.Discard, stdout) // a line too long for the scanner must not block the child
	e.err = e.cmd.Wait()
}

// ReadyPrefix begins the line the engine prints on standard output when it
// answers; its address follows.
const ReadyPrefix = "hookline-engine: ready: "

func (e *Engine) endReason() error {
	line, exit := strings.TrimPrefix(e.last.String(), "hookline-engine: "), (*exec.ExitError)(nil)
	switch {
	case line != "" && errors.As(e.err, &exit) && !exit.Exited(): // a signal
		return fmt.Errorf("%s (%w)", line, e.err)
	case line != "":
		return errors.New(line)
	case e.err != nil:
		return e.err
	}
	return errors.New("it ended at once")
}

// Addr is the address the engine listens on, host:port.
func (e *Engine) Addr() string { return e.addr }

// PID is the engine's process id.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Done is closed when the engine has ended, by Stop or by itself.
func (e *Engine) Done() <-chan struct{} { return e.done }

// Err is why the engine ended; nil before Done is closed and after a clean end.
func (e *Engine) Err() error {
	select {
	case <-e.done:
		if e.err == nil {
			return nil
		}
		return fmt.Errorf("running the ClickHouse engine: %w", e.endReason())
	default:
		return nil
	}
}

// Stop ends the engine and waits for it: requests under way get a few seconds.
// Committed rows are safe in any case. Further calls wait too.
func (e *Engine) Stop() error {
	e.stopping.Do(func() { _ = e.cmd.Process.Signal(syscall.SIGTERM) })
	timer := time.NewTimer(stopLimit)
	defer timer.Stop()
	select {
	case <-e.done:
		return e.Err()
	case <-timer.C:
		e.kill()
		return fmt.Errorf("stopping the ClickHouse engine: it did not end within %s and was killed", stopLimit)
	}
}

func (e *Engine) kill() {
	_ = e.cmd.Process.Kill()
	<-e.done
}

func findBinary(explicit string) (string, error) {
	const name = "hookline-engine"
	if explicit != "" {
		return explicit, nil
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), name); isFile(path) {
			return path, nil
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("finding %s: %w (run 'make build')", name, ErrNoBinary)
	}
	return path, nil
}

// lastLine logs what the engine writes to standard error and keeps the last line
// that is none of its log as the reason if it ends.
type lastLine struct {
	log *slog.Logger

	mu   sync.Mutex
	part []byte // the line under way, bounded
	line string
}

const maxLine = 4 << 10

// Write implements io.Writer; os/exec calls it from one goroutine.
func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		line, rest, whole := bytes.Cut(p, []byte("\n"))
		if room := maxLine - len(l.part); room > 0 {
			l.part = append(l.part, line[:min(len(line), room)]...)
		}
		p = rest
		if !whole {
			break
		}
		if text := strings.TrimSpace(string(l.part)); text != "" {
			l.take(text)
		}
		l.part = l.part[:0]
	}
	return n, nil
}

// logged is a line of the engine's own log, as slog's TextHandler writes it.
var logged = regexp.MustCompile(`^time=\S+ level=(\S+) msg=("(?:[^"\\]|\\.)*"|\S*)(?: (.*))?$`)

// take logs a line of the engine's. One of its own log is no reason to end.
func (l *lastLine) take(text string) {
	m := logged.FindStringSubmatch(text)
	var level slog.Level
	if m == nil || level.UnmarshalText([]byte(m[1])) != nil {
		l.line = text
		l.log.Info(text, "from", "hookline-engine")
		return
	}
	msg, args := m[2], []any{"from", "hookline-engine"}
	if plain, err := strconv.Unquote(msg); err == nil {
		msg = plain
	}
	if m[3] != "" {
		args = append(args, "fields", m[3])
	}
	l.log.Log(context.Background(), level, msg, args...)
}

// String is the last whole line that was none of its log; empty: none.
func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.line
}
