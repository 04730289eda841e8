package sender

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// churnReceiverEnv makes this program the receiver of TestAnHourOfChurn: the
// other ends of its connections take neither its memory nor its descriptors.
const churnReceiverEnv = "HOOKLINE_TEST_CHURN_RECEIVER"

// churnReceiver answers on every address of the loopback network until its input
// ends. After one answer in 64 it closes the connection: now, or a little later.
func churnReceiver() {
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	fmt.Println(port)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go answerAndCloseSometimes(c)
		}
	}()
	_, _ = io.Copy(io.Discard, os.Stdin)
}

func answerAndCloseSometimes(c net.Conn) {
	defer c.Close()
	b := make([]byte, 2048) // a request comes in one piece
	for {
		if _, err := c.Read(b); err != nil {
			return
		}
		if _, err := io.WriteString(c, ok200); err != nil {
			return
		}
		switch rand.IntN(128) {
		case 0:
			return
		case 1:
			time.Sleep(time.Duration(rand.IntN(50)) * time.Millisecond)
			return
		}
	}
}

func startChurnReceiver(t *testing.T) (port string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), churnReceiverEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// churn is a client whose endpoints never rest.
type churn struct {
	t     *testing.T
	c     *Client
	port  string
	skew  atomic.Int64 // of the simulated clock, ahead of the real one; nanoseconds
	rnd   *rand.Rand
	subs  []*pipeline.Subscription
	next  int            // number of the next endpoint that is added
	hot   int            // the first of those that get most requests
	live  int            // how many those are, and connections that may be kept
	moves []atomic.Int32 // by number of an endpoint: how often its host has moved

	batch  pipeline.Batch // nil: requests go by Send
	ended  sync.WaitGroup
	tries  []*pipeline.Try
	failed atomic.Pointer[string]
	counts struct{ requests, changed, added, moved int }
}

const churnWindow = 64 // requests under way

func newChurn(t *testing.T, endpoints, live int) *churn {
	h := &churn{
		t: t, port: startChurnReceiver(t), rnd: rand.New(rand.NewPCG(7, 7)), live: live,
		moves: make([]atomic.Int32, 2*endpoints), tries: make([]*pipeline.Try, churnWindow),
	}
	cfg := localConfig()
	cfg.MaxIdleConnections, cfg.IdleConnectionTimeout = live, 150*time.Second
	h.c = newClient(t, cfg, Deps{
		Now:      func() time.Time { return time.Now().Add(time.Duration(h.skew.Load())) },
		Resolver: resolverFunc(h.resolve), Gate: func() bool { return true },
		Secrets: &secret.Resolver{Getenv: func(string) (string, bool) { return "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", true }},
	})
	if b, ok := batches.LoadAndDelete(h.c); ok {
		b.(pipeline.Batch).Close()
		h.batch, _ = h.c.Batch(func(tries []*pipeline.Try) {
			for _, try := range tries {
				h.end(try)
			}
		})
		t.Cleanup(h.batch.Close)
	}
	for i := range h.tries {
		h.tries[i] = &pipeline.Try{}
	}
	for range endpoints {
		h.subs = append(h.subs, h.add())
	}
	return h
}

// resolve gives each host an address of its own, and another one after it moved.
func (h *churn) resolve(host string) ([]netip.Addr, error) {
	var n int
	if _, err := fmt.Sscanf(host, "h%d.", &n); err != nil {
		return nil, errors.New("not one of the test's hosts: " + host)
	}
	x := uint32(n)*2654435761 + uint32(h.moves[n].Load())*40503
	return []netip.Addr{netip.AddrFrom4([4]byte{127, byte(1 + x>>24%200), byte(x >> 16), byte(1 + x>>8%200)})}, nil
}

func (h *churn) add() *pipeline.Subscription {
	n := h.next
	h.next++
	return h.revision(&pipeline.Subscription{
		ID: fmt.Sprint("sub-", n), Tenant: fmt.Sprint("tenant-", n/10), URL: fmt.Sprintf("http://h%d.example:%s/hooks", n, h.port),
		Headers: []pipeline.Header{{Name: "X-Team", Value: "ops"}},
		Signing: &pipeline.Signing{Scheme: pipeline.SigningStandard, Secrets: []pipeline.SigningSecret{{Secret: "env:KEY"}}},
	})
}

// revision is a subscription as it is after it has been applied with another path.
func (h *churn) revision(old *pipeline.Subscription) *pipeline.Subscription {
	s := *old
	s.Revision++
	base, _, _ := strings.Cut(s.URL, "/hooks")
	s.URL = fmt.Sprintf("%s/hooks/%d", base, s.Revision)
	return &s
}

func (h *churn) end(try *pipeline.Try) {
	if r := &try.Result; r.Outcome != pipeline.OutcomeSuccess {
		text := fmt.Sprintf("%s: %s %q", try.Request.Subscription.URL, r.Outcome, r.Error)
		h.failed.Store(&text)
	}
	h.ended.Done()
}

// second makes one simulated second's requests: four of five to hot endpoints,
// in turn.
func (h *churn) second(requests int) {
	for made := 0; made < requests; {
		wave := h.tries[:min(churnWindow, requests-made)]
		for _, try := range wave {
			sub := h.subs[h.rnd.IntN(len(h.subs))]
			if h.counts.requests%5 != 0 {
				sub = h.subs[(h.hot+h.counts.requests%h.live)%len(h.subs)]
			}
			h.counts.requests++
			req := request("")
			req.Subscription = sub
			try.Request = *req
		}
		h.ended.Add(len(wave))
		if h.batch != nil {
			h.batch.Start(wave)
		} else {
			for _, try := range wave {
				h.c.Send(&try.Request, &try.Result)
				h.end(try)
			}
		}
		h.ended.Wait()
		made += len(wave)
	}
	h.skew.Add(int64(time.Second))
	h.c.tidy()
}

