package sender

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// closesIdle answers, and closes a connection that was idle for that long after
// an answer.
func closesIdle(idle time.Duration) func(*peer) {
	return func(p *peer) {
		for p.request() {
			p.say(ok200)
			if err := p.SetReadDeadline(time.Now().Add(idle)); err != nil {
				return
			}
		}
	}
}

// TestIdleClose posts around the moment at which the receiver closes idle
// connections: none fails, and the receiver sees each request once.
func TestIdleClose(t *testing.T) {
	for _, idle := range []time.Duration{time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		t.Run(idle.String(), func(t *testing.T) {
			t.Parallel()
			srv := serveRaw(t, closesIdle(idle))
			c := newClient(t, localConfig(), Deps{})
			resends, posts := 0, 150
			for i := range posts {
				res := send(c, request(srv.url()))
				if res.Outcome != pipeline.OutcomeSuccess {
					t.Fatalf("post %d: %s %q", i, res.Outcome, res.Error)
				}
				resends += res.Resends
				// The race itself is what is tested: no signal can stand in for it.
				time.Sleep(idle + time.Duration(i%11-5)*100*time.Microsecond)
			}
			if got := srv.requests.Load(); got != int64(posts) {
				t.Errorf("receiver saw %d requests for %d posts (%d resends)", got, posts, resends)
			}
		})
	}
}

// closesAfterRequest answers the first request of each connection and closes on
// the second without a word.
func closesAfterRequest(how func(p *peer)) func(*peer) {
	return func(p *peer) {
		if p.request() {
			p.say(ok200)
		}
		if p.request() {
			how(p)
		}
	}
}

func TestResendOnlyWhereItIsSafe(t *testing.T) {
	fin := func(*peer) {}
	for _, tc := range []struct {
		name     string
		off      bool
		handle   func(*peer)
		resends  int
		outcome  pipeline.Outcome
		requests int64
	}{
		{"kept connection, FIN", false, closesAfterRequest(fin), 1, pipeline.OutcomeSuccess, 3},
		{"kept connection, RST", false, closesAfterRequest((*peer).reset), 1, pipeline.OutcomeSuccess, 3},
		{"switched off", true, closesAfterRequest(fin), 0, pipeline.OutcomeConnectError, 2},
		{"after a byte of an answer", false, closesAfterRequest(func(p *peer) { p.say("H") }), 0, pipeline.OutcomeConnectError, 2},
		{"after more than a second", false, closesAfterRequest(func(p *peer) { p.pause(resendWithin + 50*time.Millisecond) }), 0, pipeline.OutcomeConnectError, 2},
		{"only once", false, func(p *peer) {
			if p.request() && p.n == 1 {
				p.say(ok200)
				p.request()
			}
		}, 1, pipeline.OutcomeConnectError, 3},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := serveRaw(t, tc.handle)
			cfg := localConfig()
			cfg.ResendStale = !tc.off
			c := newClient(t, cfg, Deps{})
			if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeSuccess {
				t.Fatalf("first: %s %q", res.Outcome, res.Error)
			}
			res := send(c, request(srv.url()))
			if res.Outcome != tc.outcome || res.Resends != tc.resends || srv.requests.Load() != tc.requests {
				t.Errorf("got %s %q, resends %d, requests %d", res.Outcome, res.Error, res.Resends, srv.requests.Load())
			}
		})
	}
}

// TestForgedAnswer is a receiver that sends an answer nobody asked for: the next
// request gets its own.
func TestForgedAnswer(t *testing.T) {
	const forged = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nFORGED"
	ca, roots := authority(t)
	cert := certificate(t, nil, &ca)
	for name, first := range map[string]func(p *peer){
		"with the answer":   func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + forged) },
		"after the answer":  func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"); p.say(forged) },
		"as a body of 204":  func(p *peer) { p.say("HTTP/1.1 204 No Content\r\nContent-Length: 44\r\n\r\n" + forged) },
		"length too small":  func(p *peer) { p.say("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nabc") },
		"after chunks":      func(p *peer) { p.say("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + forged) },
		"as a lone newline": func(p *peer) { p.say(ok200 + "\r\n") },
	} {
		for _, secure := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				said := make(chan struct{})
				handle := func(p *peer) {
					if !p.request() {
						return
					}
					if p.n > 1 {
						p.say("HTTP/1.1 500 E\r\nContent-Length: 4\r\n\r\nREAL")
						return
					}
					first(p)
					close(said)
					p.hold()
				}
				ln, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				scheme := "http://"
				if secure {
					scheme, ln = "https://", tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}})
				}
				srv := serveRawOn(t, ln, handle)
				c := newClient(t, localConfig(), Deps{RootCAs: roots})
				if res := send(c, request(scheme+srv.addr()+"/")); res.Outcome != pipeline.OutcomeSuccess {
					t.Fatalf("first: %s %q", res.Outcome, res.Error)
				}
				<-said
				res := send(c, request(scheme+srv.addr()+"/"))
				if res.StatusCode != 500 || string(res.ResponseBody) != "REAL" {
					t.Errorf("second: %s %q, status %d %q", res.Outcome, res.Error, res.StatusCode, res.ResponseBody)
				}
			})
		}
	}
}

func TestConnectionsAreKept(t *testing.T) {
	ca, roots := authority(t)
	cert := certificate(t, nil, &ca)
	for name, version := range map[string]uint16{"plain": 0, "TLS 1.2": tls.VersionTLS12, "TLS 1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			scheme := "http://"
			if version != 0 {
				scheme = "https://"
				ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: version})
			}
			srv := serveRawOn(t, ln, func(p *peer) {
				for p.request() {
					p.say(ok200)
				}
			})
			c := newClient(t, localConfig(), Deps{RootCAs: roots})
			for i := range 20 {
				res := send(c, request(scheme+srv.addr()+"/"))
				if res.Outcome != pipeline.OutcomeSuccess {
					t.Fatalf("%s %q", res.Outcome, res.Error)
				}
				if (i == 0) != (res.Connect > 0) || (i == 0 && version != 0) != (res.TLS > 0) {
					t.Errorf("post %d: connect %s, TLS %s", i, res.Connect, res.TLS)
				}
			}
			if srv.conns.Load() != 1 {
				t.Errorf("20 posts over %d connections", srv.conns.Load())
			}
		})
	}
}
