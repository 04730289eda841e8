package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// helperEnv makes this test binary the parent in TestEngineDiesWithItsParent.
const helperEnv = "HOOKLINE_TEST_ENGINE_PARENT"

// binary is hookline-engine, built once; empty if buildErr says why.
var (
	binary   string
	buildErr error
)

func TestMain(m *testing.M) {
	if args := os.Getenv(helperEnv); args != "" {
		beParent(args)
		return
	}
	dir, err := os.MkdirTemp("", "embedded-")
	if err != nil {
		panic(err)
	}
	binary = filepath.Join(dir, "hookline-engine")
	cmd := exec.Command("go", "build", "-o", binary, "../../cmd/hookline-engine")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		buildErr = fmt.Errorf("building hookline-engine: %w: %s", err, out)
	}
	code := m.Run()
	_ = os.RemoveAll(dir)
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// beParent starts an engine, tells its process id and address, and waits to be killed.
func beParent(args string) {
	bin, data, _ := strings.Cut(args, "|")
	engine, err := Start(context.Background(), Config{Binary: bin, DataDir: data})
	if err != nil {
		fmt.Println("error", err)
		os.Exit(1)
	}
	fmt.Println(engine.PID(), engine.Addr())
	<-engine.Done()
}

func needEngine(t *testing.T) {
	t.Helper()
	if buildErr != nil {
		t.Fatal(buildErr)
	}
	if _, err := FindLibrary(""); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("the ClickHouse engine is needed under CI=true: %v", err)
		}
		t.Skipf("no ClickHouse engine: %v", err)
	}
}

func start(t *testing.T, data string) *Engine {
	t.Helper()
	needEngine(t)
	engine, err := Start(context.Background(), Config{Binary: binary, DataDir: data})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = engine.Stop()
		http.DefaultClient.CloseIdleConnections()
	})
	return engine
}

func query(t *testing.T, addr, text string) string {
	t.Helper()
	resp, err := http.Post("http://"+addr+"/", "text/plain", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: status %d, %v: %s", text, resp.StatusCode, err, body)
	}
	return strings.TrimSpace(string(body))
}

func TestStartAndStop(t *testing.T) {
	engine := start(t, filepath.Join(t.TempDir(), "made", "when missing"))
	if got := query(t, engine.Addr(), "SELECT 40 + 2"); got != "42" {
		t.Errorf("got %q", got)
	}
	began := time.Now()
	if err := engine.Stop(); err != nil {
		t.Errorf("Stop() = %v", err)
	}
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("stopping took %s", took)
	}
	if err := engine.Err(); err != nil {
		t.Errorf("Err() after a clean end = %v", err)
	}
}

