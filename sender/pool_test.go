package sender

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func keepAlive(p *peer) {
	for p.request() {
		p.say(ok200)
	}
}

func mustSend(t *testing.T, c *Client, req *pipeline.Request) {
	t.Helper()
	if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("%s %q", res.Outcome, res.Error)
	}
}

func TestIdleConnectionsStayWithinTheBudget(t *testing.T) {
	cfg := localConfig()
	cfg.MaxIdleConnections = 3
	c := newClient(t, cfg, Deps{})
	var servers []*rawServer
	for range 5 {
		srv := serveRaw(t, keepAlive)
		servers = append(servers, srv)
		mustSend(t, c, request(srv.url()))
	}
	if idle, busy := c.Connections(); idle != 3 || busy != 0 {
		t.Errorf("%d idle, %d busy", idle, busy)
	}
	// The two used longest ago were let go, the others are still there.
	for i := len(servers) - 1; i >= 0; i-- {
		mustSend(t, c, request(servers[i].url()))
		want := int64(1)
		if i < 2 {
			want = 2
		}
		if got := servers[i].conns.Load(); got != want {
			t.Errorf("server %d saw %d connections, want %d", i, got, want)
		}
	}
	if n := len(c.pool.hosts); n != 3 {
		t.Errorf("%d hosts are remembered for 3 connections", n)
	}
}

func TestIdleConnectionsExpire(t *testing.T) {
	closed := make(chan struct{})
	srv := serveRaw(t, func(p *peer) {
		keepAlive(p)
		close(closed)
	})
	cfg := localConfig()
	cfg.IdleConnectionTimeout = 20 * time.Millisecond
	c := newClient(t, cfg, Deps{})
	mustSend(t, c, request(srv.url()))
	select {
	case <-closed:
	case <-time.After(10 * time.Second):
		t.Fatal("the connection is still open")
	}
	if idle, busy := c.Connections(); idle+busy != 0 || len(c.pool.hosts) != 0 {
		t.Errorf("%d idle, %d busy, %d hosts", idle, busy, len(c.pool.hosts))
	}
}

func TestHostLimitCountsIdleConnectionsAsFree(t *testing.T) {
	p := newPool(&Config{MaxIdleConnections: 10, MaxConnectionsPerHost: 1, IdleConnectionTimeout: time.Minute})
	srv := serveRaw(t, (*peer).hold)
	key := poolKey{host: "h"}
	for i := range 3 {
		// fresh: the idle one of the round before makes room.
		if c, err := p.take(key, true); c != nil || err != nil {
			t.Fatalf("round %d: %v, %v", i, c, err)
		}
		tcp, err := net.Dial("tcp", srv.addr())
		if err != nil {
			t.Fatal(err)
		}
		c, err := newConn(key, tcp.(*net.TCPConn))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.add(c); err != nil {
			t.Fatal(err)
		}
		if _, err := p.take(key, false); err == nil {
			t.Fatal("two connections at once")
		}
		p.put(c, true, time.Unix(int64(i), 0))
		if idle, busy := p.counts(); idle != 1 || busy != 0 || p.hosts[key].open != 1 {
			t.Fatalf("round %d: %d idle, %d busy, %d open", i, idle, busy, p.hosts[key].open)
		}
	}
	p.close()
	if idle, busy := p.counts(); idle+busy+len(p.hosts) != 0 {
		t.Errorf("after close: %d idle, %d busy, %d hosts", idle, busy, len(p.hosts))
	}
}

func TestTenantsShareConnectionsOnlyWhenAsked(t *testing.T) {
	for share, want := range map[bool]int64{false: 2, true: 1} {
		srv := serveRaw(t, keepAlive)
		cfg := localConfig()
		cfg.ShareConnections = share
		c := newClient(t, cfg, Deps{})
		for _, tenant := range []string{"a", "b", "a", "b"} {
			req := request(srv.url())
			req.Subscription.Tenant, req.Subscription.ID = tenant, "sub-"+tenant
			mustSend(t, c, req)
		}
		if got := srv.conns.Load(); got != want {
			t.Errorf("shared %v: %d connections, want %d", share, got, want)
		}
	}
}

