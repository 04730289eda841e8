package sender

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/hookline/hookline/pipeline"
)

// notPublic are addresses that a name may lead to and hookline may not.
var notPublic = []string{
	"0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.0.0.2", "127.255.255.254", "169.254.0.1", "169.254.169.254",
	"172.16.0.1", "172.31.255.254", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.254", "192.175.48.1",
	"198.18.0.1", "198.19.255.254", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
	"::", "::1", "::127.0.0.2", "::ffff:127.0.0.2", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:2", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1", "2002:7f00:2::1",
	"2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
}

// inside is a listener at an address that nothing allows, 127.0.0.2.
func inside(t *testing.T) (srv *rawServer, port string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skip("127.0.0.2 is not to be had here: ", err)
	}
	srv = serveRawOn(t, ln, answer(ok200))
	_, port, _ = net.SplitHostPort(srv.addr())
	return srv, port
}

// TestNothingReachesWhatIsNotAllowed has names lead to every such address, alone
// and among public ones, and counts connections at a listener inside.
func TestNothingReachesWhatIsNotAllowed(t *testing.T) {
	srv, port := inside(t)
	cfg := DefaultConfig()
	cfg.AllowHTTP, cfg.AllowPorts = true, []string{"1-65535"}
	var answer []netip.Addr
	c := newClient(t, cfg, Deps{Resolver: resolverFunc(func(string) ([]netip.Addr, error) { return answer, nil })})
	refused := func(url string) {
		t.Helper()
		res := send(c, request(url))
		if res.Outcome != pipeline.OutcomeBlocked || !strings.Contains(res.Error, "not allowed") || res.RequestWritten || !res.Outcome.SpendsAttempt() {
			t.Errorf("%s with %v: %s %q", url, answer, res.Outcome, res.Error)
		}
	}
	for i, bad := range notPublic {
		for j, list := range [][]string{
			{bad},
			{"1.1.1.1", bad},
			{bad, "1.1.1.1"},
			{"2606:4700::1", "1.1.1.1", bad},
			{"1.1.1.1", "1.0.0.1", "8.8.8.8", "8.8.4.4", "9.9.9.9", bad}, // behind more than are tried
		} {
			answer = addrs(list...)
			refused(fmt.Sprintf("http://n%d-%d.example.com:%s/", i, j, port))
		}
		refused("http://" + netip.AddrPortFrom(netip.MustParseAddr(bad), 80).String() + "/")
	}
	if n := srv.conns.Load(); n != 0 {
		t.Errorf("%d connections got through", n)
	}
}

// TestTheVeryDialIsGuarded: whatever was decided before it, as when a name is
// bound anew between the look-up and the dial.
func TestTheVeryDialIsGuarded(t *testing.T) {
	srv, port := inside(t)
	cfg := localConfig()
	cfg.AllowCIDRs = []string{"127.0.0.1/32"}
	c := newClient(t, cfg, Deps{})
	at := netip.MustParseAddr("127.0.0.2")
	var p uint16
	if _, err := fmt.Sscan(port, &p); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]netip.Addr{{at}, {at, at}, {netip.MustParseAddr("::ffff:127.0.0.2")}} {
		if _, err := c.dialer.connect(context.Background(), list, p); err == nil {
			t.Errorf("%v: the dialer connects", list)
		} else if v := classify(phaseConnect, err, ""); v.outcome != pipeline.OutcomeBlocked {
			t.Errorf("%v: %s %q", list, v.outcome, v.text)
		}
	}
	if n := srv.conns.Load(); n != 0 {
		t.Errorf("%d connections got through", n)
	}
}

// TestNamesThatTurnInside are tricks of whoever owns a name, over the wire: an
// alias of loopback, and answers that are good the first time only.
func TestNamesThatTurnInside(t *testing.T) {
	srv, port := inside(t)
	var asked atomic.Int64
	names := serveAliases(t, "localhost.", func(q dnsmessage.Question) ([]netip.Addr, uint32, dnsmessage.RCode) {
		if strings.HasPrefix(q.Name.String(), "turns.") && asked.Add(1) <= 2 { // A and AAAA
			return addrs("127.0.0.1"), 1, dnsmessage.RCodeSuccess
		}
		return addrs("127.0.0.2"), 1, dnsmessage.RCodeSuccess
	})
	cfg := localConfig()
	cfg.AllowCIDRs, cfg.DNSCacheTTL = []string{"127.0.0.1/32"}, 0 // so that the second try asks again
	c := newClient(t, cfg, Deps{Resolver: names.resolver()})
	if res := send(c, request("http://turns.example:"+port+"/")); res.Outcome != pipeline.OutcomeConnectError {
		t.Errorf("the first time, when nobody listens there: %s %q", res.Outcome, res.Error)
	}
	for _, name := range []string{"turns", "alias"} {
		if res := send(c, request("http://"+name+".example:"+port+"/")); res.Outcome != pipeline.OutcomeBlocked {
			t.Errorf("%s: %s %q", name, res.Outcome, res.Error)
		}
	}
	if n := srv.conns.Load(); n != 0 || asked.Load() < 4 {
		t.Errorf("%d connections got through; asked %d times", n, asked.Load())
	}
}
