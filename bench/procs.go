package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// stage is what a whole run shares: Kafka, the ClickHouse engine, binaries.
type stage struct {
	nodes      int // of Kafka
	root, dir  string
	self       string // this program
	brokers    string
	clickhouse string
	enginePID  int
	ends       []func()
}

// setUp starts Kafka and the engine, this one with options that lower its priority. Call
// close in any case.
func setUp(ctx context.Context, brokers int, priority []string) (*stage, error) {
	s := &stage{nodes: brokers}
	var err error
	if s.self, err = os.Executable(); err != nil {
		return s, err
	}
	if s.root, err = moduleRoot(); err != nil {
		return s, err
	}
	if s.dir, err = os.MkdirTemp("", "hookline-bench-"); err != nil {
		return s, err
	}
	s.ends = append(s.ends, func() { _ = os.RemoveAll(s.dir) })
	for _, cmd := range []string{"hookline", "hookline-engine"} {
		c := exec.CommandContext(ctx, "go", "build", "-o", filepath.Join(s.dir, cmd), "./cmd/"+cmd)
		c.Dir, c.Env = s.root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			return s, fmt.Errorf("building %s: %w: %s", cmd, err, out)
		}
	}
	if err := s.kafka(ctx, brokers); err != nil {
		return s, err
	}
	return s, s.engine(ctx, priority)
}

func moduleRoot() (string, error) {
	out, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("finding the module: %w", err)
	}
	return filepath.Dir(strings.TrimSpace(string(out))), nil
}

func (s *stage) kafka(ctx context.Context, brokers int) error {
	script, data := filepath.Join(s.root, "scripts", "kafka.sh"), filepath.Join(s.dir, "kafka")
	ports, err := freePorts(2 * brokers)
	if err != nil {
		return err
	}
	up := exec.CommandContext(ctx, script, "up", "--data", data, "--brokers", strconv.Itoa(brokers),
		"--ports", strings.Join(ports, ","), "--parent", strconv.Itoa(os.Getpid()))
	up.Env = kafkaEnv(brokers)
	out, err := up.Output()
	if err != nil {
		return fmt.Errorf("starting Kafka: %w", err)
	}
	s.ends = append(s.ends, func() { _ = exec.Command(script, "kill9", "--data", data).Run() })
	_, list, ok := strings.Cut(strings.TrimSpace(string(out)), "bootstrap=")
	if !ok {
		return fmt.Errorf("starting Kafka: no address in %q", out)
	}
	s.brokers = strings.Fields(list)[0]
	return nil
}

// kafkaEnv is kafka.sh's environment. Each node gets a heap as Kafka's documentation
// advises, some GiB, most of it for what is young: with the 320 MiB of the tests it
// stood still three to five times a second for 8 to 24 ms, and every 15 to 50 s for 70
// to 125, which alone may be the slowest 1 % of a round. Where there is less than 1 GiB
// for a node, or somebody says what there is, it stays as it is.
func kafkaEnv(nodes int) []string {
	env := os.Environ()
	for _, name := range []string{"HOOKLINE_KAFKA_HEAP", "HOOKLINE_KAFKA_JVM"} {
		if _, set := os.LookupEnv(name); set {
			return env
		}
	}
	heap := min(4096, memoryMiB()/4) / nodes
	if heap < 1024 {
		return env
	}
	return append(env, fmt.Sprintf("HOOKLINE_KAFKA_JVM=-Xms%dm -Xmx%dm -Xmn%dm", heap, heap, heap/4*3))
}

// memoryMiB is what the machine has, or the container (cgroup v2); 0 where that is not
// told as Linux does.
func memoryMiB() (mib int) {
	info, _ := os.ReadFile("/proc/meminfo")
	for line := range strings.Lines(string(info)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "MemTotal:" {
			kib, _ := strconv.Atoi(f[1])
			mib = kib >> 10
		}
	}
	limit, _ := os.ReadFile("/sys/fs/cgroup/memory.max")
	if n, err := strconv.Atoi(strings.TrimSpace(string(limit))); err == nil {
		mib = min(mib, n>>20)
	}
	return mib
}

