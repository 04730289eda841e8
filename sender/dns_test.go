package sender

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hookline/hookline/pipeline"
)

// nameServer answers over UDP as a test says.
type nameServer struct {
	addr    string
	queries atomic.Int64
	alias   string // what every name is an alias of; empty: none is
}

// zone is what a name server says of one name and type: addresses, or a code;
// nil addresses and success: no answer at all.
type zone func(q dnsmessage.Question) (list []netip.Addr, ttl uint32, code dnsmessage.RCode)

func serveNames(t *testing.T, say zone) *nameServer {
	t.Helper()
	return serveAliases(t, "", say)
}

// serveAliases answers that every name is an alias of this one.
func serveAliases(t *testing.T, alias string, say zone) *nameServer {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &nameServer{addr: pc.LocalAddr().String(), alias: alias}
	var work sync.WaitGroup
	work.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := pc.ReadFrom(buf)
			if err != nil {
				return
			}
			if out := s.reply(buf[:n], say); out != nil {
				_, _ = pc.WriteTo(out, from)
			}
		}
	})
	t.Cleanup(func() {
		_ = pc.Close()
		work.Wait()
	})
	return s
}

func (s *nameServer) reply(query []byte, say zone) []byte {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		return nil
	}
	s.queries.Add(1)
	q := m.Questions[0]
	list, ttl, code := say(q)
	if list == nil && code == dnsmessage.RCodeSuccess && ttl == 0 {
		return nil
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RCode: code}
	m.Additionals = nil
	if s.alias != "" && len(list) > 0 {
		to := dnsmessage.MustNewName(s.alias)
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Type: dnsmessage.TypeCNAME, Class: q.Class, TTL: ttl}, Body: &dnsmessage.CNAMEResource{CNAME: to},
		})
		q.Name = to
	}
	for _, a := range list {
		h := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: ttl}
		switch {
		case a.Is4() && q.Type == dnsmessage.TypeA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AResource{A: a.As4()}})
		case a.Is6() && q.Type == dnsmessage.TypeAAAA:
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: h, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}

// resolver is the one that hookline uses, with this server for the machine's.
func (s *nameServer) resolver() *systemResolver {
	return newSystemResolver(func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", s.addr)
	})
}

// TestNamesOverTheWire is what becomes of each kind of answer of a name server.
func TestNamesOverTheWire(t *testing.T) {
	srv := serveRaw(t, keepAlive)
	_, port, _ := net.SplitHostPort(srv.addr())
	many := make([]netip.Addr, 60) // as many as fit into a datagram
	for i := range many {
		many[i] = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	names := serveNames(t, func(q dnsmessage.Question) ([]netip.Addr, uint32, dnsmessage.RCode) {
		switch name, _, _ := strings.Cut(q.Name.String(), "."); name {
		case "good":
			return addrs("127.0.0.1"), 5, dnsmessage.RCodeSuccess
		case "many":
			return many, 5, dnsmessage.RCodeSuccess
		case "servfail":
			return nil, 0, dnsmessage.RCodeServerFailure
		case "refused":
			return nil, 0, dnsmessage.RCodeRefused
		case "empty":
			return nil, 5, dnsmessage.RCodeSuccess
		case "bad":
			return addrs("127.0.0.1", "10.0.0.1"), 5, dnsmessage.RCodeSuccess
		}
		return nil, 0, dnsmessage.RCodeNameError
	})
	for name, want := range map[string]struct {
		outcome pipeline.Outcome
		text    string
	}{
		"good":     {pipeline.OutcomeSuccess, ""},
		"many":     {pipeline.OutcomeSuccess, ""},
		"bad":      {pipeline.OutcomeBlocked, "address 10.0.0.1 is not allowed"},
		"nowhere":  {pipeline.OutcomeDNSError, "getaddrinfo ENOTFOUND nowhere.example"},
		"empty":    {pipeline.OutcomeDNSError, "getaddrinfo ENOTFOUND empty.example"},
		"servfail": {pipeline.OutcomeDNSError, "getaddrinfo EAI_AGAIN servfail.example"},
		"refused":  {pipeline.OutcomeDNSError, "getaddrinfo EAI_AGAIN refused.example"},
	} {
		t.Run(name, func(t *testing.T) {
			c := newClient(t, localConfig(), Deps{Resolver: names.resolver()})
			mustSend(t, c, request("http://good.example:"+port+"/")) // the resolver is alive
			res := send(c, request("http://"+name+".example:"+port+"/"))
			if res.Outcome != want.outcome || !strings.HasPrefix(res.Error, want.text) {
				t.Errorf("got %s %q, want %s %q", res.Outcome, res.Error, want.outcome, want.text)
			}
		})
	}
}

// TestSilentResolverSpendsNoAttempt: nobody answers at all.
func TestSilentResolverSpendsNoAttempt(t *testing.T) {
	names := serveNames(t, func(dnsmessage.Question) ([]netip.Addr, uint32, dnsmessage.RCode) {
		return nil, 0, dnsmessage.RCodeSuccess
	})
	c := newClient(t, localConfig(), Deps{Resolver: names.resolver()})
	req := request("http://good.example/")
	req.Subscription.Timeout = 200 * time.Millisecond
	late := lateness()
	res := send(c, req)
	if allowed := 200*time.Millisecond + overrun + late(); res.Outcome != pipeline.OutcomeLocalError || res.Outcome.SpendsAttempt() || res.Elapsed > allowed {
		t.Errorf("got %s %q after %s", res.Outcome, res.Error, res.Elapsed)
	}
}

// TestLookupEndsWithItsContext: what a name server does not answer is not waited
// for once nobody asks any more; Go's own resolver would read for 5 s on.
func TestLookupEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 16)
	names := serveNames(t, func(dnsmessage.Question) ([]netip.Addr, uint32, dnsmessage.RCode) {
		asked <- struct{}{}
		return nil, 0, dnsmessage.RCodeSuccess
	})
	ends := make(chan time.Time, 16)
	resolver := newSystemResolver(func(ctx context.Context, network, _ string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, names.addr)
		if err != nil {
			return nil, err
		}
		return &timedConn{c.(*net.UDPConn), ends}, nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := resolver.LookupNetIP(ctx, "ip", "x.example.")
		ended <- err
	}()
	<-asked // for A,
	<-asked // and for AAAA
	late, givenUp := lateness(), time.Now()
	cancel()
	if err := <-ended; err == nil {
		t.Error("a look-up that was given up found something")
	}
	longest := max((<-ends).Sub(givenUp), (<-ends).Sub(givenUp))
	if longest > overrun+late() {
		t.Errorf("read for %s after the look-up was given up", longest)
	}
}

