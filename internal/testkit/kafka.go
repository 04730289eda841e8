package testkit

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// kafkaLimit bounds one call of the Kafka script: three nodes on a busy machine
// need about 20 s, and the first call of all downloads.
const kafkaLimit = 3 * time.Minute

// KafkaCluster is real Apache Kafka on 127.0.0.1, with every node broker and
// controller. Nodes are counted from 1. Its methods report failures to the test
// that it was given to; they may be called from any goroutine, for different
// nodes at once too.
type KafkaCluster struct {
	tb   testing.TB
	proc *kafkaProc
}

// Kafka starts a cluster of 1 or 3 nodes for this test alone; it ends with it.
// That costs 2 to 8 s: use SharedKafka where tests can share one. Where Java or
// Maven is missing the test is skipped, or fails under CI=true.
func Kafka(tb testing.TB, brokers int) *KafkaCluster {
	tb.Helper()
	return KafkaIn(tb, tb.TempDir(), brokers)
}

// KafkaIn is Kafka with its data in dir, a file system of its own for instance.
func KafkaIn(tb testing.TB, dir string, brokers int) *KafkaCluster {
	tb.Helper()
	return kafkaIn(tb, dir, brokers, "")
}

// KafkaWith is Kafka with more lines in its server.properties, in which @PORT@
// and @CONTROLLER@ are the node's ports. Client is for plain clusters only.
func KafkaWith(tb testing.TB, brokers int, properties string) *KafkaCluster {
	tb.Helper()
	return kafkaIn(tb, tb.TempDir(), brokers, properties)
}

func kafkaIn(tb testing.TB, dir string, brokers int, properties string) *KafkaCluster {
	tb.Helper()
	script := kafkaScript(tb)
	p, err := startKafka(script, filepath.Join(dir, "kafka"), brokers, properties)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Log(p.complaints())
		}
		if err := p.run("kill9"); err != nil {
			tb.Error(err)
		}
	})
	return &KafkaCluster{tb: tb, proc: p}
}

// SharedKafka is one cluster for the tests of a package, started when the first
// one asks. The package declares it and closes it from TestMain:
//
//	var shared = testkit.SharedKafka{Brokers: 1}
//
//	func TestMain(m *testing.M) {
//		code := m.Run()
//		shared.Close()
//		os.Exit(code)
//	}
//
// (with goleak: goleak.VerifyTestMain(m, goleak.Cleanup(...))). A test binary
// that is killed leaves no Kafka behind: the script watches its process.
type SharedKafka struct {
	Brokers int // 1 or 3; 0 means 1

	mu   sync.Mutex // guards what follows
	proc *kafkaProc
	err  error
}

// Get returns the cluster, bound to this test. Tests must not kill nodes that
// others use, and should name their topics with Unique.
func (s *SharedKafka) Get(tb testing.TB) *KafkaCluster {
	tb.Helper()
	script := kafkaScript(tb)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil && s.err == nil {
		var dir string
		if dir, s.err = os.MkdirTemp("", "hookline-kafka-"); s.err == nil {
			s.proc, s.err = startKafka(script, dir, max(s.Brokers, 1), "")
		}
	}
	if s.err != nil {
		tb.Fatal(s.err)
	}
	return &KafkaCluster{tb: tb, proc: s.proc}
}

// Close ends the cluster, if one was started, and removes its data.
func (s *SharedKafka) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc == nil {
		return
	}
	if err := s.proc.run("kill9"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.RemoveAll(s.proc.dir)
	s.proc = nil
}

// Addrs returns the nodes' addresses, host:port, in their order.
func (c *KafkaCluster) Addrs() []string { return append([]string(nil), c.proc.addrs...) }

