package endpoint

import (
	"errors"
	"maps"
	"net/netip"
	"net/url"
	"strings"
	"testing"
)

func publicOnly(a netip.Addr) error {
	if !a.IsGlobalUnicast() || a.IsPrivate() {
		return errors.New("address " + a.String() + " is not allowed")
	}
	return nil
}

var strict = Policy{Ports: PortSet{{443, 443}, {80, 80}, {8080, 8080}, {8443, 8443}}, Addr: publicOnly}

// refused are URLs that never pass the strict policy, and a word of the reason.
var refused = map[string]string{
	"":                                                 "empty",
	"example.com/hook":                                 "scheme",
	"//example.com/hook":                               "scheme",
	"http://example.com/":                              "http is not allowed",
	"HTTP://example.com/":                              "http is not allowed",
	"ftp://example.com/":                               "not https",
	"file:///etc/passwd":                               "not https",
	"gopher://example.com/":                            "not https",
	"javascript:alert(1)":                              "not https",
	"https:example.com":                                "no host",
	"https:/example.com":                               "no host",
	"https:///hook":                                    "no host",
	"https://":                                         "no host",
	"https://?x":                                       "no host",
	"https://:443/":                                    "no host",
	"https://user@example.com/":                        "user info",
	"https://user:pw@example.com/":                     "user info",
	"https://@example.com/":                            "user info",
	"https://example.com@127.0.0.1/":                   "user info",
	"https://example.com/#frag":                        "fragment",
	"https://example.com/#":                            "fragment",
	"https://example.com/ hook":                        "0x20",
	" https://example.com/":                            "0x20",
	"https://example.com/\r\nX: 1":                     "0x0d",
	"https://example.com/\x00":                         "0x00",
	"https://example.com/\t":                           "0x09",
	"https://example.com\\@evil.com/":                  "0x5c",
	"https://exämple.com/":                             "0xc3",
	"https://example.com/ä":                            "0xc3",
	"https://ex%61mple.com/":                           "URL",
	"https://%31%32%37.0.0.1/":                         "URL",
	"https://example.com%2f.evil/":                     "URL",
	"https://127.0.0.1/":                               "not allowed",
	"https://10.0.0.1/":                                "not allowed",
	"https://2130706433/":                              "usual spelling",
	"https://0x7f000001/":                              "usual spelling",
	"https://0x7f.0.0.1/":                              "usual spelling",
	"https://0177.0.0.1/":                              "usual spelling",
	"https://127.1/":                                   "usual spelling",
	"https://127.0.1/":                                 "usual spelling",
	"https://127.0.0.1./":                              "dot",
	"https://1.2.3.4.5/":                               "usual spelling",
	"https://256.1.1.1/":                               "usual spelling",
	"https://08.8.8.8/":                                "usual spelling",
	"https://8.8.8.0x8/":                               "usual spelling",
	"https://example.123/":                             "usual spelling",
	"https://example.0x/":                              "usual spelling",
	"https://[::1]/":                                   "not allowed",
	"https://[::ffff:127.0.0.1]/":                      "not allowed",
	"https://[fe80::1%25eth0]/":                        "zone",
	"https://[2606:4700::1%25eth0]/":                   "zone",
	"https://[::1/":                                    "URL",
	"https://[]/":                                      "URL",
	"https://[example.com]/":                           "URL",
	"https://::1/":                                     "",
	"https://localhost/":                               "local name",
	"https://LOCALHOST/":                               "local name",
	"https://a.localhost/":                             "local name",
	"https://localhost./":                              "dot",
	"https://intranet/":                                "local name",
	"https://printer.local/":                           "local name",
	"https://metadata.google.internal/computeMetadata": "local name",
	"https://kubernetes.default.svc/":                  "local name",
	"https://web.service.consul/":                      "local name",
	"https://x.onion/":                                 "never a receiver",
	"https://1.0.0.127.in-addr.arpa/":                  "never a receiver",
	"https://example.com:22/":                          "port 22",
	"https://example.com:0/":                           "port",
	"https://example.com:/":                            "empty port",
	"https://example.com:99999/":                       "port",
	"https://example.com:0443/":                        "port",
	"https://example.com:443x/":                        "URL",
	"https://example.com:-1/":                          "URL",
	"https://example..com/":                            "not a name",
	"https://.example.com/":                            "not a name",
	"https://-example.com/":                            "not a name",
	"https://example-.com/":                            "not a name",
	"https://exa$mple.com/":                            "not a name",
	"https://exa,mple.com/":                            "not a name",
	"https://a;b.com/":                                 "not a name",
}

func TestRefusedURLs(t *testing.T) {
	long := strings.Repeat("a", 64)
	all := maps.Clone(refused)
	maps.Copy(all, map[string]string{
		"https://" + long + ".com/":                               "not a name",
		"https://" + strings.Repeat("abc.", 64) + "com/":          "253",
		"https://example.com/" + strings.Repeat("a", MaxURLBytes): "limit",
	})
	for raw, why := range all {
		u, err := ParseURL(raw, strict)
		if err == nil {
			t.Errorf("%q passes as %s", raw, u)
		} else if !strings.Contains(err.Error(), why) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q: %q does not say %q in one line", raw, err, why)
		}
	}
}

