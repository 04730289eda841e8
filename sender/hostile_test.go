package sender

import (
	"bytes"
	"compress/gzip"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// canary is what hostile receivers put into everything they say: it must not
// turn up in an error text.
const canary = "cAnArY"

// hostile is a receiver, and what must come of one try.
type hostile struct {
	name    string
	handle  func(p *peer)
	outcome pipeline.Outcome
	text    string // Result.Error begins so
	timeout bool   // takes the whole time limit
	status  int    // of the answer that is judged; 0: none is

	tls       *tls.Config // the receiver's; nil: see rawTLS
	rawTLS    bool        // it is spoken to by TLS, and does with that what handle says
	noRequest bool        // no request arrives, or not as a whole
	early     bool        // whether a byte of the request went out is a matter of chance
	payload   int         // bytes; 0: a few
}

// settle is how long a receiver waits before a RST, which overtakes data that
// was not read yet.
const settle = 20 * time.Millisecond

const (
	ok200 = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
	hang  = "socket hang up"
	proto = pipeline.OutcomeProtocolError
	broke = pipeline.OutcomeConnectError
)

func drip(text string) func(*peer) {
	return func(p *peer) {
		if !p.request() {
			return
		}
		for i := range len(text) {
			p.say(text[i : i+1])
			p.pause(20 * time.Millisecond)
		}
	}
}

func brokenReceivers() []hostile {
	return []hostile{
		{name: "accepts, reads nothing", handle: func(p *peer) { p.pause(time.Minute) }, outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true, noRequest: true},
		{name: "reads nothing of a large request", handle: func(p *peer) { p.pause(time.Minute) }, outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true, noRequest: true, payload: 20 << 20},
		{name: "never replies", handle: func(p *peer) { p.request(); p.hold() }, outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "drips headers", handle: drip("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("a", 1000)), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "drips a body", handle: drip("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("a", 1000)), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "drips chunks", handle: drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\na\r\n", 500)), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "drips interim answers", handle: drip(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 50)), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "drips a trailer", handle: drip("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X-T: 1\r\n", 200)), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "stops after the headers", handle: answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "ends lines with CR alone", handle: answer("HTTP/1.1 200 OK\rContent-Length: 0\r\r"), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "stops in an interim answer", handle: answer("HTTP/1.1 100 Continue\r\n"), outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms", timeout: true},
		{name: "RST at once", handle: (*peer).reset, outcome: broke, noRequest: true, early: true},
		{name: "RST in the request", handle: func(p *peer) { _, _ = p.br.ReadByte(); p.reset() }, outcome: broke, noRequest: true, payload: 20 << 20},
		{name: "RST in the status line", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 2"); p.pause(settle); p.reset() }, outcome: broke, text: "read ECONNRESET"},
		{name: "RST in the headers", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\nX-A: " + canary); p.pause(settle); p.reset() }, outcome: broke, text: "read ECONNRESET"},
		{name: "RST in a chunk", handle: func(p *peer) {
			p.request()
			p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + canary)
			p.pause(settle)
			p.reset()
		}, outcome: broke, text: "read ECONNRESET"},
		{name: "FIN after an interim answer", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 100 Continue\r\n\r\n") }, outcome: broke, text: hang},
		{name: "early success", handle: func(p *peer) { // for a request that it has not read
			_, _ = p.br.ReadString('\n')
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			p.pause(settle)
		}, outcome: broke, text: "write E", noRequest: true, payload: 20 << 20},
		{name: "early refusal", handle: func(p *peer) {
			_, _ = p.br.ReadString('\n')
			p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
			p.pause(settle)
		}, outcome: pipeline.OutcomeResponseError, text: "status 413", status: 413, noRequest: true, payload: 20 << 20},
		{name: "RST before the reply", handle: func(p *peer) { p.request(); p.reset() }, outcome: broke, text: "read ECONNRESET"},
		{name: "FIN before the reply", handle: func(p *peer) { p.request() }, outcome: broke, text: hang},
		{name: "FIN in the status line", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 2") }, outcome: broke, text: hang},
		{name: "FIN in the headers", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\nX-A: " + canary) }, outcome: broke, text: hang},
		{name: "FIN in the body", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + canary) }, outcome: broke, text: hang},
		{name: "FIN in a chunk", handle: func(p *peer) {
			p.request()
			p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + canary)
		}, outcome: broke, text: hang},
		{name: "FIN before the last chunk", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n") }, outcome: broke, text: hang},
		{name: "FIN before the trailer's end", handle: func(p *peer) { p.request(); p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n") }, outcome: broke, text: hang},
		{name: "RST in the body", handle: func(p *peer) {
			p.request()
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + canary)
			p.pause(settle)
			p.reset()
		}, outcome: broke, text: "read ECONNRESET"},
	}
}

func malformedReceivers() []hostile {
	var list []hostile
	for name, text := range map[string]string{
		"status 000":                "HTTP/1.1 000 " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"status 000, spaced":        "HTTP/1.1   000 OK\r\nContent-Length: 0\r\n\r\n",
		"status 099":                "HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
		"status 99":                 "HTTP/1.1 99 OK\r\nContent-Length: 0\r\n\r\n",
		"status 600":                "HTTP/1.1 600 OK\r\nContent-Length: 0\r\n\r\n",
		"status 999":                "HTTP/1.1 999 OK\r\nContent-Length: 0\r\n\r\n",
		"status 2000":               "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
		"status -20":                "HTTP/1.1 -20 OK\r\nContent-Length: 0\r\n\r\n",
		"status 0x2":                "HTTP/1.1 0x2 OK\r\nContent-Length: 0\r\n\r\n",
		"no status":                 "HTTP/1.1 OK " + canary + "\r\n\r\n",
		"HTTP/0.9":                  "HTTP/0.9 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/2.0":                  "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"HTTP/1.2":                  "HTTP/1.2 200 OK\r\nContent-Length: 0\r\n\r\n",
		"lower case":                "http/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"another protocol":          "220 " + canary + " ESMTP ready, who is there\r\n",
		"TLS record":                "\x15\x03\x01\x00\x02\x02\x46\x15\x03\x01\x00\x02\x02\x46",
		"leading line":              "\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
		"NUL":                       "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		"bare LF":                   "HTTP/1.1 200\nContent-Length: 0\n\n",
		"no colon":                  "HTTP/1.1 200 OK\r\n" + canary + "\r\n\r\n",
		"empty name":                "HTTP/1.1 200 OK\r\n: " + canary + "\r\n\r\n",
		"control in a value":        "HTTP/1.1 200 OK\r\nX-A: a\x00" + canary + "\r\nContent-Length: 0\r\n\r\n",
		"folded header":             "HTTP/1.1 200 OK\r\nX-A: a\r\n " + canary + "\r\nContent-Length: 0\r\n\r\n",
		"folded with a tab":         "HTTP/1.1 200 OK\r\n\tX-A: a\r\nContent-Length: 0\r\n\r\n",
		"bare LF in the headers":    "HTTP/1.1 200 OK\r\nX-A: a\nContent-Length: 0\r\n\r\n",
		"bare LF at the end":        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n",
		"two lengths":               "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
		"length not a number":       "HTTP/1.1 200 OK\r\nContent-Length: " + canary + "\r\n\r\n",
		"negative length":           "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"list of lengths":           "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nab",
		"unknown coding":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: " + canary + "\r\n\r\n",
		"two codings":               "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
		"chunk size not hex":        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + canary + "\r\n",
		"chunk size too large":      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
		"chunk longer than said":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n" + canary + "\r\n0\r\n\r\n",
		"101":                       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: " + canary + "\r\nConnection: Upgrade\r\n\r\n",
		"101 without upgrade":       "HTTP/1.1 101 OK\r\nContent-Length: 0\r\n\r\n",
		"100,000 interim answers":   strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 100_000),
		"101 after interim answers": strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 3) + "HTTP/1.1 101 Switching Protocols\r\n\r\n",
		"length beyond 64 bits":     "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
		"length in hex":             "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nok",
		"length with a sign":        "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
		"same length twice":         "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
		"length and chunks":         "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"chunks and length":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
		"chunked twice":             "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"space before the colon":    "HTTP/1.1 200 OK\r\nContent-Length : 0\r\n\r\n",
		"negative chunk":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\na\r\n0\r\n\r\n",
		"endless chunk extension":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;" + strings.Repeat("a", 1<<20),
		"endless trailer":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X-T: 1\r\n", 100_000),
		"101 interim answers":       strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", 101) + ok200,
		"100,000 headers":           "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-A: 1\r\n", 100_000) + "\r\n",
		"a 64 KB header":            "HTTP/1.1 200 OK\r\nX-A: " + strings.Repeat("a", 64<<10) + "\r\nContent-Length: 0\r\n\r\n",
	} {
		list = append(list, hostile{name: name, handle: answer(text), outcome: proto, text: "Parse Error"})
	}
	return list
}

// refusingReceivers answer with what is no success, or would lead elsewhere.
func refusingReceivers() []hostile {
	var list []hostile
	chunk := "1000\r\n" + strings.Repeat("a", 0x1000) + "\r\n"
	add := func(name string, status int, head string, body func(p *peer)) {
		list = append(list, hostile{name: name, outcome: pipeline.OutcomeResponseError, text: fmt.Sprintf("status %d", status), status: status, handle: func(p *peer) {
			p.request()
			p.say(fmt.Sprintf("HTTP/1.1 %d %s\r\n%s\r\n\r\n", status, canary, head))
			body(p)
		}})
	}
	for status := 300; status <= 308; status++ {
		add(fmt.Sprintf("redirect %d to itself", status), status, "Location: /again\r\nContent-Length: 0", (*peer).hold)
		add(fmt.Sprintf("redirect %d to metadata", status), status, "Location: http://169.254.169.254/latest/meta-data/\r\nRefresh: 0;url=http://127.0.0.2/\r\nContent-Length: 0", (*peer).hold)
	}
	add("10 GB announced", 500, "Content-Length: 10000000000", func(p *peer) { p.say(strings.Repeat("a", 1<<16)); p.hold() })
	add("endless chunks", 500, "Transfer-Encoding: chunked", func(p *peer) { p.flood(chunk) })
	add("endless body", 500, "X-A: 1", func(p *peer) { p.flood(chunk) })
	bomb := zipped(make([]byte, 8<<20))
	add("gzip bomb", 500, fmt.Sprintf("Content-Encoding: gzip\r\nContent-Length: %d", len(bomb)), func(p *peer) { p.say(bomb); p.hold() })
	add("204's body is the next answer", 404, "Content-Length: 0", func(p *peer) { p.say(ok200); p.hold() })
	return list
}

// flood writes text for as long as the other side takes it.
func (p *peer) flood(text string) {
	b := []byte(text)
	for {
		if _, err := p.Write(b); err != nil {
			return
		}
	}
}

// TestHostileReceivers runs each receiver once: one request, the right outcome
// and never success, nothing that it said in the error, and no overrun of the
// time limit.
func TestHostileReceivers(t *testing.T) {
	ca, roots := authority(t)
	all := slices.Concat(brokenReceivers(), malformedReceivers(), refusingReceivers(), tlsReceivers(t, &ca))
	if len(all) < 100 {
		t.Errorf("only %d receivers", len(all))
	}
	for _, h := range all {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			h.run(t, roots)
		})
	}
}