func (s *stage) engine(ctx context.Context, priority []string) error {
	lib, err := exec.CommandContext(ctx, filepath.Join(s.root, "scripts", "engine-lib.sh")).Output()
	if err != nil {
		return fmt.Errorf("bringing the ClickHouse engine: %w", err)
	}
	ports, err := freePorts(1)
	if err != nil {
		return err
	}
	addr := "127.0.0.1:" + ports[0]
	args := append([]string{
		"--addr", addr, "--data", filepath.Join(s.dir, "clickhouse"),
		"--lib", strings.TrimSpace(string(lib)), "--parent", strconv.Itoa(os.Getpid()),
	}, priority...)
	c := exec.Command(filepath.Join(s.dir, "hookline-engine"), args...)
	if err := c.Start(); err != nil {
		return err
	}
	s.ends = append(s.ends, func() { stopProcess(c) })
	s.clickhouse, s.enginePID = "http://"+addr, c.Process.Pid
	return until(ctx, 30*time.Second, func() bool { return get(s.clickhouse+"/ping", nil) == nil })
}

// close ends what was started, of a stage that there is.
func (s *stage) close() {
	if s == nil {
		return
	}
	for i := len(s.ends) - 1; i >= 0; i-- {
		s.ends[i]()
	}
}

func stopProcess(c *exec.Cmd) {
	_ = c.Process.Signal(syscall.SIGTERM)
	done := make(chan struct{})
	go func() { _ = c.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(25 * time.Second):
		_ = c.Process.Kill()
		<-done
	}
}

// receiver starts a receiver process.
func (s *stage) receiver(delay time.Duration) (url string, end func(), err error) {
	c := exec.Command(s.self, "-role", roleReceiver, "-delay", delay.String())
	in, err := c.StdinPipe()
	if err != nil {
		return "", nil, err
	}
	out, err := c.StdoutPipe()
	if err != nil {
		return "", nil, err
	}
	if err := c.Start(); err != nil {
		return "", nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return "", nil, fmt.Errorf("starting the receiver: %w", err)
	}
	return strings.TrimSpace(line), func() { _ = in.Close(); stopProcess(c) }, nil
}

func receiverCounts(url, query string) (counts, error) {
	var c counts
	return c, get(url+"/count"+query, &c)
}

// spent is what a loop has used, as it prints it.
type spent struct{ CPU, Wall time.Duration }

// child runs this program in another role to its end and gives what it says it
// has spent.
func (s *stage) child(ctx context.Context, args ...string) (spent, error) {
	c := exec.CommandContext(ctx, s.self, args...)
	var stderr bytes.Buffer
	c.Stderr = &stderr
	var used spent
	out, err := c.Output()
	if err == nil {
		err = json.Unmarshal(out, &used)
	}
	if err != nil {
		return used, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return used, nil
}

// clockTicks per second of /proc/PID/stat: 100 on every Linux that Go runs on.
const clockTicks = 100

// cpuOf is the CPU time of a running process. Of one that has ended it is an error,
// also while its entry is still there.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, ok := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if !ok || len(f) < 13 {
		return 0, errors.New("reading CPU time: /proc/PID/stat has another form")
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, fmt.Errorf("reading CPU time: process %d has ended", pid)
	}
	user, err1 := strconv.ParseInt(f[11], 10, 64)
	system, err2 := strconv.ParseInt(f[12], 10, 64)
	return time.Duration(user+system) * time.Second / clockTicks, errors.Join(err1, err2)
}

// ownCPU is the CPU time of this process so far.
func ownCPU() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// peakMemory is the most resident memory of a process so far, in MiB.
func peakMemory(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, _ := strconv.Atoi(strings.Fields(v)[0])
			return kib / 1024
		}
	}
	return 0
}

func freePorts(n int) ([]string, error) {
	var out []string
	var lns []net.Listener
	for range n {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		lns = append(lns, ln)
		out = append(out, strconv.Itoa(ln.Addr().(*net.TCPAddr).Port))
	}
	for _, ln := range lns {
		_ = ln.Close()
	}
	return out, nil
}

func get(url string, into any) error {
	resp, err := http.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil || resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s %w", url, resp.Status, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(b, into)
}

func until(ctx context.Context, limit time.Duration, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for !ok() {
		if err := ctx.Err(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited %v in vain", limit)
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}
