package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/internal/testkit"
)

// fullPipe is a pipe that takes not a byte more; nobody reads it.
func fullPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; {
			if err = w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond)); err == nil {
				_, err = w.Write(make([]byte, size))
			}
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	return w
}

// closedPipe is a pipe whose reader has gone.
func closedPipe(t *testing.T) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	return w
}

// Standard error that nobody reads, or that nobody can read any more, holds up
// neither deliveries nor the end.
func TestDeliversWithoutAReaderOfItsLog(t *testing.T) {
	for name, pipe := range map[string]func(*testing.T) *os.File{"full": fullPipe, "closed": closedPipe} {
		t.Run(name, func(t *testing.T) { deliversInto(t, pipe(t)) })
	}
}

func deliversInto(t *testing.T, stderr *os.File) {
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "orders"))
	recv, ctx := receiving(t, receiver.Config{})
	admin := fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
	env := []string{
		"HOOKLINE_KAFKA_BROKERS=" + cluster.ListenAddrs()[0], "HOOKLINE_EVENTS_TOPICS=orders=json:type=/kind", "HOOKLINE_START=earliest",
		"HOOKLINE_PARTITIONS=2", "HOOKLINE_REPLICATION=1", "HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_CIDRS=127.0.0.0/8",
		"HOOKLINE_ALLOW_PORTS=1-65535", "HOOKLINE_ADMIN_ADDR=" + admin, "HOOKLINE_LOG_LEVEL=debug",
	}
	subs, events := filepath.Join(t.TempDir(), "subs.yaml"), filepath.Join(t.TempDir(), "events.json")
	for file, text := range map[string]string{subs: "{id: all, tenant: '*', url: '" + recv.URL() + "/ok'}", events: `{"kind":"order.placed"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect(t, run(t, env, "subs", "apply", "-f", subs), "all created")
	cmd := command(ctx, env, "run", "--roles", "router,dispatcher")
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stderr.Close()
	expect(t, run(t, env, "produce", "-t", "orders", events), "produced 1 record")
	if err := recv.Wait(ctx, 1); err != nil {
		t.Fatalf("nothing is delivered: %v", err)
	}
	resp, err := http.Get("http://" + admin + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || !strings.Contains(string(text), "hookline_log_lines_dropped_total ") {
		t.Errorf("lines that are dropped are not counted: %v", err)
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after SIGTERM: %v", err)
	}
}