func (h *hostile) run(t *testing.T, roots *x509.CertPool) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	scheme := "http://"
	if h.tls != nil {
		ln = tls.NewListener(ln, h.tls)
	}
	if h.tls != nil || h.rawTLS {
		scheme = "https://"
	}
	srv := serveRawOn(t, ln, h.handle)
	c := newClient(t, localConfig(), Deps{RootCAs: roots})
	req := request(scheme + srv.addr() + "/hook")
	if h.payload > 0 {
		req.Payload = make([]byte, h.payload)
	}
	limit := 5 * time.Second
	if h.timeout {
		limit = 300 * time.Millisecond
	}
	req.Subscription.Timeout = limit
	late := lateness()
	res := send(c, req)
	allowed := limit + overrun + late()
	if res.Outcome != h.outcome || res.Outcome == pipeline.OutcomeSuccess || !strings.HasPrefix(res.Error, h.text) || res.StatusCode != h.status {
		t.Errorf("got %s %q, status %d, want %s %q, status %d", res.Outcome, res.Error, res.StatusCode, h.outcome, h.text, h.status)
	}
	if strings.Contains(res.Error, canary) {
		t.Errorf("the error quotes the answer: %q", res.Error)
	}
	if res.Elapsed > allowed || h.timeout && res.Elapsed < limit {
		t.Errorf("took %s of %s (%s with the machine's own lateness)", res.Elapsed, limit, allowed)
	}
	want := int64(1)
	if h.noRequest {
		want = 0
	}
	if res.Resends != 0 || srv.conns.Load() != 1 || srv.requests.Load() != want {
		t.Errorf("resends %d, connections %d, requests %d, want 0, 1, %d", res.Resends, srv.conns.Load(), srv.requests.Load(), want)
	}
	if secure := scheme == "https://"; res.RequestWritten == secure && !h.early {
		t.Errorf("written %v", res.RequestWritten)
	}
	if idle, busy := c.Connections(); busy != 0 || h.status == 0 && idle != 0 {
		t.Errorf("connection kept: %d idle, %d busy", idle, busy)
	}
}

