// Package netguard decides which IP addresses hookline may connect to: global
// unicast addresses, and what an operator's allow-list adds to them.
package netguard

import (
	"fmt"
	"net/netip"
	"syscall"

	"code.dny.dev/ssrf"
)

// BlockedError says that an address is refused.
type BlockedError struct {
	Addr netip.Addr
}

// Error names the address and the remedy.
func (e *BlockedError) Error() string {
	return fmt.Sprintf("address %s is not allowed (not a public address; see HOOKLINE_ALLOW_CIDRS)", e.Addr)
}

// Guard holds the rules. Immutable and safe for concurrent use.
type Guard struct {
	rules *ssrf.Guardian
}

// New makes a guard that allows global unicast addresses outside the special
// purpose registries of IANA, and every address within allow.
func New(allow []netip.Prefix) *Guard {
	var v4, v6 []netip.Prefix
	for _, p := range allow {
		if p.Addr().Is4() {
			v4 = append(v4, p)
		} else {
			v6 = append(v6, p)
		}
	}
	return &Guard{rules: ssrf.New(
		ssrf.WithAnyPort(), // the port is a matter of the URL
		ssrf.WithAllowedV4Prefixes(v4...),
		ssrf.WithAllowedV6Prefixes(v6...),
	)}
}

// ParsePrefixes reads an allow-list: CIDR blocks, or single addresses.
func ParsePrefixes(cidrs []string) ([]netip.Prefix, error) {
	var out []netip.Prefix
	for _, s := range cidrs {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			addr = addr.Unmap()
			out = append(out, netip.PrefixFrom(addr, addr.BitLen()))
			continue
		}
		p, err := netip.ParsePrefix(s)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("parsing allowed addresses: %q is not a CIDR block (write 10.1.0.0/16 or fd00::/8)", s)
		}
		if p != p.Masked() {
			return nil, fmt.Errorf("parsing allowed addresses: %q has host bits set (write %s)", s, p.Masked())
		}
		out = append(out, p)
	}
	return out, nil
}

// Check returns a *BlockedError for an address that must not be reached.
// IPv4-mapped addresses are judged as the IPv4 address they mean.
func (g *Guard) Check(addr netip.Addr) error {
	if !addr.IsValid() || addr.Zone() != "" || g.rules.SafeAddr(addr.Unmap()) != nil {
		return &BlockedError{Addr: addr}
	}
	return nil
}

// Control is for net.Dialer.Control: it judges the very address that a socket
// is about to connect to, so that no name can lead elsewhere between the check
// and the dial.
func (g *Guard) Control(_, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return &BlockedError{}
	}
	return g.Check(ap.Addr())
}