// A query under way must not keep the engine from ending.
func TestStopWithQueryUnderWay(t *testing.T) {
	engine := start(t, t.TempDir())
	resp, err := http.Post("http://"+engine.Addr()+"/?max_block_size=1", "text/plain", strings.NewReader("SELECT sleepEachRow(0.2) FROM numbers(600)"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if err := engine.Stop(); err != nil {
		t.Errorf("Stop() = %v", err)
	}
}

func TestOneEnginePerDataDirectory(t *testing.T) {
	data := t.TempDir()
	engine := start(t, data)
	_, err := Start(context.Background(), Config{Binary: binary, DataDir: data})
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("in use by process %d", engine.PID())) {
		t.Errorf("second engine: %v, want the holder's process id", err)
	}
	wantExit(t, 2, "in use by process", "--addr", "127.0.0.1:0", "--data", data)
	_, port, _ := strings.Cut(engine.Addr(), ":")
	wantExit(t, 1, "address already in use", "--addr", "127.0.0.1:"+port, "--data", t.TempDir())
}

func TestExitCodes(t *testing.T) {
	needEngine(t)
	data := t.TempDir()
	wantExit(t, 0, "", "--help")
	wantExit(t, 2, "--data is missing")
	wantExit(t, 2, "not defined", "--nope")
	wantExit(t, 2, "--nice must be 0 to 19", "--data", data, "--nice", "20")
	wantExit(t, 2, "make setup", "--data", data, "--lib", "/nonexistent/libchdb.so")
	notLib := filepath.Join(t.TempDir(), "libchdb.so")
	if err := os.WriteFile(notLib, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantExit(t, 1, "loading the ClickHouse engine", "--addr", "127.0.0.1:0", "--data", data, "--lib", notLib)
	file := filepath.Join(data, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantExit(t, 2, "making the data directory", "--data", filepath.Join(file, "x"))
}

// TestEngineGivesWay: --nice is of all of the engine's threads, but one to which it
// gives the highest priority by itself, where it may.
func TestEngineGivesWay(t *testing.T) {
	needEngine(t)
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	library, err := FindLibrary("")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(binary, "--addr", "127.0.0.1:0", "--data", t.TempDir(), "--lib", library,
		"--parent", strconv.Itoa(os.Getpid()), "--nice", "7")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	query(t, strings.TrimSpace(strings.TrimPrefix(line, ReadyPrefix)), "SELECT count() FROM numbers_mt(1000000)")
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", cmd.Process.Pid))
	if err != nil || len(stats) < 10 {
		t.Fatalf("%d threads, %v", len(stats), err)
	}
	for _, path := range stats {
		stat, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): the nice value is field 19, the third begins behind the name.
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if got := fields[19-3]; got != "7" && got != "-20" {
			t.Errorf("%s: niceness %s, want 7", path, got)
		}
	}
}

func wantExit(t *testing.T, code int, text string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, binary, args...).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		t.Fatal(err)
	}
	if got != code || !strings.Contains(string(out), text) {
		t.Errorf("%v: exit code %d, %q; want %d and %q", args, got, out, code, text)
	}
	if code != 0 && (!strings.HasPrefix(string(out), "hookline-engine: ") || strings.Count(strings.TrimSpace(string(out)), "\n") > 0) {
		t.Errorf("%v: %q is not one line of the engine's", args, out)
	}
}

// Lines of the engine's own log keep their level and message, and are no reason why
// it ended; others are.
func TestLinesOfTheEngine(t *testing.T) {
	var b bytes.Buffer
	drop := func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}
	l := &lastLine{log: slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: drop}))}
	const lines = "hookline-engine: opening it: no room\n" +
		"time=2026-11-26T23:37:39.744Z level=INFO msg=answering addr=127.0.0.1:1\n" +
		"time=2026-11-26T23:37:39.744Z level=WARN msg=\"ending \\\"now\\\"\"\n"
	if _, err := l.Write([]byte(lines)); err != nil {
		t.Fatal(err)
	}
	const want = "level=INFO msg=\"hookline-engine: opening it: no room\" from=hookline-engine\n" +
		"level=INFO msg=answering from=hookline-engine fields=\"addr=127.0.0.1:1\"\n" +
		"level=WARN msg=\"ending \\\"now\\\"\" from=hookline-engine\n"
	if b.String() != want || l.String() != "hookline-engine: opening it: no room" {
		t.Errorf("logged\n%swant\n%sreason %s", b.String(), want, l.String())
	}
}

