package testkit

import (
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
)

const (
	engineUpLimit   = 60 * time.Second // opening takes 0.3-0.6 s on an idle machine
	engineStopLimit = 20 * time.Second // from SIGTERM to the end of the process
	engineBuild     = 5 * time.Minute  // go build from nothing
)

// EngineProc is hookline-engine, the embedded ClickHouse, as a process of its
// own on a port of 127.0.0.1. Its methods report failures to its test and must
// not be called at once from several goroutines.
type EngineProc struct {
	tb       testing.TB
	bin, lib string // the program, and libchdb.so for it
	dir      string
	addr     string
	cmd      *exec.Cmd
	ended    chan struct{} // closed by the goroutine that waits for cmd, after it set exit
	exit     error
	waiters  sync.WaitGroup
}

// Engine starts hookline-engine with an empty data folder; it ends with the
// test. The binary is HOOKLINE_TEST_ENGINE, else it is built. Where the engine's
// library cannot be had the test is skipped, or fails under CI=true.
func Engine(tb testing.TB) *EngineProc {
	tb.Helper()
	return EngineIn(tb, tb.TempDir())
}

// EngineIn is Engine with its data in dir, a file system of its own for instance.
func EngineIn(tb testing.TB, dir string) *EngineProc {
	tb.Helper()
	root, err := Root()
	if err != nil {
		tb.Fatal(err)
	}
	out, err := exec.Command(filepath.Join(root, "scripts", "engine-lib.sh")).CombinedOutput()
	if err != nil {
		lacking(tb, "the ClickHouse engine", lastLine(out, err))
	}
	e := &EngineProc{tb: tb, dir: dir, bin: os.Getenv("HOOKLINE_TEST_ENGINE"), lib: lastLine(out, nil)}
	if e.bin == "" {
		e.bin = buildEngine(tb, root)
	}
	e.addr = fmt.Sprintf("127.0.0.1:%d", FreePort(tb))
	tb.Cleanup(func() {
		e.Kill9()
		e.waiters.Wait()
		if tb.Failed() {
			tb.Logf("hookline-engine wrote:\n%s", e.tail(20))
		}
	})
	e.Start()
	return e
}

// URL returns the address of the ClickHouse HTTP interface, http://host:port.
func (e *EngineProc) URL() string { return "http://" + e.addr }

// Start starts a stopped engine on its old data and address and returns when it
// answers.
func (e *EngineProc) Start() {
	e.tb.Helper()
	if err := e.start(); err != nil {
		e.tb.Fatalf("starting hookline-engine: %v", err)
	}
}

// Kill9 ends the engine by SIGKILL and returns when its process is gone.
func (e *EngineProc) Kill9() {
	if e.ended == nil {
		return
	}
	_ = e.cmd.Process.Kill() // it may have ended already
	<-e.ended
}

// Stop ends the engine by SIGTERM and returns when its process is gone.
func (e *EngineProc) Stop() {
	e.tb.Helper()
	if err := e.stop(); err != nil {
		e.tb.Error(err)
	}
}

func (e *EngineProc) stop() error {
	_ = e.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-e.ended:
	case <-time.After(engineStopLimit):
		e.Kill9()
		return fmt.Errorf("stopping hookline-engine: still there %v after SIGTERM", engineStopLimit)
	}
	if e.exit != nil {
		return fmt.Errorf("stopping hookline-engine: %w", e.exit)
	}
	return nil
}

// Restart stops the engine in an orderly way, where it runs, and starts it.
func (e *EngineProc) Restart() {
	e.tb.Helper()
	select {
	case <-e.ended:
	default:
		e.Stop()
	}
	e.Start()
}

func (e *EngineProc) start() error {
	log, err := os.OpenFile(filepath.Join(e.dir, "engine.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the process has its own descriptor
	cmd := exec.Command(e.bin, "--addr", e.addr, "--data", filepath.Join(e.dir, "data"), "--lib", e.lib)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = childAttr()
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	e.cmd, e.ended, e.exit = cmd, ended, nil
	e.waiters.Go(func() {
		e.exit = cmd.Wait()
		close(ended)
	})
	return e.await()
}

// await asks until the engine answers, has ended, or the limit is over.
func (e *EngineProc) await() error {
	ctx, cancel := context.WithTimeout(context.Background(), engineUpLimit)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-e.ended:
			return fmt.Errorf("it ended: %w: %s", orDone(e.exit), e.tail(1))
		case <-ctx.Done():
			return fmt.Errorf("no answer within %v: %s", engineUpLimit, e.tail(1))
		case <-tick.C:
			if e.answers(ctx) {
				return nil
			}
		}
	}
}

func (e *EngineProc) answers(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL()+"/ping", nil)
	if err != nil {
		return false
	}
	req.Close = true // no idle connection, hence no goroutine, is left behind
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer res.Body.Close()
	_, err = io.Copy(io.Discard, io.LimitReader(res.Body, 1<<10))
	return err == nil && res.StatusCode == http.StatusOK
}

// tail returns the last n lines that the engine wrote.
func (e *EngineProc) tail(n int) string {
	log, err := os.ReadFile(filepath.Join(e.dir, "engine.log"))
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(log)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// buildEngine builds the binary for this test. A kept one could be older than
// the sources; the build cache makes this about a second.
func buildEngine(tb testing.TB, root string) string {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), engineBuild)
	defer cancel()
	bin := filepath.Join(tb.TempDir(), "hookline-engine")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, "./cmd/hookline-engine")
	cmd.Dir, cmd.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		tb.Fatalf("building hookline-engine: %v\n%s", err, out)
	}
	return bin
}

func orDone(err error) error {
	if err == nil {
		return errors.New("exit status 0")
	}
	return err
}
