// Package testkit starts what tests need and cannot have in process for free:
// real Kafka, a Kafka-compatible broker, the ClickHouse engine. All of it ends
// with the test, also with one that is killed.
package testkit

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
)

// Ports for tests are drawn from below Linux's ephemeral range (32768-60999):
// a port from inside it can be taken by any outgoing connection between the
// look and the use.
const (
	portsFrom = 15000
	portsTo   = 32000
)

// KFake starts a Kafka-compatible broker in this process, with one node, its
// data in the test's temporary folder, and group sessions as short as 1 s. It
// ends with the test. Give kfake.SeedTopics for topics; its addresses are at
// ListenAddrs.
func KFake(tb testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	tb.Helper()
	opts = append([]kfake.Opt{
		kfake.NumBrokers(1),
		kfake.DataDir(tb.TempDir()),
		kfake.GroupMinSessionTimeout(time.Second),
	}, opts...)
	c, err := kfake.NewCluster(opts...)
	if err != nil {
		tb.Fatalf("starting kfake: %v", err)
	}
	tb.Cleanup(c.Close)
	return c
}

// FreePort returns a TCP port of 127.0.0.1 that nobody listens on.
func FreePort(tb testing.TB) int {
	tb.Helper()
	ports, err := freePorts(1)
	if err != nil {
		tb.Fatal(err)
	}
	return ports[0]
}

// freePorts returns n different free ports. They are held until all are found.
func freePorts(n int) ([]int, error) {
	var ports []int
	for range 100 * n {
		port := portsFrom + rand.IntN(portsTo-portsFrom)
		l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		defer l.Close()
		if ports = append(ports, port); len(ports) == n {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("finding %d free ports from %d to %d: too many are taken", n, portsFrom, portsTo)
}

// Root returns the folder of hookline's go.mod, found upwards from the working
// directory, which is the package's own in a test.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding the module's root: %w", err)
	}
	for {
		mod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(mod), "module github.com/hookline/hookline\n") {
			return dir, nil
		}
		up := filepath.Dir(dir)
		if up == dir {
			return "", errors.New("finding the module's root: no go.mod of hookline above the working directory")
		}
		dir = up
	}
}

// lacking ends the test because the machine lacks something: skipped, or
// failed under CI=true, where a skipped test would pass for a run one.
func lacking(tb testing.TB, what, why string) {
	tb.Helper()
	if os.Getenv("CI") == "true" {
		tb.Fatalf("%s is needed under CI=true: %s", what, why)
	}
	tb.Skipf("needs %s: %s", what, why)
}

// Unique returns a name for a topic, group or the like that no other test uses:
// the prefix, the test's name in the letters Kafka allows, a random end.
func Unique(tb testing.TB, prefix string) string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, tb.Name())
	return fmt.Sprintf("%s-%.80s-%08x", prefix, name, rand.Uint32())
}