func TestAcceptedURLs(t *testing.T) {
	for raw, want := range map[string]string{
		"https://example.com":                     "https://example.com/",
		"https://EXAMPLE.com:443/Hook?b=2&a=1":    "https://example.com/Hook?b=2&a=1",
		"HTTPS://example.com:8443/":               "https://example.com:8443/",
		"https://example.com:80/":                 "https://example.com:80/",
		"https://xn--exmple-cua.com/":             "https://xn--exmple-cua.com/",
		"https://a_b.example.com/":                "https://a_b.example.com/",
		"https://8.8.8.8/":                        "https://8.8.8.8/",
		"https://[2606:4700:4700::1111]:8443/x":   "https://[2606:4700:4700::1111]:8443/x",
		"https://[2606:4700:4700:0:0::1111]/":     "https://[2606:4700:4700::1111]/",
		"https://[::ffff:8.8.8.8]/":               "https://8.8.8.8/",
		"https://example.com/a%2Fb/../c//d?":      "https://example.com/a%2Fb/../c//d?",
		"https://example.com?x=1":                 "https://example.com/?x=1",
		"https://example.com/{id}|<x>?q=\"{y}`\"": "https://example.com/%7Bid%7D%7C%3Cx%3E?q=%22%7By%7D%60%22",
		"https://hooks.example.com/T0/B1/c-_~.!":  "https://hooks.example.com/T0/B1/c-_~.!",
		"https://0xexample.com/":                  "https://0xexample.com/",
		"https://1and1.com/":                      "https://1and1.com/",
		"https://mylocal/x":                       "",
		"https://notlocalhost.com/":               "https://notlocalhost.com/",
	} {
		u, err := ParseURL(raw, strict)
		if want == "" {
			if err == nil {
				t.Errorf("%q passes", raw)
			}
			continue
		}
		if err != nil || u.String() != want {
			t.Errorf("%q: %v, %v, want %s", raw, u, err, want)
			continue
		}
		again, err := ParseURL(u.String(), strict)
		if err != nil || *again != *u {
			t.Errorf("%q: its own form gives %v, %v", raw, again, err)
		}
	}
}

func TestPrivatePolicy(t *testing.T) {
	pol := Policy{
		AllowHTTP: true, LocalNames: true, Ports: PortSet{{1, 65535}},
		Addr: func(netip.Addr) error { return nil },
	}
	for raw, want := range map[string]bool{
		"http://127.0.0.1:9999/ok": true, "http://localhost:1/": true, "http://receiver:8080/": true,
		"https://erp.svc.cluster.local/": true, "http://printer.home.arpa/": true, "http://[::1]:80/": true,
		"http://x.onion/": false, "http://1.in-addr.arpa/": false, "http://0x7f.1/": false, "http://u@localhost/": false,
	} {
		if _, err := ParseURL(raw, pol); (err == nil) != want {
			t.Errorf("%s: %v", raw, err)
		}
	}
	if _, err := ParseURL("https://8.8.8.8/", Policy{}); err == nil {
		t.Error("the zero policy accepts an address")
	}
	if _, err := ParseURL("https://example.com/", Policy{}); err != nil {
		t.Errorf("the zero policy refuses a plain URL: %v", err)
	}
}

func TestRedacted(t *testing.T) {
	for raw, want := range map[string]string{
		"https://example.com/a":                 "https://example.com/a",
		"https://example.com/a?":                "https://example.com/a?",
		"https://example.com/a?key=hush&b=&raw": "https://example.com/a?key=[redacted]&b=[redacted]&[redacted]",
	} {
		u, err := ParseURL(raw, strict)
		if err != nil || u.Redacted() != want {
			t.Errorf("%s: %v, %v", raw, u.Redacted(), err)
		}
	}
}

func TestErrorsKeepPathsAndUserInfoSecret(t *testing.T) {
	for _, raw := range []string{
		"https://user:hush@example.com/", "https://example.com:22/hush?k=hush", "http://example.com/hush",
		"https://local/hush", "https://10.0.0.1/hush", "https://%zz/hush", "https://example.com/hush\x01",
	} {
		if _, err := ParseURL(raw, strict); err == nil || strings.Contains(err.Error(), "hush") {
			t.Errorf("%q: %v", raw, err)
		}
	}
}

func FuzzParseURL(f *testing.F) {
	for raw := range refused {
		f.Add(raw)
	}
	f.Add("https://example.com:8443/a%2Fb?x={y}")
	f.Fuzz(func(t *testing.T, raw string) {
		u, err := ParseURL(raw, strict)
		if err != nil {
			return
		}
		// What passes is one clean request line to the host that others see too.
		p, err := url.Parse(u.String())
		if err != nil || p.Hostname() != u.Host || p.User != nil || p.Scheme != "https" {
			t.Fatalf("%q became %q, which others read as %v (%v)", raw, u, p, err)
		}
		if strings.ContainsFunc(u.Target, func(r rune) bool { return r <= ' ' || r >= 0x7f }) || u.Target[0] != '/' {
			t.Fatalf("%q has target %q", raw, u.Target)
		}
		if u.Addr.IsValid() && publicOnly(u.Addr) != nil {
			t.Fatalf("%q leads to %s", raw, u.Addr)
		}
	})
}

func TestPorts(t *testing.T) {
	set, err := ParsePorts([]string{"443", " 8000-8099 "})
	if err != nil || set.String() != "443,8000-8099" {
		t.Fatalf("%v, %v", set, err)
	}
	for port, want := range map[uint16]bool{443: true, 8000: true, 8099: true, 8100: false, 80: false} {
		if set.Has(port) != want {
			t.Errorf("port %d", port)
		}
	}
	for _, s := range []string{"", "0", "65536", "9-8", "a", "1-", "-1", "1-2-3"} {
		if set, err := ParsePorts([]string{s}); err == nil {
			t.Errorf("%q accepted as %v", s, set)
		}
	}
}