func TestStatusTable(t *testing.T) {
	for status := 200; status <= 599; status++ {
		want := pipeline.OutcomeResponseError
		switch {
		case status <= 209:
			want = pipeline.OutcomeSuccess
		case status == 410:
			want = pipeline.OutcomeGone
		}
		t.Run(fmt.Sprint(status), func(t *testing.T) {
			srv := serveRaw(t, answer(fmt.Sprintf("HTTP/1.1 %d X\r\nContent-Length: 0\r\nLocation: http://127.0.0.1:1/\r\n\r\n", status)))
			c := newClient(t, localConfig(), Deps{})
			res := send(c, request(srv.url()))
			if res.Outcome != want || res.StatusCode != status || srv.requests.Load() != 1 || srv.conns.Load() != 1 {
				t.Errorf("%d: got %s %q, status %d, requests %d", status, res.Outcome, res.Error, res.StatusCode, srv.requests.Load())
			}
			if (want == pipeline.OutcomeSuccess) != (res.Error == "") {
				t.Errorf("%d: error %q", status, res.Error)
			}
		})
	}
}

func TestSuccessStatusIsConfigurable(t *testing.T) {
	srv := serveRaw(t, answer("HTTP/1.1 299 X\r\nContent-Length: 0\r\n\r\n"))
	cfg := localConfig()
	cfg.SuccessStatus = []string{"200", "290-299"}
	if res := send(newClient(t, cfg, Deps{}), request(srv.url())); res.Outcome != pipeline.OutcomeSuccess {
		t.Errorf("got %s", res.Outcome)
	}
}

