package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// badURLs never get into a subscription with the default configuration.
var badURLs = []string{
	// schemes
	"", " ", "http://example.com/", "HTTP://EXAMPLE.COM/", "ftp://example.com/", "file:///etc/passwd", "gopher://example.com:70/_x",
	"dict://example.com:11211/", "ldap://example.com/", "javascript:alert(1)", "data:text/plain,x", "ws://example.com/", "wss://example.com/",
	"unix:///var/run/docker.sock", "jar:https://example.com/", "example.com", "example.com/hook", "//example.com/", "https", "https:", "https:/",
	"https://", "https:///", "https:///hook", "https:example.com", "https:/example.com/", "https:\\\\example.com\\", "https//example.com/", "https ://example.com/",
	// user info and fragments
	"https://user@example.com/", "https://user:pass@example.com/", "https://@example.com/", "https://:@example.com/", "https://example.com@127.0.0.1/",
	"https://127.0.0.1:80@example.com/", "https://example.com/#", "https://example.com/#x", "https://example.com#@127.0.0.1/",
	// characters
	"https://example.com/a b", " https://example.com/", "https://example.com/ ", "https://exam ple.com/", "https://example.com/\t", "https://example.com/\n",
	"https://example.com/\r\nHost: 127.0.0.1", "https://example.com\r\n/", "https://example.com/\x00", "https://example.com\x00.evil.com/", "https://example.com/\x7f",
	"https://example.com\\.evil.com/", "https://example.com\\@127.0.0.1/", "https://example.com/\\..\\", "https://exämple.com/", "https://example.com/ü",
	"https://example。com/", "https://①②⑦.⓪.⓪.①/", "https://127。0。0。1/", "https://ⓛocalhost/", "https://example.com\u200b/", "https://exa%6dple.com/", "https://%6c%6f%63alhost/",
	"https://127.0.0%2e1/", "https://example.com%00/", "https://example.com%0d%0a/", "https://example.com%23/", "https://example.com%2f/",
	// spellings of IPv4
	"https://2130706433/", "https://0x7f000001/", "https://0x7F.0x0.0x0.0x1/", "https://017700000001/", "https://0177.0.0.1/", "https://0177.0.0.01/", "https://127.1/",
	"https://127.0.1/", "https://127.0.0.1./", "https://127.0.0.01/", "https://127.00.0.1/", "https://00127.0.0.1/", "https://0/", "https://0.0/", "https://1.1/", "https://256.0.0.1/",
	"https://1.2.3.4.5/", "https://1.2.3/", "https://4294967295/", "https://0xA9FEA9FE/", "https://2852039166/", "https://169.254.43518/", "https://8.8.8.0x8/",
	// IPv6
	"https://::1/", "https://[::1/", "https://::1]/", "https://[]/", "https://[::1%25lo]/", "https://[fe80::1%25eth0]/", "https://[fe80::1%eth0]/", "https://[2606:4700::1%251]/",
	"https://[example.com]/", "https://[127.0.0.1]/", "https://[v1.x]/", "https://[::1]extra/", "https://[0:0:0:0:0:0:0:0:1]/",
	// names
	"https://localhost/", "https://LOCALHOST/", "https://localhost./", "https://a.localhost/", "https://a.b.localhost/", "https://intranet/", "https://db/", "https://x.local/",
	"https://x.internal/", "https://metadata.google.internal/", "https://x.svc/", "https://kubernetes.default.svc.cluster.local/", "https://x.service.consul/", "https://x.onion/",
	"https://1.0.0.127.in-addr.arpa/", "https://x.arpa/", "https://.example.com/", "https://example..com/", "https://example.com../", "https://-a.example.com/", "https://a-.example.com/",
	"https://exa$mple.com/", "https://exa,mple.com/", "https://exa*mple.com/", "https://*/", "https://example.com;127.0.0.1/", "https://example.com,127.0.0.1/",
	// ports
	"https://example.com:/", "https://example.com:0/", "https://example.com:22/", "https://example.com:25/", "https://example.com:6379/", "https://example.com:9092/", "https://example.com:65536/",
	"https://example.com:99999/", "https://example.com:-443/", "https://example.com:+443/", "https://example.com:0443/", "https://example.com:443x/", "https://example.com:443:443/", "https://example.com:0x1bb/",
}