// PIDs are the process ids of the nodes that run.
func (c *KafkaCluster) PIDs() (pids []int) {
	for i := range c.proc.addrs {
		text, err := os.ReadFile(filepath.Join(c.proc.dir, fmt.Sprintf("n%d", i+1), "pid"))
		if pid, bad := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && bad == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill9 ends a node by SIGKILL and returns when its process is gone.
func (c *KafkaCluster) Kill9(node int) { c.act("kill9", node) }

// Stop ends a node in an orderly way (about 1 s) and returns when it is gone.
func (c *KafkaCluster) Stop(node int) { c.act("down", node) }

// Start starts a stopped node on its old data and address and returns when it
// serves. After Kill9 that takes up to 3 s more: its session must end first.
func (c *KafkaCluster) Start(node int) { c.act("up", node) }

func (c *KafkaCluster) act(action string, node int) {
	c.tb.Helper()
	if err := c.proc.run(action, "--node", strconv.Itoa(node)); err != nil {
		c.tb.Error(err)
	}
}

// Client returns a client of the cluster that closes with the test.
func (c *KafkaCluster) Client(opts ...kgo.Opt) *kgo.Client {
	c.tb.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(c.proc.addrs...)}, opts...)...)
	if err != nil {
		c.tb.Fatalf("making a Kafka client: %v", err)
	}
	c.tb.Cleanup(cl.Close)
	return cl
}

// kafkaProc is what the script runs: the state is in dir, none is here.
type kafkaProc struct {
	script, dir string
	addrs       []string
	properties  string
}

// kafkaScript finds the script and makes sure that it can work here.
func kafkaScript(tb testing.TB) string {
	tb.Helper()
	script, err := scriptPath()
	if err != nil {
		tb.Fatal(err)
	}
	if out, err := exec.Command(script, "jars").CombinedOutput(); err != nil {
		lacking(tb, "real Kafka", lastLine(out, err))
	}
	return script
}

func scriptPath() (string, error) {
	if script := os.Getenv("HOOKLINE_TEST_KAFKA_SCRIPT"); script != "" {
		return script, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	return filepath.Join(root, "scripts", "kafka.sh"), nil
}

// startKafka starts a cluster with its data in dir. Another process may take a
// port between our look and Kafka's bind; then other ports are tried.
func startKafka(script, dir string, brokers int, properties string) (*kafkaProc, error) {
	var failed error
	for try := range 3 {
		p := &kafkaProc{script: script, dir: filepath.Join(dir, strconv.Itoa(try)), properties: properties}
		ports, err := freePorts(2 * brokers)
		if err != nil {
			return nil, err
		}
		var list []string
		for i, port := range ports {
			list = append(list, strconv.Itoa(port))
			if i < brokers {
				p.addrs = append(p.addrs, "127.0.0.1:"+list[i])
			}
		}
		failed = p.run("up", "--brokers", strconv.Itoa(brokers),
			"--ports", strings.Join(list, ","), "--parent", strconv.Itoa(os.Getpid()))
		if failed == nil {
			return p, nil
		}
		inUse := strings.Contains(p.complaints(), "in use")
		_ = p.run("kill9") // what did come up; the failure that counts is the first
		if !inUse {
			break
		}
	}
	return nil, failed
}

func (p *kafkaProc) run(action string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), kafkaLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, p.script, append([]string{action, "--data", p.dir}, args...)...)
	cmd.WaitDelay = 5 * time.Second
	if p.properties != "" {
		cmd.Env = append(os.Environ(), "HOOKLINE_KAFKA_EXTRA="+p.properties)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("running kafka.sh %s: %s: %w", action, lastLine(out, err), err)
	}
	return nil
}

// complaints returns what the nodes logged as errors, at most 20 lines each.
func (p *kafkaProc) complaints() string {
	var b strings.Builder
	logs, _ := filepath.Glob(filepath.Join(p.dir, "n*", "kafka.out"))
	for _, name := range logs {
		log, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		var found []string
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, "ERROR") || strings.Contains(line, "FATAL") || strings.Contains(line, "Exception") {
				found = append(found, line)
			}
		}
		fmt.Fprintf(&b, "%s: %d errors\n%s", name, len(found), strings.Join(found[max(0, len(found)-20):], ""))
	}
	return b.String()
}

// lastLine returns the last line that a command wrote, or the error if it wrote none.
func lastLine(out []byte, err error) string {
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	if last := string(lines[len(lines)-1]); last != "" || err == nil {
		return last
	}
	return err.Error()
}