// TestLargeAnswers are answers over a limit that are still judged by status.
func TestLargeAnswers(t *testing.T) {
	chunk := "1000\r\n" + strings.Repeat("a", 0x1000) + "\r\n"
	for _, tc := range []struct {
		name, head string
		body       func(p *peer)
		kept       int
		truncated  bool
		reused     bool
	}{
		{"within the limit", "Content-Length: 1000", func(p *peer) { p.say(strings.Repeat("a", 1000)) }, 1000, false, true},
		{"at the limit", "Content-Length: 16384", func(p *peer) { p.say(strings.Repeat("a", 16384)) }, 16384, false, true},
		{"over the log's limit", "Content-Length: 100000", func(p *peer) { p.say(strings.Repeat("a", 100_000)) }, 16384, true, true},
		{"chunks over the log's limit", "Transfer-Encoding: chunked", func(p *peer) { p.say(strings.Repeat(chunk, 20) + "0\r\nX-T: 1\r\n\r\n") }, 16384, true, true},
		{"10 GB announced", "Content-Length: 10000000000", func(p *peer) { p.say(strings.Repeat("a", 1<<16)); p.hold() }, 16384, true, false},
		{"endless chunks", "Transfer-Encoding: chunked", func(p *peer) {
			for {
				if _, err := p.Write([]byte(chunk)); err != nil {
					return
				}
			}
		}, 16384, true, false},
		{"endless without length", "X-A: 1", func(p *peer) {
			for {
				if _, err := p.Write([]byte(chunk)); err != nil {
					return
				}
			}
		}, 16384, true, false},
		{"to the end of the connection", "X-A: 1", func(p *peer) { p.say("abc"); _ = p.Close() }, 3, false, false},
		{"HTTP/1.0 style close", "Connection: close\r\nContent-Length: 3", func(p *peer) { p.say("abc") }, 3, false, false},
		{"150 headers", strings.Repeat("X-Long-Name-Of-A-Header: 0123456789012345678901234567890123456789\r\n", 150) + "Content-Length: 2", func(p *peer) { p.say("ok") }, 2, false, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := serveRaw(t, func(p *peer) {
				for p.request() {
					p.say("HTTP/1.1 500 E\r\n" + tc.head + "\r\n\r\n")
					tc.body(p)
				}
			})
			c := newClient(t, localConfig(), Deps{})
			for range 2 {
				res := send(c, request(srv.url()))
				if res.Outcome != pipeline.OutcomeResponseError || res.StatusCode != 500 || len(res.ResponseBody) != tc.kept || res.ResponseTruncated != tc.truncated {
					t.Errorf("got %s %q, status %d, %d bytes, truncated %v", res.Outcome, res.Error, res.StatusCode, len(res.ResponseBody), res.ResponseTruncated)
				}
				if len(res.ResponseHeaders) > 8192 {
					t.Errorf("%d bytes of headers kept", len(res.ResponseHeaders))
				}
			}
			if want := map[bool]int64{true: 1, false: 2}[tc.reused]; srv.conns.Load() != want {
				t.Errorf("%d connections for two requests, want %d", srv.conns.Load(), want)
			}
		})
	}
}

