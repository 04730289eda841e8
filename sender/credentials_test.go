package sender

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

const secretCanary = "CANARYcanaryCANARY"

func bearer(ref string) *pipeline.Auth {
	return &pipeline.Auth{Bearer: &pipeline.BearerAuth{Secret: ref}}
}

func TestBearerAndBasic(t *testing.T) {
	url, got := endpointServer(t, nil)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"TOKEN": secretCanary, "PASSWORD": "pässword:" + secretCanary})})
	for _, tt := range []struct {
		auth *pipeline.Auth
		want func(h http.Header) bool
	}{
		{bearer("env:TOKEN"), func(h http.Header) bool { return h.Get("Authorization") == "Bearer "+secretCanary }},
		{&pipeline.Auth{Basic: &pipeline.BasicAuth{Username: "user", Secret: "env:PASSWORD"}}, func(h http.Header) bool {
			user, password, ok := (&http.Request{Header: h}).BasicAuth()
			return ok && user == "user" && password == "pässword:"+secretCanary
		}},
	} {
		req := request(url)
		req.Subscription.Auth = tt.auth
		*got = nil
		res := send(c, req)
		if res.Outcome != pipeline.OutcomeSuccess || !tt.want((*got)[0].header) {
			t.Errorf("%s %q: %v", res.Outcome, res.Error, *got)
		}
		if logged := string(res.RequestHeaders); !strings.Contains(logged, "Authorization: [redacted]\r\n") || strings.Contains(logged, secretCanary) {
			t.Errorf("logged %q", logged)
		}
	}
}

// TestSecretsThatAreNotToBeHad: nothing is sent, and no attempt is spent.
func TestSecretsThatAreNotToBeHad(t *testing.T) {
	url, got := endpointServer(t, nil)
	keys, err := secret.ParseKeys("k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
	if err != nil {
		t.Fatal(err)
	}
	moved, err := keys.Seal("another", secret.New(secretCanary))
	if err != nil {
		t.Fatal(err)
	}
	r := variables(map[string]string{"NEW": newHMAC, "BAD": secretCanary, "LINES": secretCanary + "\r\nX-Injected: 1", "EMPTY": ""})
	r.Keys = keys
	now := time.Now()
	c := newClient(t, localConfig(), Deps{Secrets: r})
	expired := signing(pipeline.SigningStandard, "env:NEW")
	expired.Secrets[0].ExpiresAt = now.Add(-time.Hour)
	for _, tt := range []struct {
		name string
		sub  pipeline.Subscription
		want string
	}{
		{"not set", pipeline.Subscription{Auth: bearer("env:NONE")}, "secret: auth.bearer: variable NONE is not set"},
		{"empty", pipeline.Subscription{Auth: bearer("env:EMPTY")}, "secret: auth.bearer: variable EMPTY is empty"},
		{"header injection", pipeline.Subscription{Auth: bearer("env:LINES")}, "secret: auth.bearer: the secret has characters that a header cannot carry"},
		{"moved", pipeline.Subscription{Auth: bearer(moved.Stored())}, "secret: auth.bearer: the sealed secret was changed"},
		{"in clear", pipeline.Subscription{Auth: bearer(secretCanary)}, "secret: auth.bearer: neither a reference"},
		{"not a key", pipeline.Subscription{Signing: signing(pipeline.SigningStandard, "env:BAD")}, "secret: signing: wrong prefix"},
		{"one of two", pipeline.Subscription{Signing: signing(pipeline.SigningStandard, "env:NEW", "env:NONE")}, "secret: signing.secrets.1: variable NONE is not set"},
		{"no secrets", pipeline.Subscription{Signing: signing(pipeline.SigningStandard)}, "secret: signing: no signing secrets"},
		{"expired", pipeline.Subscription{Signing: expired}, "secret: every signing secret has expired"},
		{"authority", pipeline.Subscription{CA: "env:BAD"}, "secret: tls.ca: no certificate in PEM"},
		{"client certificate", pipeline.Subscription{Auth: &pipeline.Auth{MTLS: &pipeline.MTLSAuth{Cert: "env:BAD", Key: "env:BAD"}}}, "secret: auth.mtls: certificate and key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			req := request(url)
			tt.sub.ID, tt.sub.Tenant, tt.sub.URL = "sub-1", "acme", url
			req.Subscription = &tt.sub
			res := send(c, req)
			if res.Outcome != pipeline.OutcomeLocalError || !strings.HasPrefix(res.Error, tt.want) || strings.Contains(res.Error, secretCanary) || res.RequestWritten {
				t.Errorf("got %s %q, want %q", res.Outcome, res.Error, tt.want)
			}
		})
	}
	if len(*got) != 0 {
		t.Errorf("%d requests were sent", len(*got))
	}
}