func TestAddressesAreTriedInTurn(t *testing.T) {
	srv := serveRaw(t, keepAlive)
	_, port, _ := net.SplitHostPort(srv.addr())
	c := newClient(t, localConfig(), Deps{Resolver: resolverFunc(func(string) ([]netip.Addr, error) {
		return addrs("127.0.0.9", "127.0.0.8", "127.0.0.1"), nil // only the last one listens
	})})
	mustSend(t, c, request("http://r.example:"+port+"/"))
	res := send(c, request("http://r.example:1/"))
	if res.Outcome != pipeline.OutcomeConnectError || res.Error != "connect ECONNREFUSED 127.0.0.9:1" {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
}

func TestChangedSubscriptionIsPreparedAnew(t *testing.T) {
	first, second := serveRaw(t, keepAlive), serveRaw(t, keepAlive)
	c := newClient(t, localConfig(), Deps{})
	for _, srv := range []*rawServer{first, second, first} {
		mustSend(t, c, request(srv.url())) // same id, another *Subscription
	}
	if a, b := first.requests.Load(), second.requests.Load(); a != 2 || b != 1 {
		t.Errorf("%d and %d requests", a, b)
	}
	if n := c.prepared.len(); n != 1 {
		t.Errorf("%d subscriptions prepared", n)
	}
}

// TestUnusedSubscriptionIsForgotten: one that is gone, or rarely gets an event,
// is not kept prepared.
func TestUnusedSubscriptionIsForgotten(t *testing.T) {
	cfg, now := localConfig(), time.Unix(1_700_000_000, 0)
	clock := func() time.Time { return now }
	c := &Client{
		now: clock, pool: newPool(&cfg), prepared: newCache[*target](10), redacted: newCache[string](10),
		dialer: &dialer{names: newNames(t.Context(), nil, time.Minute, clock), now: clock, dead: map[poolKey]time.Time{}},
	}
	c.aged.Store(now.UnixNano())
	used := &target{}
	c.prepared.put("unused", &target{})
	c.prepared.put("used", used)
	c.dialer.setDead(poolKey{host: "gone.example"}, true)
	c.dialer.names.put("gone.example", nameEntry{at: now, until: now.Add(time.Minute)})
	for range 15 {
		now = now.Add(forgetEvery / 5)
		c.tidy()
		c.dialer.setDead(poolKey{host: "dead.example"}, true)
		if got, ok := c.prepared.get("used"); !ok || got != used || !c.dialer.isDead(poolKey{host: "dead.example"}) {
			t.Fatal("one that is used all the time was forgotten")
		}
	}
	if c.dialer.isDead(poolKey{host: "gone.example"}) || len(c.dialer.names.byHost) > 0 {
		t.Error("a host that gets no requests any more is remembered")
	}
	if _, kept := c.prepared.get("unused"); kept || c.prepared.len() > 2 {
		t.Errorf("kept: %t; %d entries", kept, c.prepared.len())
	}
}

func TestCacheIsBounded(t *testing.T) {
	c := newCache[int](10)
	for i := range 1000 {
		c.put(strconv.Itoa(i), i)
		if n := c.len(); n > 20 {
			t.Fatalf("%d entries", n)
		}
		if i%3 == 0 {
			c.put(strconv.Itoa(i), i)
		}
		if got, ok := c.get(strconv.Itoa(i)); ok && got != i {
			t.Fatalf("got %d for %d", got, i)
		}
		if i%7 == 0 {
			c.age()
		}
	}
}

func TestConfigReportsEverythingAtOnce(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{
		SuccessStatus: []string{"200-500"}, AllowCIDRs: []string{"10.0.0.1/8"}, AllowPorts: []string{"x"},
		ResponseBodyBytes: -1, ResponseHeaderBytes: -1, MaxIdleConnections: -1, DNSCacheTTL: -1,
	}
	err := bad.Validate()
	for _, name := range []string{
		"REQUEST_TIMEOUT", "CONNECT_TIMEOUT", "SUCCESS_STATUS", "ALLOW_CIDRS", "ALLOW_PORTS", "RESPONSE_BODY_BYTES",
		"RESPONSE_HEADER_BYTES", "IDLE_CONNECTION_TIMEOUT", "MAX_IDLE_CONNECTIONS", "MAX_CONNECTIONS_PER_HOST", "MAX_DIALS", "DNS_CACHE_TTL",
	} {
		if err == nil || !strings.Contains(err.Error(), "HOOKLINE_"+name) {
			t.Errorf("%s is not reported: %v", name, err)
		}
	}
	if _, err := New(bad, Deps{}); err == nil {
		t.Error("New takes it")
	}
	if _, err := bad.Policy(); err == nil {
		t.Error("Policy takes it")
	}
	for _, entry := range []string{"", "abc", "199", "600", "209-200", "410", "200-"} {
		cfg := DefaultConfig()
		cfg.SuccessStatus = []string{entry}
		if cfg.Validate() == nil {
			t.Errorf("SUCCESS_STATUS=%q passes", entry)
		}
	}
}

func TestRedactURL(t *testing.T) {
	c := newClient(t, DefaultConfig(), Deps{})
	for range 2 {
		if got := c.RedactURL("https://example.com/x?key=hush"); got != "https://example.com/x?key=[redacted]" {
			t.Errorf("got %q", got)
		}
		if got := c.RedactURL("https://user:hush@example.com/"); got != "[not a valid URL]" {
			t.Errorf("got %q", got)
		}
	}
}