// What was acknowledged is there after kill -9, and what comes again with the
// same token is not there twice.
func TestKilledEngineKeepsCommittedRows(t *testing.T) {
	data := t.TempDir()
	engine := start(t, data)
	for _, ddl := range []string{
		"CREATE DATABASE d",
		"CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a",
		"INSERT INTO d.t VALUES (1)",
		"CREATE TABLE t (a UInt64) ENGINE = MergeTree PARTITION BY a % 3 ORDER BY a SETTINGS non_replicated_deduplication_window = 1000",
		"CREATE TABLE stats (k UInt64, n UInt64) ENGINE = SummingMergeTree ORDER BY k SETTINGS non_replicated_deduplication_window = 1000",
		"CREATE MATERIALIZED VIEW mv TO stats AS SELECT a % 10 AS k, count() AS n FROM t GROUP BY k",
	} {
		query(t, engine.Addr(), ddl)
	}
	const blocks = 20
	for block := range blocks {
		insertBlock(t, engine.Addr(), block)
		insertBlock(t, engine.Addr(), block)
		if block%5 != 4 {
			continue
		}
		if err := syscall.Kill(engine.PID(), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		<-engine.Done()
		if err := engine.Err(); err == nil || err.Error() != "running the ClickHouse engine: signal: killed" {
			t.Errorf("Err() after kill -9: %v", err)
		}
		engine = start(t, data)
		insertBlock(t, engine.Addr(), block)
		want := fmt.Sprintf("%d\t%d\t%d\t1", (block+1)*100, (block+1)*100, (block+1)*100)
		if got := query(t, engine.Addr(), "SELECT count(), uniqExact(a), (SELECT sum(n) FROM stats), (SELECT count() FROM d.t) FROM t"); got != want {
			t.Fatalf("after kill -9 behind block %d: %q, want %q", block, got, want)
		}
	}
}

func insertBlock(t *testing.T, addr string, block int) {
	t.Helper()
	var rows strings.Builder
	for i := range 100 {
		fmt.Fprintln(&rows, block*100+i)
	}
	query(t, addr, fmt.Sprintf("INSERT INTO t SETTINGS insert_deduplication_token = '%d', deduplicate_blocks_in_dependent_materialized_views = 1 FORMAT TSV\n%s", block, rows.String()))
}

// An engine must not outlive the process that started it, even when that is
// killed; committed rows stay and the directory is free again.
func TestEngineDiesWithItsParent(t *testing.T) {
	needEngine(t)
	data := t.TempDir()
	parent := exec.Command(os.Args[0])
	parent.Env = append(os.Environ(), helperEnv+"="+binary+"|"+data)
	stdout, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	var (
		pid  int
		addr string
	)
	if _, err := fmt.Fscan(stdout, &pid, &addr); err != nil {
		t.Fatal(err)
	}
	query(t, addr, "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
	query(t, addr, "INSERT INTO t FORMAT TSV\n1\n2\n")
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait()
	http.DefaultClient.CloseIdleConnections()
	engine := startWhenFree(t, data)
	if got := query(t, engine.Addr(), "SELECT count() FROM t"); got != "2" {
		t.Errorf("%s rows, want 2", got)
	}
}

// startWhenFree starts an engine as soon as the one before has let go.
func startWhenFree(t *testing.T, data string) *Engine {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		engine, err := Start(context.Background(), Config{Binary: binary, DataDir: data})
		if err == nil {
			t.Cleanup(func() { _ = engine.Stop(); http.DefaultClient.CloseIdleConnections() })
			return engine
		}
		if !strings.Contains(err.Error(), "in use by process") || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// bin/hookline imports this package and must stay without a dynamic loader.
func TestLauncherLoadsNoLibrary(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(out), "purego") {
		t.Error("this package imports purego: bin/hookline would not be static")
	}
}

func TestWebPagesAreKeptOut(t *testing.T) {
	engine := start(t, t.TempDir())
	for _, tc := range []struct {
		host, site string
		status     int
	}{{"", "", 200}, {"localhost:8123", "", 200}, {"evil.example:8123", "", 403}, {"", "cross-site", 403}} {
		req, err := http.NewRequest(http.MethodPost, "http://"+engine.Addr()+"/?query="+url.QueryEscape("SELECT 1"), nil)
		if err != nil {
			t.Fatal(err)
		}
		if tc.host != "" {
			req.Host = tc.host
		}
		if tc.site != "" {
			req.Header.Set("Sec-Fetch-Site", tc.site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != tc.status {
			t.Errorf("%+v: status %d", tc, resp.StatusCode)
		}
	}
}

func TestStartGivesUpWithItsContext(t *testing.T) {
	needEngine(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Start(ctx, Config{Binary: binary, DataDir: t.TempDir()}); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with an ended context = %v", err)
	}
}

func TestFindLibrary(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	t.Setenv(LibraryEnv, "")
	if _, err := FindLibrary(""); !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("without any: %v", err)
	}
	if _, err := FindLibrary("/nope"); !errors.Is(err, ErrNoLibrary) || !strings.Contains(err.Error(), "--lib") {
		t.Errorf("named and missing: %v", err)
	}
	put := func(version string) string {
		path := filepath.Join(cache, "hookline", "chdb-"+version, "libchdb.so")
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	put("26.5.3")
	newest := put("26.10.0-stable.1")
	put("26.7.3-stable.1")
	if got, err := FindLibrary(""); got != newest || err != nil {
		t.Errorf("FindLibrary = %q, %v; want the newest, %q", got, err, newest)
	}
	named := put("26.1.0")
	t.Setenv(LibraryEnv, named)
	if got, err := FindLibrary(""); got != named || err != nil {
		t.Errorf("FindLibrary = %q, %v; want the one of the environment", got, err)
	}
}