// timedConn tells when its reads ended.
type timedConn struct {
	*net.UDPConn
	ends chan<- time.Time
}

func (c *timedConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	c.ends <- time.Now()
	return n, err
}

// TestTTL: an answer is kept for its own TTL, at least a second and at most the
// configured time.
func TestTTL(t *testing.T) {
	var ttl atomic.Uint32
	names := serveNames(t, func(dnsmessage.Question) ([]netip.Addr, uint32, dnsmessage.RCode) {
		return addrs("127.0.0.1", "2606:4700::1"), ttl.Load(), dnsmessage.RCodeSuccess
	})
	now := time.Unix(1000, 0)
	for said, want := range map[uint32]time.Duration{0: time.Second, 1: time.Second, 7: 7 * time.Second, 30: 30 * time.Second, 86400: 30 * time.Second} {
		ttl.Store(said)
		n := newNames(t.Context(), names.resolver(), 30*time.Second, func() time.Time { return now })
		ask := func() int64 {
			t.Helper()
			before := names.queries.Load()
			if got, err := n.lookup(t.Context(), "x.example"); err != nil || len(got) != 2 {
				t.Fatalf("got %v, %v", got, err)
			}
			return names.queries.Load() - before
		}
		if ask() == 0 {
			t.Fatal("nobody was asked")
		}
		now = now.Add(want - time.Millisecond)
		if n := ask(); n != 0 {
			t.Errorf("TTL %d: asked again after less than %s", said, want)
		}
		now = now.Add(time.Millisecond)
		if n := ask(); n == 0 {
			t.Errorf("TTL %d: not asked again after %s", said, want)
		}
	}
}

// TestNoSearchDomain: a public name is looked up as it is, whatever search
// domains the machine has.
func TestNoSearchDomain(t *testing.T) {
	var asked atomic.Value
	stub := resolverFunc(func(host string) ([]netip.Addr, error) {
		asked.Store(host)
		return nil, nil
	})
	send(newClient(t, DefaultConfig(), Deps{Resolver: stub}), request("https://erp.example.com/"))
	if asked.Load() != "erp.example.com." {
		t.Errorf("asked for %q", asked.Load())
	}
	send(newClient(t, localConfig(), Deps{Resolver: stub}), request("http://erp.svc/"))
	if asked.Load() != "erp.svc" { // where private names are allowed
		t.Errorf("asked for %q", asked.Load())
	}
}

