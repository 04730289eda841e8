package sender

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func TestTLSFailures(t *testing.T) {
	ca, roots := authority(t)
	otherCA, _ := authority(t)
	with := func(change func(*x509.Certificate), parent *tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{certificate(t, change, parent)}}
	}
	good := with(nil, &ca)
	wantsCert := good.Clone()
	wantsCert.ClientAuth = tls.RequireAnyClientCert
	wantsCert12 := wantsCert.Clone()
	wantsCert12.MaxVersion = tls.VersionTLS12
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 //nolint:gosec // that it is refused is what is tested
	for _, tc := range []struct {
		name    string
		config  *tls.Config // nil: raw decides
		raw     func(*peer)
		outcome pipeline.Outcome
		text    string
	}{
		{"expired", with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, &ca), nil, pipeline.OutcomeTLSError, "certificate has expired"},
		{"not yet valid", with(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, &ca), nil, pipeline.OutcomeTLSError, "certificate has expired"},
		{"wrong name", with(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{canary + ".example"} }, &ca), nil, pipeline.OutcomeTLSError, "Hostname/IP does not match certificate's altnames"},
		{"self-signed", with(nil, nil), nil, pipeline.OutcomeTLSError, "self-signed certificate"},
		{"unknown authority", with(nil, &otherCA), nil, pipeline.OutcomeTLSError, "unable to verify the first certificate"},
		{"TLS 1.1", old, nil, pipeline.OutcomeTLSError, "TLS refused by the receiver: protocol version not supported"},
		{"client certificate wanted, 1.2", wantsCert12, nil, pipeline.OutcomeTLSError, "TLS refused by the receiver: "},
		{"client certificate wanted, 1.3", wantsCert, nil, pipeline.OutcomeTLSError, "TLS refused by the receiver: "},
		{"not TLS", nil, func(p *peer) { p.say("HTTP/1.1 400 " + canary + "\r\n\r\n"); p.hold() }, pipeline.OutcomeTLSError, "TLS handshake failed: the receiver does not speak TLS"},
		{"RST in the handshake", nil, func(p *peer) { _, _ = p.br.ReadByte(); p.reset() }, pipeline.OutcomeTLSError, "client network socket disconnected"},
		{"FIN in the handshake", nil, func(*peer) {}, pipeline.OutcomeTLSError, "client network socket disconnected"},
		{"tarpit", nil, (*peer).hold, pipeline.OutcomeTimeout, "request timeout 400ms: in the TLS handshake"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			handle := tc.raw
			if tc.config != nil {
				ln, handle = tls.NewListener(ln, tc.config), func(p *peer) {
					p.request()
					// Closing with the request unread would reset the alert away.
					_, _ = io.Copy(io.Discard, p.Conn.(*tls.Conn).NetConn())
				}
			}
			srv := serveRawOn(t, ln, handle)
			c := newClient(t, localConfig(), Deps{RootCAs: roots})
			req := request("https://" + srv.addr() + "/")
			limit := 5 * time.Second
			if tc.outcome == pipeline.OutcomeTimeout {
				limit = 400 * time.Millisecond
			}
			req.Subscription.Timeout = limit
			res := send(c, req)
			if res.Outcome != tc.outcome || !strings.HasPrefix(res.Error, tc.text) || strings.Contains(res.Error, canary) {
				t.Errorf("got %s %q, want %s %q", res.Outcome, res.Error, tc.outcome, tc.text)
			}
			// In TLS 1.3 a refusal of ours comes after the handshake, maybe after the request.
			if res.RequestWritten && tc.config != wantsCert || srv.requests.Load() != 0 || srv.conns.Load() != 1 || res.Elapsed > limit+overrun {
				t.Errorf("written %v, requests %d, connections %d, took %s", res.RequestWritten, srv.requests.Load(), srv.conns.Load(), res.Elapsed)
			}
		})
	}
}
