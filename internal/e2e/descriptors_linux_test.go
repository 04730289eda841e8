package e2e

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hookline/hookline/internal/testkit"
)

// answerLimit is for one answer of a process that does little else.
const answerLimit = 30 * time.Second

// limitFiles sets how many descriptors another process may have; 0: as many as it
// can.
func limitFiles(t *testing.T, pid int, n uint64) {
	t.Helper()
	prlimit := func(set, get *syscall.Rlimit) {
		if _, _, errno := syscall.RawSyscall6(syscall.SYS_PRLIMIT64, uintptr(pid), syscall.RLIMIT_NOFILE,
			uintptr(unsafe.Pointer(set)), uintptr(unsafe.Pointer(get)), 0, 0); errno != 0 {
			t.Fatalf("limiting the descriptors of another process: %v", errno)
		}
	}
	var lim syscall.Rlimit
	prlimit(nil, &lim)
	if lim.Cur = n; n == 0 {
		lim.Cur = lim.Max
	}
	prlimit(&lim, nil)
}

// TestDescriptorsRunOut: a process is left with no descriptor for a connection of
// its own. It does not end, spends no attempt on what is its own fault, and
// delivers when it has some again.
func TestDescriptorsRunOut(t *testing.T) {
	t.Parallel()
	// No connection is kept: each request needs a new one.
	s := newStage(t, setting{
		plan: smallPlan(900, 3, failingFirst(10)), engine: testkit.Engine(t), binary: plain,
		vars: map[string]string{"MAX_IDLE_CONNECTIONS": "1"},
	})
	p := s.run(nil)
	wait := s.produce(150)
	s.posts(300, time.Minute)
	page := &metricsPage{of: p, client: &http.Client{Transport: &http.Transport{}}}
	defer page.client.CloseIdleConnections()
	page.localErrors(s.ctx, t)
	limitFiles(t, p.cmd.Process.Pid, 3) // what is open stays open, and nothing is opened
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for page.localErrors(s.ctx, t) < 50 {
		select {
		case <-tick.C:
		case <-p.ended:
			t.Fatalf("it has ended: %v", p.cmd.ProcessState)
		case <-s.ctx.Done():
			t.Fatal("no try failed for want of descriptors")
		}
	}
	before := s.ledger.count()
	s.settle(3 * time.Second)
	t.Logf("%.0f tries failed for want of descriptors; %d posts in 3 s of it", page.localErrors(s.ctx, t), s.ledger.count()-before)
	limitFiles(t, p.cmd.Process.Pid, 0)
	wait()
	s.await("every pair is settled", settleLimit, s.ledger.all)
	s.rowsFor(s.ledger.count())
	s.judge(p).noDupes(t)
	s.compareRows()
	if n := s.sql("SELECT count() FROM hookline.attempts WHERE outcome = 'local_error'"); n == "0" {
		t.Error("no row tells of it")
	}
}

// metricsPage reads a process's metrics by one connection that is kept: a process
// without descriptors cannot accept another.
type metricsPage struct {
	of     *process
	client *http.Client
}

// localErrors is how many tries ended as the process's own fault.
func (m *metricsPage) localErrors(ctx context.Context, t *testing.T) (n float64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, answerLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.of.admin+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := m.client.Do(req)
	if err != nil {
		t.Fatalf("reading the process's metrics: %v", err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body) // to its end, so that the connection is kept
	if err != nil {
		t.Fatalf("reading the process's metrics: %v", err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "hookline_attempts_total{") && strings.Contains(line, `"local_error"`) {
			v, _ := strconv.ParseFloat(strings.TrimSpace(line[strings.LastIndexByte(line, ' '):]), 64)
			n += v
		}
	}
	return n
}
