package netguard

import (
	"errors"
	"net/netip"
	"testing"
)

// bad are addresses that lead inside, nowhere, or to another one in disguise.
var bad = []string{
	"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.0.0.2",
	"127.255.255.255", "169.254.0.1", "169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1",
	"192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1", "192.168.255.255",
	"192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250",
	"240.0.0.1", "255.255.255.255",
	"::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:0:7f00:1",
	"64:ff9b::7f00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:10::1", "2001:db8::1", "2002:7f00:1::", "2620:4f:8000::1",
	"3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fe80::1%eth0", "fec0::1", "ff02::1", "2606:4700::1%eth0",
}

var good = []string{
	"1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0",
	"169.253.255.255", "172.15.255.255", "172.32.0.0", "192.0.1.0", "192.167.255.255", "198.17.255.255", "198.20.0.0",
	"223.255.255.255", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "2003::1",
}

func TestAddresses(t *testing.T) {
	g := New(nil)
	for _, s := range bad {
		var blocked *BlockedError
		if err := g.Check(netip.MustParseAddr(s)); !errors.As(err, &blocked) {
			t.Errorf("%s is let through (%v)", s, err)
		}
	}
	for _, s := range good {
		if err := g.Check(netip.MustParseAddr(s)); err != nil {
			t.Errorf("%s is refused: %v", s, err)
		}
	}
	if err := g.Check(netip.Addr{}); err == nil {
		t.Error("no address at all is let through")
	}
}

func TestAllowListAddsJustWhatItNames(t *testing.T) {
	prefixes, err := ParsePrefixes([]string{"10.1.0.0/16", "127.0.0.1", "fd00::/8"})
	if err != nil {
		t.Fatal(err)
	}
	g := New(prefixes)
	for s, want := range map[string]bool{
		"10.1.2.3": true, "10.2.0.1": false, "127.0.0.1": true, "127.0.0.2": false, "::ffff:10.1.2.3": true,
		"fd12::1": true, "fe80::1": false, "8.8.8.8": true, "169.254.169.254": false, "fd12::1%eth0": false,
	} {
		if got := g.Check(netip.MustParseAddr(s)) == nil; got != want {
			t.Errorf("%s: allowed %v, want %v", s, got, want)
		}
	}
}

func TestParsePrefixesRefuses(t *testing.T) {
	for _, s := range []string{"", "10.0.0.0", "10.0.0.1/8", "10.0.0.0/33", "ten", "::ffff:10.0.0.0/104", "fe80::1%eth0"} {
		prefixes, err := ParsePrefixes([]string{s})
		if s == "10.0.0.0" {
			if err != nil || prefixes[0].Bits() != 32 {
				t.Errorf("a single address gave %v, %v", prefixes, err)
			}
			continue
		}
		if err == nil {
			t.Errorf("%q accepted as %v", s, prefixes)
		}
	}
}

func TestControlJudgesTheDialledAddress(t *testing.T) {
	g := New(nil)
	for address, want := range map[string]bool{
		"8.8.8.8:443": true, "127.0.0.1:443": false, "[::1]:80": false, "[::ffff:127.0.0.1]:80": false,
		"[2606:4700:4700::1111]:443": true, "/tmp/socket": false, "example.com:443": false,
	} {
		if got := g.Control("tcp", address, nil) == nil; got != want {
			t.Errorf("%s: allowed %v, want %v", address, got, want)
		}
	}
}

// FuzzCheck holds the guard against a second statement of its rules: nothing
// that Go itself knows to be special passes, in any spelling of the same bits.
func FuzzCheck(f *testing.F) {
	for _, s := range append(append([]string(nil), bad...), good...) {
		f.Add(netip.MustParseAddr(s).AsSlice())
	}
	g := New(nil)
	global6 := netip.MustParsePrefix("2000::/3")
	f.Fuzz(func(t *testing.T, raw []byte) {
		addr, ok := netip.AddrFromSlice(raw)
		if !ok {
			return
		}
		err := g.Check(addr)
		if (err == nil) != (g.Check(addr.Unmap()) == nil) {
			t.Fatalf("%s and %s are judged differently", addr, addr.Unmap())
		}
		if err != nil {
			return
		}
		u := addr.Unmap()
		if u.IsPrivate() || u.IsLoopback() || u.IsLinkLocalUnicast() || u.IsMulticast() || u.IsUnspecified() ||
			!u.IsGlobalUnicast() || u.Is6() && !global6.Contains(u) {
			t.Fatalf("%s is let through", addr)
		}
	})
}