func zipped(plain []byte) string {
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	_, _ = zw.Write(plain)
	_ = zw.Close()
	return b.String()
}

func TestGzipIsDecodedForTheLogWithinItsLimit(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		want       string
		truncated  bool
	}{
		{"small", zipped([]byte("hello")), "hello", false},
		{"bomb", zipped(make([]byte, 8<<20)), string(make([]byte, 16384)), true},
		{"not gzip", "plain", "plain", false},
		{"cut short by the receiver", zipped([]byte("hello"))[:14], "hel", false},
		{"empty", "", "", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := serveRaw(t, answer(fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s", len(tc.body), tc.body)))
			res := send(newClient(t, localConfig(), Deps{}), request(srv.url()))
			if res.Outcome != pipeline.OutcomeSuccess || string(res.ResponseBody) != tc.want || res.ResponseTruncated != tc.truncated {
				t.Errorf("got %s %q, %d bytes %.20q, truncated %v", res.Outcome, res.Error, len(res.ResponseBody), res.ResponseBody, res.ResponseTruncated)
			}
		})
	}
}

// TestEarlyAnswer is a receiver that refuses a large request unread.
func TestEarlyAnswer(t *testing.T) {
	srv := serveRaw(t, func(p *peer) {
		if _, err := p.br.ReadString('\n'); err == nil {
			p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
		}
		p.pause(50 * time.Millisecond)
	})
	req := request(srv.url())
	req.Payload = make([]byte, 20<<20)
	res := send(newClient(t, localConfig(), Deps{}), req)
	if res.Outcome != pipeline.OutcomeResponseError || res.StatusCode != 413 || string(res.ResponseBody) != "too large" {
		t.Errorf("got %s %q, status %d %q", res.Outcome, res.Error, res.StatusCode, res.ResponseBody)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"1": time.Second, "120": 2 * time.Minute, " 7 ": 7 * time.Second, "0": 0, "3600": time.Hour, "3601": time.Hour,
		"1000000000000": time.Hour, "99999999999999999999999": time.Hour, "-1": 0, "1.5": 0, "": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
		"Sat, 03 Jan 2026 03:04:05 GMT": time.Hour, "Fri, 02 Jan": 0,
	} {
		if got := retryAfter([]byte(value), now); got != want {
			t.Errorf("%q: %s, want %s", value, got, want)
		}
	}
	for status, want := range map[int]time.Duration{429: 7 * time.Second, 503: 7 * time.Second, 500: 0, 200: 0, 410: 0} {
		srv := serveRaw(t, answer(fmt.Sprintf("HTTP/1.1 %d X\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", status)))
		if res := send(newClient(t, localConfig(), Deps{}), request(srv.url())); res.RetryAfter != want {
			t.Errorf("status %d: %s", status, res.RetryAfter)
		}
	}
}