// revise is what a simulated minute changes: one endpoint in 200 has a new
// revision, one in 200 is removed and another one added, the host of one in a
// hundred moves, and one in a hundred is no longer hot. Of those removed one in ten
// was dead.
func (h *churn) revise() {
	for range max(1, len(h.subs)/200) {
		at := h.rnd.IntN(len(h.subs))
		h.subs[at] = h.revision(h.subs[at])
		h.counts.changed++
		gone := &h.subs[h.rnd.IntN(len(h.subs))]
		if n := h.counts.added; n%10 == 0 { // it did not answer any more
			h.c.dialer.setDead(poolKey{tenant: (*gone).Tenant, host: (*gone).ID}, true)
		}
		*gone = h.add()
		h.counts.added++
	}
	for range max(1, len(h.subs)/100) {
		h.moves[h.rnd.IntN(h.next)].Add(1)
		h.counts.moved++
	}
	h.hot += max(1, h.live/100)
}

// churnSample is what there is at the end of a simulated minute.
type churnSample struct {
	heapBytes                                         int64
	descriptors, goroutines, connections, busy, hosts int
	prepared                                          int64
	names, dead                                       int
}

func (h *churn) sample() churnSample {
	runtime.GC()
	runtime.GC() // what pools keep is dropped with the second one
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	s := churnSample{heapBytes: int64(m.HeapAlloc), goroutines: runtime.NumGoroutine(), prepared: h.c.prepared.len()}
	s.connections, s.busy = h.c.Connections()
	h.c.pool.mu.Lock()
	s.hosts = len(h.c.pool.hosts)
	h.c.pool.mu.Unlock()
	h.c.dialer.names.mu.Lock()
	s.names = len(h.c.dialer.names.byHost)
	h.c.dialer.names.mu.Unlock()
	h.c.dialer.mu.Lock()
	s.dead = len(h.c.dialer.dead)
	h.c.dialer.mu.Unlock()
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		s.descriptors = len(fds)
	}
	return s
}

// TestAnHourOfChurn has an hour's events of many endpoints as fast as they go:
// requests, connections that receivers close or that are idle for too long, hosts
// that move, endpoints changed, added and removed. Of ten minutes the last three are
// quiet: every connection is closed for being idle. What the client keeps in the
// last quarter of the hour is what it kept in the first. HOOKLINE_E2E_FULL=1 has
// 100,000 endpoints, 10,000 live connections and 100 requests for each simulated
// second.
func TestAnHourOfChurn(t *testing.T) {
	endpoints, live, perSecond := 2000, 200, 3
	if os.Getenv("HOOKLINE_E2E_FULL") == "1" {
		endpoints, live, perSecond = 100_000, 10_000, 100
	}
	h := newChurn(t, endpoints, live)
	var early, late []churnSample
	for minute := 1; minute <= 60; minute++ {
		quiet := (minute+9)%10 >= 7
		for range 60 {
			if quiet {
				h.second(0)
			} else {
				h.second(perSecond)
			}
		}
		if text := h.failed.Load(); text != nil {
			t.Fatal(*text)
		}
		h.revise()
		s := h.sample()
		switch {
		case minute > 5 && minute <= 20: // the same minutes of ten as the last 15
			early = append(early, s)
		case minute > 45:
			late = append(late, s)
		}
		if m := minute % 10; m == 7 || m == 0 {
			t.Logf("minute %d: %.2f MiB; %+v", minute, float64(s.heapBytes)/(1<<20), s)
		}
		if s.connections > live || s.busy > 0 || s.hosts > s.connections || minute%10 == 0 && s.connections > 0 {
			t.Fatalf("minute %d: more is kept than may be: %+v", minute, s)
		}
	}
	t.Logf("%+v", h.counts)
	for _, of := range []struct {
		what  string
		flat  bool // not only: no more than at the most
		count func(*churnSample) int64
	}{
		{"bytes of heap", true, func(s *churnSample) int64 { return s.heapBytes }},
		{"connections", true, func(s *churnSample) int64 { return int64(s.connections) }},
		{"subscriptions prepared", true, func(s *churnSample) int64 { return s.prepared }},
		// The process's: what a test before this one left behind may end meanwhile.
		{"descriptors", false, func(s *churnSample) int64 { return int64(s.descriptors) }},
		{"goroutines", false, func(s *churnSample) int64 { return int64(s.goroutines) }},
		// The first are forgotten after more than five minutes.
		{"names", false, func(s *churnSample) int64 { return int64(s.names) }},
		{"dead hosts", false, func(s *churnSample) int64 { return int64(s.dead) }},
	} {
		was, wasMost := meanOf(early, of.count)
		is, isMost := meanOf(late, of.count)
		t.Logf("%s: %.0f in minutes 6 to 20, %.0f in the last 15", of.what, was, is)
		if of.flat && (is > was*1.05+2 || is < was*0.95-2) || isMost > wasMost*1.05+2 {
			t.Errorf("%s: %.0f (at most %.0f) in minutes 6 to 20, %.0f (at most %.0f) in the last 15: not flat", of.what, was, wasMost, is, isMost)
		}
	}
}

func meanOf(samples []churnSample, count func(*churnSample) int64) (mean, most float64) {
	for i := range samples {
		n := float64(count(&samples[i]))
		mean, most = mean+n, max(most, n)
	}
	return mean / float64(len(samples)), most
}
