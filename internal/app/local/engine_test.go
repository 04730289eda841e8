package local

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/sink/embedded"
)

// engineInPath builds hookline-engine where StartEngine finds it.
func engineInPath(t *testing.T) {
	t.Helper()
	if _, err := embedded.FindLibrary(""); errors.Is(err, embedded.ErrNoLibrary) {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "hookline-engine"), "./cmd/hookline-engine")
	build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building hookline-engine: %v\n%s", err, out)
	}
	t.Setenv("PATH", dir+string(filepath.ListSeparator)+os.Getenv("PATH"))
}

// signals sends each log line to whoever waits for it.
type signals chan string

func (s signals) Write(p []byte) (int, error) {
	s <- string(p)
	return len(p), nil
}

func (s signals) await(t *testing.T, want string) {
	t.Helper()
	limit := time.After(60 * time.Second)
	for {
		select {
		case line := <-s:
			if strings.Contains(line, want) {
				return
			}
		case <-limit:
			t.Fatalf("no line with %q", want)
		}
	}
}

// An engine that dies is started again on its port and data, and it is said.
func TestDeadEngineIsStartedAgain(t *testing.T) {
	engineInPath(t)
	lines := make(signals, 1000)
	e, err := StartEngine(t.Context(), "127.0.0.1:0", t.TempDir(), slog.New(slog.NewTextHandler(lines, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	}()
	first, addr := e.PID(), e.Addr()
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	lines.await(t, "the ClickHouse engine has ended; starting it again")
	lines.await(t, "the ClickHouse engine runs again")
	if e.PID() == first || e.Addr() != addr {
		t.Errorf("process %d (was %d) at %s (was %s)", e.PID(), first, e.Addr(), addr)
	}
	resp, err := http.Get("http://" + addr + "/?query=SELECT+1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Errorf("SELECT 1 gives %q, %v", b, err)
	}
}

// Without the library there is a broker and a reason, not a failure.
func TestStackWithoutEngine(t *testing.T) {
	t.Setenv(embedded.LibraryEnv, filepath.Join(t.TempDir(), "none"))
	s, err := Start(t.Context(), Addrs{Kafka: "127.0.0.1:0", ClickHouse: "127.0.0.1:0"}, t.TempDir(), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Engine != nil || s.NoEngine == nil {
		t.Errorf("engine %v, reason %v", s.Engine, s.NoEngine)
	}
}
