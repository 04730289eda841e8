package sender

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// tlsTokenServer hands out a token to whoever gets through its TLS.
func tlsTokenServer(t *testing.T, cfg *tls.Config) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"access_token": "t1", "token_type": "Bearer", "expires_in": 60})
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.TLS = cfg
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL + "/token", asked
}

// tokenServerCase is a token server, and what comes of it.
type tokenServerCase struct {
	name    string
	tls     *tls.Config
	url     string // instead of tls
	scheme  string // instead of https
	ca      string
	outcome pipeline.Outcome
	text    string
}

func tokenServersOverTLS(t *testing.T) []tokenServerCase {
	t.Helper()
	ca, _ := authority(t)
	otherCA, _ := authority(t)
	with := func(change func(*x509.Certificate), parent *tls.Certificate) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{certificate(t, change, parent)}}
	}
	wantsCert := with(nil, &ca)
	wantsCert.ClientAuth = tls.RequireAnyClientCert
	old := with(nil, &ca)
	old.MinVersion, old.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 //nolint:gosec // that it is refused is what is tested
	own, _ := pemOf(&ca, t)
	trusted := pipeline.OutcomeSuccess
	failed := pipeline.OutcomeTLSError
	raw := func(handle func(*peer)) string {
		return strings.Replace(serveRaw(t, handle).url(), "http:", "https:", 1)
	}
	return []tokenServerCase{
		{name: "own authority", tls: with(nil, &ca), ca: own, outcome: trusted},
		{name: "own authority, not told of", tls: with(nil, &ca), outcome: failed, text: "unable to verify the first certificate"},
		{name: "another authority", tls: with(nil, &otherCA), ca: own, outcome: failed, text: "unable to verify the first certificate"},
		{name: "self-signed", tls: with(nil, nil), ca: own, outcome: failed, text: "self-signed certificate"},
		{
			name: "wrong name", tls: with(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{canary + ".example"} }, &ca), ca: own,
			outcome: failed, text: "Hostname/IP does not match certificate's altnames",
		},
		{name: "expired", tls: with(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }, &ca), ca: own, outcome: failed, text: "certificate has expired"},
		{name: "TLS 1.1", tls: old, ca: own, outcome: failed, text: "TLS refused by the receiver: protocol version not supported"},
		{name: "client certificate wanted", tls: wantsCert, ca: own, outcome: failed, text: "TLS refused by the receiver: "},
		{
			name: "no TLS there, HTTP", url: raw(func(p *peer) { p.say("HTTP/1.1 400 " + canary + "\r\n\r\n"); p.hold() }), ca: own,
			outcome: failed, text: "TLS handshake failed: the receiver does not speak TLS",
		},
		{
			name: "no TLS there, something else", url: raw(func(p *peer) { p.say(canary + canary + "\r\n"); p.hold() }), ca: own,
			outcome: failed, text: "TLS handshake failed: the receiver does not speak TLS",
		},
		{name: "plain HTTP to its TLS", tls: with(nil, &ca), scheme: "http:", ca: own, outcome: pipeline.OutcomeResponseError, text: "the token server answered 400"},
		{name: "FIN in the handshake", url: raw(func(*peer) {}), outcome: failed, text: "client network socket disconnected"},
		{name: "RST in the handshake", url: raw(func(p *peer) { _, _ = p.br.ReadByte(); p.reset() }), outcome: failed, text: "client network socket disconnected"},
		{name: "silent in the handshake", url: raw((*peer).hold), outcome: pipeline.OutcomeTimeout, text: "the token server did not answer in time"},
	}
}

// TestTokenServerTLS: a token server behind TLS is held to what endpoints are: the
// outcome says what is wrong with it, in the same words, no client secret reaches
// one that is not who it should be, and no request goes out without a token.
func TestTokenServerTLS(t *testing.T) {
	for _, tt := range tokenServersOverTLS(t) {
		t.Run(tt.name, func(t *testing.T) {
			endpoint, got := endpointServerConcurrent(t)
			url, asked := tt.url, new(atomic.Int64)
			if tt.tls != nil {
				url, asked = tlsTokenServer(t, tt.tls)
			}
			if tt.scheme != "" {
				url = strings.Replace(url, "https:", tt.scheme, 1)
			}
			c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"ID": secretCanary})})
			req := request(endpoint)
			req.Subscription.Auth, req.Subscription.CA, req.Subscription.Timeout = oauth(url), tt.ca, 10*time.Second
			if tt.outcome == pipeline.OutcomeTimeout {
				req.Subscription.Timeout = 300 * time.Millisecond
			}
			late := lateness()
			res := send(c, req)
			allowed := req.Subscription.Timeout + overrun + late()
			if tt.outcome == pipeline.OutcomeSuccess {
				if res.Outcome != tt.outcome || asked.Load() != 1 || got.Load() != 1 {
					t.Errorf("got %s %q, asked %d times, %d requests", res.Outcome, res.Error, asked.Load(), got.Load())
				}
				return
			}
			if res.Outcome != tt.outcome || !strings.HasPrefix(res.Error, "oauth2: "+tt.text) || !res.Outcome.SpendsAttempt() {
				t.Errorf("got %s %q, want %s %q", res.Outcome, res.Error, tt.outcome, tt.text)
			}
			if strings.Contains(res.Error, canary) || strings.Contains(res.Error, secretCanary) || res.RequestWritten || res.StatusCode != 0 {
				t.Errorf("told too much, or sent: %+v", res)
			}
			if asked.Load() != 0 || got.Load() != 0 {
				t.Errorf("the token server was asked %d times, %d requests went out without a token", asked.Load(), got.Load())
			}
			if res.Elapsed > allowed {
				t.Errorf("took %s, more than %s", res.Elapsed, allowed)
			}
		})
	}
}

// TestTokenServerClientCertificate: a token server may ask for the certificate
// that the subscription has.
func TestTokenServerClientCertificate(t *testing.T) {
	ca, pool := authority(t)
	cert := certificate(t, nil, &ca)
	authorityPEM, _ := pemOf(&ca, t)
	chain, key := pemOf(&cert, t)
	url, asked := tlsTokenServer(t, &tls.Config{
		Certificates: []tls.Certificate{certificate(t, nil, &ca)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool,
	})
	endpoint, got := endpointServerConcurrent(t)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{
		"ID": secretCanary, "KEY": key,
	})})
	req := request(endpoint)
	req.Subscription.Auth, req.Subscription.CA = oauth(url), authorityPEM
	req.Subscription.Auth.MTLS = &pipeline.MTLSAuth{Cert: chain, Key: "env:KEY"}
	if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess || asked.Load() != 1 || got.Load() != 1 {
		t.Errorf("got %s %q, asked %d times, %d requests", res.Outcome, res.Error, asked.Load(), got.Load())
	}
}