// badAddresses are nobody's on the Internet.
var badAddresses = []string{
	"0.0.0.0", "0.255.255.255", "10.0.0.1", "10.255.255.254", "100.64.0.1", "100.127.255.254", "127.0.0.1", "127.0.0.2", "127.255.255.254", "169.254.0.1",
	"169.254.169.254", "169.254.170.2", "172.16.0.1", "172.31.255.254", "192.0.0.1", "192.0.0.170", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
	"192.168.255.254", "192.175.48.1", "198.18.0.1", "198.19.255.254", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255",
	"[::]", "[::1]", "[::127.0.0.1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::ffff:10.0.0.1]", "[::ffff:169.254.169.254]", "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[100::1]", "[2001::1]",
	"[2001:db8::1]", "[2002:7f00:1::1]", "[2620:4f:8000::1]", "[3fff::1]", "[5f00::1]", "[fc00::1]", "[fd00:ec2::254]", "[fe80::1]", "[fec0::1]", "[ff02::1]",
}

// goodURLs are what customers have.
var goodURLs = []string{
	"https://example.com", "https://example.com/", "https://EXAMPLE.com/Hook", "https://a.b.c.example.com:8443/x?y=1&z=%20", "https://example.com:443/", "https://example.com:8080/",
	"https://example.com:80/", "https://xn--exmple-cua.com/", "https://8.8.8.8/", "https://[2606:4700:4700::1111]/", "https://[::ffff:8.8.8.8]/", "https://a_b.example.com/", "https://example.com/a%2Fb/../c//d?",
}

// dryRun is what `subs apply --dry-run` says to subscriptions with these URLs,
// one a line, and its exit code.
func dryRun(t *testing.T, urls []string, env ...string) result {
	t.Helper()
	var b strings.Builder
	b.WriteString("{\"subscriptions\":[\n")
	for i, u := range urls {
		text, err := json.Marshal(map[string]string{"id": fmt.Sprint("s", i), "tenant": "t", "url": u})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(text)
		if i < len(urls)-1 {
			b.WriteByte(',')
		}
		b.WriteByte('\n')
	}
	b.WriteString("]}\n")
	file := filepath.Join(t.TempDir(), "subs.json")
	if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	return run(t, append(env, "HOOKLINE_KAFKA_BROKERS=127.0.0.1:1"), "subs", "apply", "--dry-run", "-f", file)
}

// TestRefusedURLsByTheCommand: each of them is told, with its line, in one run.
func TestRefusedURLsByTheCommand(t *testing.T) {
	urls := append([]string(nil), badURLs...)
	for _, a := range badAddresses {
		urls = append(urls, "https://"+a+"/")
	}
	if len(badURLs) < 100 || len(badAddresses) < 40 {
		t.Fatalf("only %d URLs and %d addresses", len(badURLs), len(badAddresses))
	}
	r := dryRun(t, urls)
	if r.code != exitUsage {
		t.Errorf("exit code %d, want %d", r.code, exitUsage)
	}
	for i, u := range urls {
		if !strings.Contains(r.err, fmt.Sprintf("subs.json:%d: subscriptions[%d].url: ", i+2, i)) {
			t.Errorf("line %d, %q, passes", i+2, u)
		}
	}
	for line := range strings.Lines(r.err) {
		if !strings.HasPrefix(line, "hookline: checking subscriptions: ") {
			t.Errorf("a line that is no error of ours: %q", line)
		}
	}
	if t.Failed() {
		t.Log(r.err)
	}
}

func TestAcceptedURLsByTheCommand(t *testing.T) {
	if r := dryRun(t, goodURLs); r.code != exitDone || !strings.Contains(r.out, fmt.Sprint(len(goodURLs), " subscriptions are valid")) {
		t.Errorf("exit code %d:\n%s%s", r.code, r.out, r.err)
	}
	// What an operator allows is allowed, and nothing beside it.
	env := []string{"HOOKLINE_ALLOW_CIDRS=10.1.0.0/16,::1", "HOOKLINE_ALLOW_HTTP=true", "HOOKLINE_ALLOW_PORTS=443,9000-9010"}
	if r := dryRun(t, []string{"http://10.1.2.3:9000/", "https://[::1]/", "http://receiver:9010/", "http://erp.svc:9001/"}, env...); r.code != exitDone {
		t.Errorf("exit code %d:\n%s%s", r.code, r.out, r.err)
	}
	for _, u := range []string{"http://10.2.0.1:9000/", "https://127.0.0.1/", "https://[::2]/", "https://example.com:8443/", "https://169.254.169.254/", "ftp://10.1.2.3/"} {
		if r := dryRun(t, []string{u}, env...); r.code != exitUsage {
			t.Errorf("%s: exit code %d:\n%s%s", u, r.code, r.out, r.err)
		}
	}
}
