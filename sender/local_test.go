package sender

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// resolverFunc is a Resolver.
type resolverFunc func(host string) ([]netip.Addr, error)

func (f resolverFunc) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	return f(host)
}

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func TestBlockedByDefault(t *testing.T) {
	srv := serveRaw(t, answer(ok200))
	c := newClient(t, DefaultConfig(), Deps{})
	for _, url := range []string{srv.url(), "https://" + srv.addr() + "/", "https://127.0.0.1/", "https://localhost/", "https://example.com:22/"} {
		if res := send(c, request(url)); res.Outcome != pipeline.OutcomeBlocked || !res.Outcome.SpendsAttempt() {
			t.Errorf("%s: %s %q", url, res.Outcome, res.Error)
		}
	}
	req := request("https://example.com/")
	req.Subscription.Headers = []pipeline.Header{{Name: "Host", Value: "hush"}}
	if res := send(c, req); res.Outcome != pipeline.OutcomeBlocked || strings.Contains(res.Error, "hush") {
		t.Errorf("reserved header: %s %q", res.Outcome, res.Error)
	}
	if srv.conns.Load() != 0 {
		t.Error("a connection got through")
	}
}

func TestResolver(t *testing.T) {
	notFound := &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}
	servfail := &net.DNSError{Err: "server misbehaving", Name: "x", IsTemporary: true}
	dead := &net.DNSError{Err: "read udp 127.0.0.1:53: read: connection refused", Name: "x", IsTemporary: true}
	noFiles := &net.DNSError{Err: "dial udp 127.0.0.1:53: socket: too many open files", Name: "x"}
	timeout := &net.DNSError{Err: "i/o timeout", Name: "x", IsTimeout: true}
	for _, tc := range []struct {
		name    string
		err     error
		alive   bool // the resolver has just answered for another name
		outcome pipeline.Outcome
		text    string
	}{
		{"no such name", notFound, false, pipeline.OutcomeDNSError, "getaddrinfo ENOTFOUND x.example"},
		{"no address", nil, false, pipeline.OutcomeDNSError, "getaddrinfo ENOTFOUND x.example"},
		{"SERVFAIL from a live resolver", servfail, true, pipeline.OutcomeDNSError, "getaddrinfo EAI_AGAIN x.example"},
		{"time-out from a live resolver", timeout, true, pipeline.OutcomeDNSError, "getaddrinfo EAI_AGAIN x.example"},
		{"SERVFAIL for everything", servfail, false, pipeline.OutcomeLocalError, "getaddrinfo EAI_AGAIN x.example: resolver does not answer"},
		{"time-out for everything", timeout, false, pipeline.OutcomeLocalError, "getaddrinfo EAI_AGAIN"},
		{"dead", dead, true, pipeline.OutcomeLocalError, "getaddrinfo EAI_AGAIN"},
		{"no descriptors", noFiles, true, pipeline.OutcomeLocalError, "getaddrinfo EAI_AGAIN"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := newClient(t, localConfig(), Deps{Resolver: resolverFunc(func(host string) ([]netip.Addr, error) {
				if host == "other.example" {
					return nil, notFound
				}
				return nil, tc.err
			})})
			if tc.alive {
				send(c, request("http://other.example/"))
			}
			res := send(c, request("http://x.example/"))
			if res.Outcome != tc.outcome || !strings.HasPrefix(res.Error, tc.text) {
				t.Errorf("got %s %q, want %s %q", res.Outcome, res.Error, tc.outcome, tc.text)
			}
		})
	}
}

func TestNamesAreCachedForTheirTTLAndOldOnesUsedWhileTheResolverIsDead(t *testing.T) {
	now := time.Unix(1000, 0)
	var lookups int
	var fail error
	n := newNames(t.Context(), resolverFunc(
		func(string) ([]netip.Addr, error) { lookups++; return addrs(fmt.Sprintf("1.1.1.%d", lookups)), fail },
	), time.Minute, func() time.Time { return now })
	lookup := func(want string, count int) {
		t.Helper()
		got, err := n.lookup(context.Background(), "x.example")
		if want == "" && err == nil || want != "" && (err != nil || got[0].String() != want) || lookups != count {
			t.Fatalf("got %v, %v after %d lookups", got, err, lookups)
		}
	}
	lookup("1.1.1.1", 1)
	now = now.Add(59 * time.Second)
	lookup("1.1.1.1", 1)
	now = now.Add(time.Second)
	lookup("1.1.1.2", 2)
	fail = errors.New("dead")
	now = now.Add(2 * time.Minute)
	lookup("1.1.1.2", 3)
	now = now.Add(staleNames)
	lookup("", 4)
}

