package sender

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// TestManyEndpoints has far more endpoints than connections may be kept, each a
// host with a name of its own, and goes through them in turn: what is kept stays
// within its bounds, and memory where it was after the first round.
// HOOKLINE_E2E_FULL=1 has 100,000 endpoints and 10,000 connections, or as many as there are descriptors for.
func TestManyEndpoints(t *testing.T) {
	endpoints, live, rounds := 2000, 200, 4
	if os.Getenv("HOOKLINE_E2E_FULL") == "1" {
		endpoints, live, rounds = 100_000, 10_000, 3
	}
	live = connectionsToBeHad(t, live)
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		t.Fatal(err)
	}
	wire, buf := []byte(ok200), 4096
	srv := serveRawOn(t, ln, func(p *peer) {
		p.br = nil // the receivers' memory is not what is measured
		b := make([]byte, buf)
		for {
			if _, err := p.Read(b); err != nil {
				return
			}
			p.srv.requests.Add(1)
			if _, err := p.Write(wire); err != nil {
				return
			}
		}
	})
	_, port, _ := net.SplitHostPort(srv.addr())
	cfg := localConfig()
	cfg.MaxIdleConnections, cfg.IdleConnectionTimeout = live, time.Hour
	c := newClient(t, cfg, Deps{Resolver: resolverFunc(func(host string) ([]netip.Addr, error) {
		var n int
		if _, err := fmt.Sscanf(strings.TrimPrefix(host, "h"), "%d", &n); err != nil {
			return nil, err
		}
		return []netip.Addr{netip.AddrFrom4([4]byte{127, byte(1 + n>>16), byte(n >> 8), byte(n)})}, nil
	})})
	subs := make([]*pipeline.Subscription, endpoints)
	for i := range subs {
		subs[i] = &pipeline.Subscription{ID: fmt.Sprint("s", i), Tenant: "acme", URL: fmt.Sprintf("http://h%d.example:%s/hook", i, port)}
	}
	memory := func() float64 {
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapInuse+m.StackInuse) / (1 << 20)
	}
	before, first := memory(), 0.0
	var res pipeline.Result
	for round := range rounds {
		req := request("")
		for _, sub := range subs {
			req.Subscription = sub
			if c.Send(req, &res); res.Outcome != pipeline.OutcomeSuccess {
				t.Fatalf("%s: %s %q", sub.URL, res.Outcome, res.Error)
			}
		}
		idle, busy := c.Connections()
		now := memory()
		t.Logf("round %d over %d endpoints: %.1f MiB over the baseline of %.1f MiB, receivers included; %d connections", round+1, endpoints, now-before, before, idle)
		if idle != live || busy != 0 || len(c.pool.hosts) != live {
			t.Errorf("%d idle, %d busy, %d hosts, want %d", idle, busy, len(c.pool.hosts), live)
		}
		if round == 0 {
			first = now
		}
		if now > first*1.1+4 {
			t.Errorf("memory grew from %.1f to %.1f MiB", first, now)
		}
	}
}

// connectionsToBeHad is want, or what the descriptors of this process allow, of
// which each connection takes two: both of its ends are here.
func connectionsToBeHad(t *testing.T, want int) int {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	const others = 500
	return min(want, (int(min(was.Cur, 1<<20))-others)/2)
}