// TestManyAskOnce: of a crowd that asks for one name, one asks the resolver.
func TestManyAskOnce(t *testing.T) {
	var lookups atomic.Int64
	release := make(chan struct{})
	n := newNames(t.Context(), resolverFunc(func(string) ([]netip.Addr, error) {
		lookups.Add(1)
		<-release
		return addrs("127.0.0.1"), nil
	}), time.Minute, time.Now)
	var crowd, begun sync.WaitGroup
	for range 50 {
		begun.Add(1)
		crowd.Go(func() {
			begun.Done()
			if got, err := n.lookup(t.Context(), "x.example"); err != nil || len(got) != 1 {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
	begun.Wait()
	close(release)
	crowd.Wait()
	if got := lookups.Load(); got != 1 {
		t.Errorf("%d look-ups", got)
	}
}

// twoPlaces are two receivers on one port of two addresses.
func twoPlaces(t *testing.T, handle func(*peer)) (one, two *rawServer, port string) {
	t.Helper()
	one = serveRaw(t, handle)
	_, port, _ = net.SplitHostPort(one.addr())
	ln, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("127.0.0.2 is not to be had here: ", err)
	}
	return one, serveRawOn(t, ln, handle), port
}

// TestAHostThatMovedGetsItsRequestsThere: although its old place goes on
// answering over a kept connection, after a minute at most.
func TestAHostThatMovedGetsItsRequestsThere(t *testing.T) {
	one, two, port := twoPlaces(t, keepAlive)
	var moved atomic.Bool
	var ahead atomic.Int64 // of the clock
	cfg := localConfig()
	cfg.IdleConnectionTimeout = time.Hour
	c := newClient(t, cfg, Deps{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
			if moved.Load() {
				return addrs("127.0.0.2"), nil
			}
			return addrs("127.0.0.1"), nil
		}),
	})
	post := func() { mustSend(t, c, request("http://r.example:"+port+"/")) }
	post()
	moved.Store(true)
	for range 10 { // every 6 s, so that the connection never idles away
		ahead.Add(int64(6 * time.Second))
		post()
	}
	if one.conns.Load() != 1 || two.requests.Load() == 0 {
		t.Errorf("within a minute: %d requests at the old place, over %d connections, %d at the new one", one.requests.Load(), one.conns.Load(), two.requests.Load())
	}
	before := one.requests.Load()
	post()
	if one.requests.Load() != before {
		t.Error("a request came to the old place after that")
	}
}

// TestFlappingName: two places in turn, none of which goes away: every request
// arrives, at the place that the name had within the last minute.
func TestFlappingName(t *testing.T) {
	one, two, port := twoPlaces(t, keepAlive)
	var place atomic.Int64
	var ahead atomic.Int64
	cfg := localConfig()
	cfg.IdleConnectionTimeout = time.Hour
	c := newClient(t, cfg, Deps{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
			return addrs(fmt.Sprintf("127.0.0.%d", place.Load()+1)), nil
		}),
	})
	for i := range 6 {
		at := []*rawServer{one, two}[i%2]
		place.Store(int64(i % 2))
		ahead.Add(int64(time.Minute))
		before := at.requests.Load()
		mustSend(t, c, request("http://r.example:"+port+"/"))
		if at.requests.Load() != before+1 {
			t.Fatalf("round %d: the request came to the place of a minute ago", i)
		}
	}
}

// TestRebindingEndsKeptConnections: a name that is bound to an address
// inside gets nothing more, also not over its old connection.
func TestRebindingEndsKeptConnections(t *testing.T) {
	one, two, port := twoPlaces(t, keepAlive)
	var bound atomic.Bool
	var ahead atomic.Int64
	cfg := localConfig()
	cfg.AllowCIDRs, cfg.IdleConnectionTimeout = []string{"127.0.0.1/32"}, time.Hour
	c := newClient(t, cfg, Deps{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
			if bound.Load() {
				return addrs("127.0.0.2"), nil
			}
			return addrs("127.0.0.1"), nil
		}),
	})
	mustSend(t, c, request("http://r.example:"+port+"/"))
	bound.Store(true)
	ahead.Add(int64(time.Minute))
	res := send(c, request("http://r.example:"+port+"/"))
	if res.Outcome != pipeline.OutcomeBlocked || one.requests.Load() != 1 || two.conns.Load() != 0 {
		t.Errorf("got %s %q; %d requests, %d connections to the address inside", res.Outcome, res.Error, one.requests.Load(), two.conns.Load())
	}
}