// TestFilesAreReadAgain: a new secret in a file is used within a second, without
// a restart; a file that got readable for others is not used any more.
func TestFilesAreReadAgain(t *testing.T) {
	url, got := endpointServer(t, nil)
	path := filepath.Join(t.TempDir(), "token")
	put := func(text string, mode os.FileMode) {
		t.Helper()
		if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	put("one", 0o600)
	var ahead atomic.Int64 // read by the sender's own goroutines too
	c := newClient(t, localConfig(), Deps{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }})
	req := request(url)
	req.Subscription.Auth = bearer("file:" + path)
	try := func() (string, *pipeline.Result) {
		*got = nil
		res := send(c, req)
		if len(*got) == 0 {
			return "", res
		}
		return (*got)[0].header.Get("Authorization"), res
	}
	if value, res := try(); value != "Bearer one" {
		t.Fatalf("got %q, %q", value, res.Error)
	}
	put("two", 0o600)
	if value, _ := try(); value != "Bearer one" {
		t.Errorf("the file is looked at for each request: %q", value)
	}
	ahead.Add(int64(lookAgain))
	if value, _ := try(); value != "Bearer two" {
		t.Errorf("the new secret is not used: %q", value)
	}
	put("three", 0o644)
	ahead.Add(int64(lookAgain))
	if value, res := try(); value != "" || res.Outcome != pipeline.OutcomeLocalError || !strings.Contains(res.Error, "has mode 0644") {
		t.Errorf("got %q, %s %q", value, res.Outcome, res.Error)
	}
	put("four", 0o600)
	ahead.Add(int64(lookAgain))
	if value, res := try(); value != "Bearer four" {
		t.Errorf("it does not recover: %q %q", value, res.Error)
	}
}

func pemOf(cert *tls.Certificate, t testing.TB) (chain, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// mtlsServer wants a client certificate of ca, and counts connections.
func mtlsServer(t testing.TB, ca *tls.Certificate, roots *x509.CertPool) (url string, conns func() int, names *[]string) {
	t.Helper()
	names = &[]string{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		*names = append(*names, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	opened := make(chan struct{}, 100)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateActive {
			opened <- struct{}{}
		}
	}
	srv.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t, nil, ca)}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL, func() int { return len(opened) }, names
}

func TestClientCertificateAndOwnAuthority(t *testing.T) {
	ca, roots := authority(t)
	named := func(name string) (string, string) {
		c := certificate(t, func(c *x509.Certificate) {
			c.Subject.CommonName = name
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		}, &ca)
		return pemOf(&c, t)
	}
	aliceCert, aliceKey := named("alice")
	bobCert, bobKey := named("bob")
	caPEM, _ := pemOf(&ca, t)
	url, _, names := mtlsServer(t, &ca, roots)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"ALICE": aliceKey, "BOB": bobKey, "CA": caPEM})})
	sub := func(id, cert, key, ca string) *pipeline.Request {
		req := request(url)
		req.Subscription = &pipeline.Subscription{ID: id, Tenant: "acme", URL: url, CA: ca}
		if cert != "" {
			req.Subscription.Auth = &pipeline.Auth{MTLS: &pipeline.MTLSAuth{Cert: cert, Key: key}}
		}
		return req
	}
	for _, tt := range []struct {
		req  *pipeline.Request
		want pipeline.Outcome
		text string
	}{
		{sub("none", "", "", ""), pipeline.OutcomeTLSError, "unable to verify the first certificate"},
		{sub("alice", aliceCert, "env:ALICE", "env:CA"), pipeline.OutcomeSuccess, ""},
		{sub("alice-again", aliceCert, "env:ALICE", caPEM), pipeline.OutcomeSuccess, ""},
		{sub("bob", bobCert, "env:BOB", caPEM), pipeline.OutcomeSuccess, ""},
		{sub("nobody", "", "", caPEM), pipeline.OutcomeTLSError, "TLS refused by the receiver: "},
		{sub("alice-untrusting", aliceCert, "env:ALICE", ""), pipeline.OutcomeTLSError, "unable to verify the first certificate"},
		{sub("mixed", aliceCert, "env:BOB", caPEM), pipeline.OutcomeLocalError, "secret: auth.mtls: certificate and key"},
	} {
		if res := send(c, tt.req); res.Outcome != tt.want || !strings.HasPrefix(res.Error, tt.text) {
			t.Errorf("%s: got %s %q", tt.req.Subscription.ID, res.Outcome, res.Error)
		}
	}
	if got := strings.Join(*names, " "); got != "alice alice bob" {
		t.Errorf("the receiver saw %q", got)
	}
	// One connection for each identity: alice's two subscriptions share one.
	if idle, busy := c.Connections(); idle != 2 || busy != 0 {
		t.Errorf("%d idle and %d busy connections, want 2 and 0", idle, busy)
	}
}
