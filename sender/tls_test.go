package sender

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// tlsReceivers fail in the handshake, or after it refuse who we are.
func tlsReceivers(t *testing.T, ca *tls.Certificate) []hostile {
	t.Helper()
	otherCA, _ := authority(t)
	with := func(change func(*x509.Certificate), parent *tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{certificate(t, change, parent)}}
	}
	good := with(nil, ca)
	wantsCert := good.Clone()
	wantsCert.ClientAuth = tls.RequireAnyClientCert
	wantsCert12 := wantsCert.Clone()
	wantsCert12.MaxVersion = tls.VersionTLS12
	old := good.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 //nolint:gosec // that it is refused is what is tested
	future := func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }
	past := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	elsewhere := func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{canary + ".example"} }
	failed := pipeline.OutcomeTLSError
	list := []hostile{
		{name: "expired", tls: with(past, ca), outcome: failed, text: "certificate has expired"},
		{name: "not yet valid", tls: with(future, ca), outcome: failed, text: "certificate has expired"},
		{name: "wrong name", tls: with(elsewhere, ca), outcome: failed, text: "Hostname/IP does not match certificate's altnames"},
		{name: "self-signed", tls: with(nil, nil), outcome: failed, text: "self-signed certificate"},
		{name: "unknown authority", tls: with(nil, &otherCA), outcome: failed, text: "unable to verify the first certificate"},
		{name: "TLS 1.1", tls: old, outcome: failed, text: "TLS refused by the receiver: protocol version not supported"},
		{name: "client certificate wanted, 1.2", tls: wantsCert12, outcome: failed, text: "TLS refused by the receiver: "},
		// In TLS 1.3 a refusal of ours comes after the handshake, maybe after the request.
		{name: "client certificate wanted, 1.3", tls: wantsCert, early: true, outcome: failed, text: "TLS refused by the receiver: "},
	}
	for i := range list {
		list[i].handle = func(p *peer) {
			p.request()
			// Closing with the request unread would reset the alert away.
			_, _ = io.Copy(io.Discard, p.Conn.(*tls.Conn).NetConn())
		}
	}
	list = append(list, []hostile{
		{name: "not TLS", handle: func(p *peer) { p.say("HTTP/1.1 400 " + canary + "\r\n\r\n"); p.hold() }, outcome: failed, text: "TLS handshake failed: the receiver does not speak TLS"},
		{name: "endless TLS record", handle: func(p *peer) { p.flood("\x16\x03\x03\x40\x00" + strings.Repeat("\x02", 0x4000)) }, outcome: failed, text: "TLS "},
		{name: "RST in the handshake", handle: func(p *peer) { _, _ = p.br.ReadByte(); p.reset() }, outcome: failed, text: "client network socket disconnected"},
		{name: "FIN in the handshake", handle: func(*peer) {}, outcome: failed, text: "client network socket disconnected"},
		{name: "tarpit", handle: (*peer).hold, outcome: pipeline.OutcomeTimeout, text: "request timeout 300ms: in the TLS handshake", timeout: true},
		{name: "TLS byte by byte", handle: func(p *peer) {
			for range 1000 {
				p.say("\x16")
				p.pause(settle)
			}
		}, outcome: failed, text: "TLS "},
	}...)
	for i := range list {
		list[i].rawTLS, list[i].noRequest = list[i].tls == nil, true
	}
	return list
}