// TestKeptConnectionsOutliveTheResolver: they are used on while it is silent.
func TestKeptConnectionsOutliveTheResolver(t *testing.T) {
	srv := serveRaw(t, keepAlive)
	_, port, _ := net.SplitHostPort(srv.addr())
	var dead atomic.Bool
	var ahead atomic.Int64
	cfg := localConfig()
	cfg.IdleConnectionTimeout = time.Hour
	c := newClient(t, cfg, Deps{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
		Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
			if dead.Load() {
				return nil, &net.DNSError{Err: "i/o timeout", IsTimeout: true}
			}
			return addrs("127.0.0.1"), nil
		}),
	})
	for range 4 {
		mustSend(t, c, request("http://r.example:"+port+"/"))
		dead.Store(true)
		ahead.Add(int64(20 * time.Minute)) // longer than old addresses may be used
	}
	if srv.conns.Load() != 1 || srv.requests.Load() != 4 {
		t.Errorf("%d requests over %d connections", srv.requests.Load(), srv.conns.Load())
	}
}

// TestSilentAddressesCostOneDelay: an address that drops what comes to it, as a
// family that does not work here, before one that answers.
func TestSilentAddressesCostOneDelay(t *testing.T) {
	hole := blackHole(t)
	_, port, _ := net.SplitHostPort(hole)
	ln, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Skip("127.0.0.2 is not to be had here: ", err)
	}
	serveRawOn(t, ln, keepAlive)
	c := newClient(t, localConfig(), Deps{Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
		return addrs("127.0.0.1", "127.0.0.2"), nil
	})})
	late := lateness()
	res := send(c, request("http://r.example:"+port+"/"))
	if allowed := attemptDelay + overrun + late(); res.Outcome != pipeline.OutcomeSuccess || res.Connect < attemptDelay || res.Connect > allowed {
		t.Errorf("got %s %q, connected after %s", res.Outcome, res.Error, res.Connect)
	}
}

// TestBothFamilies: a host with addresses of both families, one of which has
// nobody who listens.
func TestBothFamilies(t *testing.T) {
	ln, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("no IPv6 here: ", err)
	}
	v6 := serveRawOn(t, ln, keepAlive)
	v4 := serveRaw(t, keepAlive)
	cfg := localConfig()
	cfg.AllowCIDRs = append(cfg.AllowCIDRs, "::1")
	c := newClient(t, cfg, Deps{Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
		return addrs("::1", "127.0.0.1"), nil
	})})
	for _, srv := range []*rawServer{v6, v4} {
		_, port, _ := net.SplitHostPort(srv.addr())
		mustSend(t, c, request("http://r.example:"+port+"/"))
		if srv.requests.Load() != 1 {
			t.Errorf("%s got %d requests", srv.addr(), srv.requests.Load())
		}
	}
}

func TestInterleave(t *testing.T) {
	got := interleave(addrs("2001::1", "2001::2", "2001::3", "2001::4", "2001::5", "1.1.1.1", "::ffff:1.1.1.2"))
	if want := "[2001::1 1.1.1.1 2001::2 ::ffff:1.1.1.2 2001::3 2001::4 2001::5]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if got := interleave(addrs("1.1.1.1", "2001::1")); fmt.Sprint(got) != "[1.1.1.1 2001::1]" {
		t.Errorf("got %v", got)
	}
}

// TestSilentHostsGiveTheirDialSlotsUp: hosts of which nothing was known before
// hold every slot; one that answers is dialled all the same.
func TestSilentHostsGiveTheirDialSlotsUp(t *testing.T) {
	hole, srv := blackHole(t), serveRaw(t, keepAlive)
	cfg := localConfig()
	cfg.MaxDials = 4
	c := newClient(t, cfg, Deps{})
	var tries sync.WaitGroup
	for i := range cfg.MaxDials {
		tries.Go(func() {
			req := request("http://" + hole + "/")
			req.Subscription.ID, req.Subscription.Tenant = fmt.Sprint("s", i), fmt.Sprint("t", i) // a host each
			send(c, req)
		})
	}
	for len(c.dialer.slots) < cfg.MaxDials {
		time.Sleep(time.Millisecond)
	}
	late := lateness()
	res := send(c, request(srv.url()))
	if allowed := slowDial + overrun + late(); res.Outcome != pipeline.OutcomeSuccess || res.Elapsed > allowed {
		t.Errorf("got %s %q after %s", res.Outcome, res.Error, res.Elapsed)
	}
	c.Close()
	tries.Wait()
}
