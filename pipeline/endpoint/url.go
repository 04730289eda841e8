// Package endpoint says what a receiver's URL and custom headers may look like:
// pure checks without I/O, the same where a subscription is applied, loaded and
// sent to. What an address may be is not decided here: see Policy.Addr.
package endpoint

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
)

// MaxURLBytes is the longest URL that is accepted.
const MaxURLBytes = 2048

// Policy says which URLs are acceptable. The zero value accepts https on port
// 443 to public names only, and no address literals.
type Policy struct {
	AllowHTTP bool    // accept the scheme http
	Ports     PortSet // ports that may be named; empty: 443 only
	// LocalNames accepts names that only a private network resolves (single
	// labels, localhost, .local, .internal, .svc, .consul). Meant for
	// deployments that allow private addresses; every address is checked again
	// when it is dialled.
	LocalNames bool
	// Addr tells why an address must not be reached; nil for one that may.
	// A nil Addr refuses every address literal.
	Addr func(netip.Addr) error
	// Inbound are the URLs that events must not go to since they would come
	// back. ParseURL does not look at them: see Inbounds.Check.
	Inbound Inbounds
}

// URL is a checked URL, in the one form in which it is sent. Immutable.
type URL struct {
	Scheme string     // "https" or "http"
	Host   string     // lower case; an address without brackets
	Port   uint16     // never 0
	Addr   netip.Addr // valid where Host is an address literal
	// Authority is the Host header: Host, in brackets for IPv6, with the port
	// where it is not the scheme's own.
	Authority string
	Target    string // path and query as they go on the request line; starts with /
}

// TLS tells whether the URL asks for TLS.
func (u *URL) TLS() bool { return u.Scheme == "https" }

// String gives the URL as it is sent. It may hold secrets: see Redacted.
func (u *URL) String() string { return u.Scheme + "://" + u.Authority + u.Target }

// Redacted gives the URL for logs: the values of its query are left out.
func (u *URL) Redacted() string {
	path, query, ok := strings.Cut(u.Target, "?")
	if !ok || query == "" {
		return u.String()
	}
	var b strings.Builder
	b.WriteString(u.Scheme + "://" + u.Authority + path)
	sep := byte('?')
	for pair := range strings.SplitSeq(query, "&") {
		b.WriteByte(sep)
		sep = '&'
		// A pair without a name is all value.
		name, _, named := strings.Cut(pair, "=")
		if named {
			b.WriteString(name + "=")
		}
		b.WriteString("[redacted]")
	}
	return b.String()
}

// ParseURL checks raw against pol. Errors say what is wrong and what would be
// right; they never quote more of the URL than its scheme, host and port.
func ParseURL(raw string, pol Policy) (*URL, error) {
	if err := checkBytes(raw); err != nil {
		return nil, err
	}
	p, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("parsing url: not a valid URL (write https://host/path)")
	}
	if err := checkParts(p, pol); err != nil {
		return nil, err
	}
	if strings.Contains(raw, "#") {
		return nil, errors.New("parsing url: a fragment is not allowed (it would never be sent)")
	}
	u := &URL{Scheme: p.Scheme}
	if err := u.setHost(p.Host, pol); err != nil {
		return nil, err
	}
	if err := u.setPort(p, pol); err != nil {
		return nil, err
	}
	// Most are written as they are sent: no second copy.
	if u.Authority = authority(u); u.Authority == p.Host {
		u.Authority = p.Host
	}
	u.Target = target(p)
	return u, nil
}

func checkBytes(raw string) error {
	switch {
	case raw == "":
		return errors.New("parsing url: empty (write https://host/path)")
	case len(raw) > MaxURLBytes:
		return fmt.Errorf("parsing url: %d bytes are over the limit of %d", len(raw), MaxURLBytes)
	}
	for i := range len(raw) {
		if c := raw[i]; c <= ' ' || c >= 0x7f || c == '\\' {
			return fmt.Errorf("parsing url: byte 0x%02x at %d is not allowed (percent-encode it; a host name in its xn-- form)", c, i)
		}
	}
	return nil
}

func checkParts(p *url.URL, pol Policy) error {
	switch {
	case p.Scheme == "https":
	case p.Scheme == "http" && pol.AllowHTTP:
	case p.Scheme == "http":
		return errors.New("parsing url: scheme http is not allowed (use https, or set HOOKLINE_ALLOW_HTTP=true)")
	default:
		return fmt.Errorf("parsing url: scheme %q is not https", p.Scheme)
	}
	switch {
	case p.Opaque != "" || p.Host == "":
		return errors.New("parsing url: no host (write https://host/path)")
	case p.User != nil || strings.Contains(p.Host, "@"):
		return errors.New("parsing url: user info is not allowed (use auth or headers)")
	}
	return nil
}

func (u *URL) setHost(hostport string, pol Policy) error {
	host := strings.ToLower(hostport)
	if strings.HasPrefix(host, "[") {
		end := strings.IndexByte(host, ']')
		if end < 0 || (end+1 < len(host) && host[end+1] != ':') {
			return errors.New("parsing url: malformed IPv6 host (write https://[address]:port/)")
		}
		return u.setAddr(host[1:end], pol)
	}
	host, _, _ = strings.Cut(host, ":")
	if endsInNumber(host) {
		return u.setAddr(host, pol)
	}
	if err := checkName(host, pol.LocalNames); err != nil {
		return err
	}
	u.Host = host
	return nil
}