func TestCacheOfNamesIsBounded(t *testing.T) {
	n := newNames(t.Context(), resolverFunc(func(string) ([]netip.Addr, error) { return addrs("1.1.1.1"), nil }), time.Minute, time.Now)
	for i := range maxNames + 100 {
		if _, err := n.lookup(context.Background(), fmt.Sprintf("h%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	if len(n.byHost) != maxNames {
		t.Errorf("%d names", len(n.byHost))
	}
}

func TestConnectErrors(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	res := send(newClient(t, localConfig(), Deps{}), request("http://"+addr+"/"))
	if res.Outcome != pipeline.OutcomeConnectError || res.Error != "connect ECONNREFUSED "+addr || res.RequestWritten {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
}

// blackHole is an address that drops what comes to it, as a host that is gone
// does: a listener whose backlog is full.
func blackHole(t *testing.T) string {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := fmt.Sprintf("127.0.0.1:%d", sa.(*syscall.SockaddrInet4).Port)
	for range 4 {
		if fill, err := net.DialTimeout("tcp", addr, 50*time.Millisecond); err == nil {
			t.Cleanup(func() { _ = fill.Close() })
		}
	}
	return addr
}

func TestConnectTimeout(t *testing.T) {
	addr := blackHole(t)
	cfg := localConfig()
	cfg.ConnectTimeout = 200 * time.Millisecond
	late := lateness()
	res := send(newClient(t, cfg, Deps{}), request("http://"+addr+"/"))
	if allowed := 200*time.Millisecond + overrun + late(); res.Outcome != pipeline.OutcomeTimeout || res.Error != "connect ETIMEDOUT "+addr || res.Elapsed > allowed {
		t.Errorf("got %s %q after %s", res.Outcome, res.Error, res.Elapsed)
	}
}

// TestDeadHostsLeaveSlotsToTheLiving has more tries to a dead host than there
// are dial slots; a living one is dialled at once.
func TestDeadHostsLeaveSlotsToTheLiving(t *testing.T) {
	hole, srv := blackHole(t), serveRaw(t, answer(ok200))
	cfg := localConfig()
	cfg.MaxDials, cfg.ConnectTimeout = 4, 300*time.Millisecond
	c := newClient(t, cfg, Deps{})
	send(c, request("http://"+hole+"/")) // found out as dead
	var tries sync.WaitGroup
	for range 8 {
		tries.Go(func() { send(c, request("http://"+hole+"/")) })
	}
	for len(c.dialer.deadSlots) == 0 {
		time.Sleep(time.Millisecond)
	}
	if n := len(c.dialer.slots); n > 1 {
		t.Errorf("%d slots taken by the dead", n)
	}
	late := lateness()
	res := send(c, request(srv.url()))
	if allowed := overrun + late(); res.Outcome != pipeline.OutcomeSuccess || res.Elapsed > allowed {
		t.Errorf("got %s %q after %s", res.Outcome, res.Error, res.Elapsed)
	}
	tries.Wait()
}

// TestDeadHostsAreTried has far more dead hosts at once than slots for such: each
// is tried, and found dead once more, instead of waiting for a slot in vain.
func TestDeadHostsAreTried(t *testing.T) {
	hole := blackHole(t)
	cfg := localConfig()
	cfg.MaxDials, cfg.ConnectTimeout = 16, 2*time.Second // 4 for dead ones
	c := newClient(t, cfg, Deps{})
	req := request("http://" + hole + "/")
	c.dialer.setDead(c.key(c.prepare(req.Subscription), ""), true)
	var tries sync.WaitGroup
	for range 12 {
		tries.Go(func() {
			if res := send(c, request("http://"+hole+"/")); res.Outcome != pipeline.OutcomeTimeout {
				t.Errorf("got %s %q after %s", res.Outcome, res.Error, res.Elapsed)
			}
		})
	}
	tries.Wait()
	if n := len(c.dialer.slots) + len(c.dialer.deadSlots); n > 0 {
		t.Errorf("%d slots are still taken", n)
	}
}

// TestLocalErrnos are errors of our own machine, at each place they may come up.
func TestLocalErrnos(t *testing.T) {
	for _, errno := range localErrnos {
		for _, at := range []phase{phaseConnect, phaseTLS, phaseWrite, phaseRead} {
			err := &net.OpError{Op: "dial", Err: fmt.Errorf("x: %w", errno)}
			if v := classify(at, err, "1s"); v.outcome != pipeline.OutcomeLocalError || strings.Contains(v.text, "EIO") {
				t.Errorf("%s in %s: %s %q", errno, at, v.outcome, v.text)
			}
		}
	}
	for errno, want := range map[syscall.Errno]pipeline.Outcome{
		syscall.ECONNREFUSED: pipeline.OutcomeConnectError, syscall.EHOSTUNREACH: pipeline.OutcomeConnectError,
		syscall.ETIMEDOUT: pipeline.OutcomeTimeout,
	} {
		if v := classify(phaseConnect, errno, "1s"); v.outcome != want {
			t.Errorf("%s: %s", errno, v.outcome)
		}
	}
}

func TestGateShutWritesNothingAndKeepsTheConnection(t *testing.T) {
	srv := serveRaw(t, func(p *peer) {
		for p.request() {
			p.say(ok200)
		}
	})
	var open atomic.Bool
	c := newClient(t, localConfig(), Deps{Gate: open.Load})
	for range 3 {
		res := send(c, request(srv.url()))
		if res.Outcome != pipeline.OutcomeLocalError || res.Error != "session not fresh" || res.RequestWritten || res.Outcome.SpendsAttempt() {
			t.Fatalf("got %s %q", res.Outcome, res.Error)
		}
	}
	open.Store(true)
	if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("got %s %q", res.Outcome, res.Error)
	}
	if srv.requests.Load() != 1 || srv.conns.Load() != 1 {
		t.Errorf("%d requests over %d connections", srv.requests.Load(), srv.conns.Load())
	}
}

// TestGateIsAskedAgainForAResend shuts the gate between a request and its resend.
func TestGateIsAskedAgainForAResend(t *testing.T) {
	srv := serveRaw(t, closesAfterRequest(func(*peer) {}))
	var asked atomic.Int64
	c := newClient(t, localConfig(), Deps{Gate: func() bool { return asked.Add(1) <= 2 }})
	send(c, request(srv.url()))
	res := send(c, request(srv.url()))
	if res.Outcome != pipeline.OutcomeLocalError || !res.RequestWritten || srv.requests.Load() != 2 || asked.Load() != 3 {
		t.Errorf("got %s %q, written %v, requests %d, asked %d", res.Outcome, res.Error, res.RequestWritten, srv.requests.Load(), asked.Load())
	}
}

func TestPoolFull(t *testing.T) {
	arrived := make(chan struct{}, 1)
	srv := serveRaw(t, func(p *peer) {
		p.request()
		arrived <- struct{}{}
		p.hold()
	})
	cfg := localConfig()
	cfg.MaxConnectionsPerHost = 1
	c := newClient(t, cfg, Deps{})
	first := make(chan *pipeline.Result)
	go func() { first <- send(c, request(srv.url())) }()
	<-arrived
	if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeLocalError || res.Error != "connection pool is full" {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
	c.Close() // cuts the first
	if res := <-first; res.Outcome != pipeline.OutcomeLocalError || res.Error != "sender is shutting down" || !res.RequestWritten {
		t.Errorf("cut: %s %q", res.Outcome, res.Error)
	}
	if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeLocalError || res.Error != "sender is shutting down" {
		t.Errorf("after Close: %s %q", res.Outcome, res.Error)
	}
}

func TestNoDialSlot(t *testing.T) {
	srv := serveRaw(t, (*peer).hold)
	cfg := localConfig()
	cfg.MaxDials = 1
	c := newClient(t, cfg, Deps{})
	c.dialer.slots <- struct{}{}
	req := request(srv.url())
	req.Subscription.Timeout = 50 * time.Millisecond
	if res := send(c, req); res.Outcome != pipeline.OutcomeLocalError || srv.conns.Load() != 0 {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
}

// TestDescriptorsRunOut runs the process out of file descriptors.
func TestDescriptorsRunOut(t *testing.T) {
	srv := serveRaw(t, answer(ok200))
	c := newClient(t, localConfig(), Deps{})
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	low := before
	low.Cur = 3 // every descriptor in use is above it
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	res := send(c, request(srv.url()))
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	if res.Outcome != pipeline.OutcomeLocalError || !strings.HasPrefix(res.Error, "connect EMFILE ") {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
}
