package testkit

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
)

// Nodes is real Apache Kafka for a program that is no test; else as KafkaCluster.
type Nodes struct{ proc *kafkaProc }

// LaunchKafka starts a cluster of 1 or 3 nodes with its data in dir. It ends by
// Close, or when this process is gone.
func LaunchKafka(dir string, brokers int) (*Nodes, error) {
	script, err := scriptPath()
	if err != nil {
		return nil, err
	}
	p, err := startKafka(script, dir, brokers, "")
	if err != nil {
		return nil, err
	}
	return &Nodes{p}, nil
}

// Addrs returns the nodes' addresses, host:port, in their order.
func (n *Nodes) Addrs() []string { return append([]string(nil), n.proc.addrs...) }

// Kill9 ends a node, counted from 1, by SIGKILL and returns when it is gone.
func (n *Nodes) Kill9(node int) error { return n.proc.run("kill9", "--node", strconv.Itoa(node)) }

// Stop ends a node in an orderly way and returns when it is gone.
func (n *Nodes) Stop(node int) error { return n.proc.run("down", "--node", strconv.Itoa(node)) }

// Start starts a stopped node on its old data and returns when it serves.
func (n *Nodes) Start(node int) error { return n.proc.run("up", "--node", strconv.Itoa(node)) }

// Close ends the cluster. Its data stays.
func (n *Nodes) Close() error { return n.proc.run("kill9") }

// LaunchedEngine is hookline-engine for a program that is no test; else as
// EngineProc.
type LaunchedEngine struct{ e *EngineProc }

// LaunchEngine starts bin with its data in dir. It ends by Kill9 or Stop, or
// when this process is gone.
func LaunchEngine(dir, bin string) (*LaunchedEngine, error) {
	root, err := Root()
	if err != nil {
		return nil, err
	}
	out, err := exec.Command(filepath.Join(root, "scripts", "engine-lib.sh")).CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("bringing the ClickHouse engine: %s", lastLine(out, err))
	}
	ports, err := freePorts(1)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &LaunchedEngine{&EngineProc{dir: dir, bin: bin, lib: lastLine(out, nil), addr: fmt.Sprintf("127.0.0.1:%d", ports[0])}}
	return l, l.e.start()
}

// URL returns the address of the ClickHouse HTTP interface, http://host:port.
func (l *LaunchedEngine) URL() string { return l.e.URL() }

// Start starts a stopped engine on its old data and returns when it answers.
func (l *LaunchedEngine) Start() error { return l.e.start() }

// Kill9 ends the engine by SIGKILL and returns when its process is gone.
func (l *LaunchedEngine) Kill9() { l.e.Kill9() }

// Stop ends the engine by SIGTERM and returns when its process is gone.
func (l *LaunchedEngine) Stop() error { return l.e.stop() }

// FreePorts returns n different TCP ports of 127.0.0.1 that nobody listens on.
func FreePorts(n int) ([]int, error) { return freePorts(n) }
