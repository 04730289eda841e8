package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// spyTB notes how a test was ended; it does not end the goroutine.
type spyTB struct {
	testing.TB
	skipped, failed string
}

func (s *spyTB) Helper()                        {}
func (s *spyTB) Skipf(format string, a ...any)  { s.skipped = fmt.Sprintf(format, a...) }
func (s *spyTB) Fatalf(format string, a ...any) { s.failed = fmt.Sprintf(format, a...) }

func TestLackingSkipsOnAMachineAndFailsInCI(t *testing.T) {
	for _, tt := range []struct{ ci, skipped, failed string }{
		{ci: "", skipped: "needs real Kafka: no Java"},
		{ci: "true", failed: "real Kafka is needed under CI=true: no Java"},
	} {
		t.Run("CI="+tt.ci, func(t *testing.T) {
			t.Setenv("CI", tt.ci)
			var spy spyTB
			lacking(&spy, "real Kafka", "no Java")
			// In CI the real Fatalf does not return: only the failure counts.
			if spy.failed != tt.failed || tt.failed == "" && spy.skipped != tt.skipped {
				t.Errorf("got %+v, want %+v", spy, tt)
			}
		})
	}
}

func TestFreePortsDiffer(t *testing.T) {
	ports, err := freePorts(20)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[int]bool)
	for _, p := range ports {
		if seen[p] || p < portsFrom || p >= portsTo {
			t.Errorf("got %d in %v", p, ports)
		}
		seen[p] = true
	}
}

func TestScriptFailureIsOneLine(t *testing.T) {
	p := &kafkaProc{script: kafkaScript(t), dir: t.TempDir()}
	err := p.run("status")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "no cluster there") {
		t.Errorf("got %v, want one line about the cluster", err)
	}
}

// TestClusterOfOtherPortsIsRefused: a folder that has a cluster knows its ports; who
// asked for others would look for it there in vain.
func TestClusterOfOtherPortsIsRefused(t *testing.T) {
	p := &kafkaProc{script: kafkaScript(t), dir: t.TempDir()}
	if err := os.WriteFile(filepath.Join(p.dir, "ports"), []byte("15001,15002\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := p.run("up", "--ports", "15003,15004")
	if err == nil || !strings.Contains(err.Error(), "has one with other ports, 15001,15002") {
		t.Errorf("got %v", err)
	}
}
