package sender

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// overrun is by how much a try may exceed its time limit: 100 ms, and more where
// the race detector slows everything down.
var overrun = 100 * time.Millisecond

// lateness measures, until the returned function is called, how late this
// process gets the processor at worst: on a machine that others keep busy that
// is no overrun of ours.
func lateness() func() time.Duration {
	const step = 5 * time.Millisecond
	done, worst := make(chan struct{}), make(chan time.Duration)
	go func() { // ends with the call of the returned function
		var late time.Duration
		timer := time.NewTimer(step)
		defer timer.Stop()
		for {
			begun := time.Now()
			select {
			case <-timer.C:
				late = max(late, time.Since(begun)-step)
				timer.Reset(step)
			case <-done:
				worst <- max(late, time.Since(begun)-step)
				return
			}
		}
	}()
	return func() time.Duration {
		close(done)
		return <-worst
	}
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Error(err)
	}
	return string(b)
}

// rawServer is a receiver that does to each connection what a test says.
type rawServer struct {
	ln       net.Listener
	conns    atomic.Int64
	requests atomic.Int64
	stop     chan struct{} // closed at the end of the test

	mu   sync.Mutex
	open map[net.Conn]bool
	done sync.WaitGroup
}

// peer is one connection to a rawServer.
type peer struct {
	net.Conn
	br  *bufio.Reader
	srv *rawServer
	n   int64 // 1 for the first connection
}

func serveRaw(t testing.TB, handle func(p *peer)) *rawServer {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveRawOn(t, ln, handle)
}

func serveRawOn(t testing.TB, ln net.Listener, handle func(p *peer)) *rawServer {
	s := &rawServer{ln: ln, stop: make(chan struct{}), open: map[net.Conn]bool{}}
	s.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			n := s.conns.Add(1)
			s.track(c, true)
			s.done.Go(func() {
				defer s.track(c, false)
				handle(&peer{Conn: c, br: bufio.NewReader(c), srv: s, n: n})
			})
		}
	})
	t.Cleanup(func() {
		close(s.stop)
		_ = ln.Close()
		s.mu.Lock()
		for c := range s.open {
			_ = c.Close()
		}
		s.mu.Unlock()
		s.done.Wait()
	})
	return s
}

func (s *rawServer) track(c net.Conn, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if open {
		s.open[c] = true
		return
	}
	delete(s.open, c)
	_ = c.Close()
}

func (s *rawServer) addr() string { return s.ln.Addr().String() }

func (s *rawServer) url() string { return "http://" + s.addr() + "/hook" }

// request reads one whole request; false at the end of the connection.
func (p *peer) request() bool {
	r, err := http.ReadRequest(p.br)
	if err != nil {
		return false
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return false
	}
	p.srv.requests.Add(1)
	return true
}

func (p *peer) say(text string) { _, _ = io.WriteString(p, text) }

// hold waits until the other side or the test ends.
func (p *peer) hold() { _, _ = io.Copy(io.Discard, p.br) }

// reset ends the connection with a RST.
func (p *peer) reset() {
	c := p.Conn
	if x, ok := c.(*tls.Conn); ok {
		c = x.NetConn()
	}
	_ = c.(*net.TCPConn).SetLinger(0)
	_ = c.Close()
}

// pause waits for d, or for the end of the test.
func (p *peer) pause(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.srv.stop:
	}
}

// answer replies to one request with text, then holds the connection.
func answer(text string) func(*peer) {
	return func(p *peer) {
		if p.request() {
			p.say(text)
			p.hold()
		}
	}
}

// certificate makes one for 127.0.0.1 and names, signed by parent or by itself.
func certificate(t testing.TB, change func(*x509.Certificate), parent *tls.Certificate) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "canary-name.example"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if change != nil {
		change(tmpl)
	}
	signer, signerKey := tmpl, key
	if parent != nil {
		signer, signerKey = parent.Leaf, parent.PrivateKey.(*ecdsa.PrivateKey)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, signer, &key.PublicKey, signerKey)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// authority is a CA and the pool that trusts it.
func authority(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	ca := certificate(t, func(c *x509.Certificate) {
		c.IsCA, c.BasicConstraintsValid, c.KeyUsage = true, true, x509.KeyUsageCertSign
		c.Subject.CommonName = "test authority"
		c.IPAddresses = nil
	}, nil)
	pool := x509.NewCertPool()
	pool.AddCert(ca.Leaf)
	return ca, pool
}