func (u *URL) setAddr(host string, pol Policy) error {
	addr, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		return fmt.Errorf("parsing url: host %q is not an address in its usual spelling (four decimal numbers, or IPv6 in brackets)", host)
	case addr.Zone() != "":
		return errors.New("parsing url: an IPv6 zone is not allowed")
	case pol.Addr == nil:
		return fmt.Errorf("parsing url: host %s is an address (use a name)", addr)
	}
	// One address, one spelling: ::ffff:a.b.c.d is a.b.c.d.
	addr = addr.Unmap()
	if err := pol.Addr(addr); err != nil {
		return fmt.Errorf("parsing url: %w", err)
	}
	u.Addr, u.Host = addr, host
	if text := addr.String(); text != host {
		u.Host = text
	}
	return nil
}

func (u *URL) setPort(p *url.URL, pol Policy) error {
	port := p.Port()
	if port == "" {
		if strings.HasSuffix(p.Host, ":") {
			return errors.New("parsing url: empty port after the colon")
		}
		u.Port = 443
		if u.Scheme == "http" {
			u.Port = 80
		}
	} else {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil || n == 0 || port[0] == '0' {
			return fmt.Errorf("parsing url: port %q is not a number from 1 to 65535", port)
		}
		u.Port = uint16(n)
	}
	if !pol.Ports.Has(u.Port) {
		return fmt.Errorf("parsing url: port %d is not allowed (allowed: %s; see HOOKLINE_ALLOW_PORTS)", u.Port, pol.Ports)
	}
	return nil
}

// endsInNumber tells whether the last label is a number in any spelling: such a
// host is an address or nothing (WHATWG URL, "ends in a number").
func endsInNumber(host string) bool {
	label := host[strings.LastIndexByte(host, '.')+1:]
	if hex, ok := strings.CutPrefix(label, "0x"); ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return label != "" && strings.Trim(label, "0123456789") == ""
}

// localSuffixes are names that no public resolver answers for, or that lead
// inside (RFC 6761, RFC 6762, RFC 8375, and what clusters use).
var localSuffixes = []string{"localhost", "local", "internal", "svc", "consul", "cluster.local", "home.arpa"}

func checkName(host string, local bool) error {
	switch {
	case host == "":
		return errors.New("parsing url: no host (write https://host/path)")
	case len(host) > 253:
		return errors.New("parsing url: the host is longer than 253 characters")
	case strings.HasSuffix(host, "."):
		return fmt.Errorf("parsing url: host %q ends in a dot (leave it out)", host)
	}
	for label := range strings.SplitSeq(host, ".") {
		if !validLabel(label) {
			return fmt.Errorf("parsing url: host %q is not a name (letters, digits and hyphens; other scripts in their xn-- form)", host)
		}
	}
	if isUnder(host, "onion") || isUnder(host, "arpa") && !(local && isUnder(host, "home.arpa")) {
		return fmt.Errorf("parsing url: host %q is never a receiver", host)
	}
	if local {
		return nil
	}
	if !strings.Contains(host, ".") {
		return fmt.Errorf("parsing url: host %q has one label, a local name (use its full name, or set HOOKLINE_ALLOW_CIDRS)", host)
	}
	for _, suffix := range localSuffixes {
		if isUnder(host, suffix) {
			return fmt.Errorf("parsing url: host %q is a local name (set HOOKLINE_ALLOW_CIDRS to reach private receivers)", host)
		}
	}
	return nil
}

func isUnder(host, suffix string) bool {
	return host == suffix || strings.HasSuffix(host, "."+suffix)
}

func validLabel(label string) bool {
	if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
		return false
	}
	for i := range len(label) {
		c := label[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

func authority(u *URL) string {
	host := u.Host
	if u.Addr.Is6() {
		host = "[" + host + "]"
	}
	if u.TLS() && u.Port == 443 || !u.TLS() && u.Port == 80 {
		return host
	}
	return host + ":" + strconv.Itoa(int(u.Port))
}

// target is the request line's path and query. Bytes that a strict receiver
// would refuse there are percent-encoded; nothing else is changed.
func target(p *url.URL) string {
	t := p.EscapedPath()
	if t == "" {
		t = "/"
	}
	if p.RawQuery != "" || p.ForceQuery {
		t += "?" + p.RawQuery
	}
	if !strings.ContainsAny(t, unsafeInTarget) {
		return t
	}
	var b strings.Builder
	for i := range len(t) {
		if strings.IndexByte(unsafeInTarget, t[i]) >= 0 {
			fmt.Fprintf(&b, "%%%02X", t[i])
			continue
		}
		b.WriteByte(t[i])
	}
	return b.String()
}

// unsafeInTarget are the printable bytes that RFC 3986 has nowhere in a URL.
const unsafeInTarget = "\"<>^`{|}"
