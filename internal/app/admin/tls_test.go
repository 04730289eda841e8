package admin

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// ask gets a page over TLS, with a client certificate or without.
func ask(t *testing.T, ca *testkit.Authority, client *testkit.Certificate, url, token string) (int, error) {
	t.Helper()
	cfg := &tls.Config{RootCAs: ca.Pool}
	if client != nil {
		cfg.Certificates = []tls.Certificate{client.TLS}
	}
	tr := &http.Transport{TLSClientConfig: cfg, DisableKeepAlives: true}
	defer tr.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// TestClientCertificates: only who has one of the authority gets more than
// health and readiness.
func TestClientCertificates(t *testing.T) {
	ca, strangers := testkit.NewAuthority(t), testkit.NewAuthority(t)
	server, good, bad := ca.Issue(t, nil), ca.Issue(t, nil), strangers.Issue(t, nil)
	own := TLSConfig{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: ca.File}
	const token = "0123456789abcdef"
	for _, tt := range []struct {
		name          string
		cfg           Config
		client        *testkit.Certificate
		token         string
		metrics, live int // 0: the handshake fails
	}{
		{"no certificate", Config{TLS: own}, nil, "", 403, 200},
		{"a stranger's", Config{TLS: own}, bad, "", 0, 0},
		{"ours", Config{TLS: own}, good, "", 200, 200},
		{"ours, no token", Config{TLS: own, Token: token}, good, "", 401, 200},
		{"ours and the token", Config{TLS: own, Token: token}, good, token, 200, 200},
		{"the token alone", Config{TLS: own, Token: token}, nil, token, 403, 200},
		{"TLS and token", Config{TLS: TLSConfig{CertFile: server.CertFile, KeyFile: server.KeyFile}, Token: token}, nil, token, 200, 200},
		{"profiles", Config{TLS: own, Profile: true}, good, "", 200, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			url := "https://" + strings.TrimPrefix(serve(t, tt.cfg, nil), "http://")
			pages := map[string]int{"/metrics": tt.metrics, "/healthz": tt.live, "/readyz": tt.live}
			if tt.cfg.Profile {
				pages["/debug/pprof/goroutine"] = tt.metrics
			}
			for page, want := range pages {
				if code, err := ask(t, ca, tt.client, url+page, tt.token); code != want || (err != nil) != (want == 0) {
					t.Errorf("%s: status %d, %v; want %d", page, code, err, want)
				}
			}
		})
	}
}

func TestTLSFilesAreTold(t *testing.T) {
	ca := testkit.NewAuthority(t)
	server := ca.Issue(t, nil)
	for name, tt := range map[string]struct {
		tls  TLSConfig
		want string
	}{
		"no such key":           {TLSConfig{CertFile: server.CertFile, KeyFile: "/nowhere"}, "HOOKLINE_ADMIN_TLS_CERT_FILE"},
		"another's key":         {TLSConfig{CertFile: server.CertFile, KeyFile: ca.Issue(t, nil).KeyFile}, "HOOKLINE_ADMIN_TLS_CERT_FILE"},
		"no such authority":     {TLSConfig{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: "/nowhere"}, "HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE"},
		"authority without PEM": {TLSConfig{CertFile: server.CertFile, KeyFile: server.KeyFile, ClientCAFile: server.KeyFile}, "no PEM certificate"},
	} {
		_, err := Listen(&Config{Addr: "127.0.0.1:0", TLS: tt.tls}, Deps{Log: slog.New(slog.DiscardHandler)})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestSlowAndLargeRequests end at the limits.
func TestSlowAndLargeRequests(t *testing.T) {
	addr := strings.TrimPrefix(serve(t, Config{}, nil), "http://")
	for name, text := range map[string]string{
		"large header": "GET /healthz HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", 2*maxHeader) + "\r\n\r\n",
		"slow header":  "GET /healthz HTTP/1.1\r\nHost: x\r\n",
	} {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		if err := c.SetDeadline(time.Now().Add(2 * headerTimeout)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, text)
		answer, err := io.ReadAll(c) // ends when the server closes
		if err != nil && !strings.Contains(err.Error(), "reset") || strings.Contains(string(answer), "200 OK") {
			t.Errorf("%s: %v, %q", name, err, answer)
		}
		_ = c.Close()
	}
}
