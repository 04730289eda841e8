package main

import (
	"context"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestAskHealth(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			w.WriteHeader(http.StatusServiceUnavailable)
			_, _ = w.Write([]byte(`{"ready":false,"parts":[{"name":"registry","ready":true},{"name":"dispatcher","ready":false,"detail":"joining"}]}`))
		case "/broken":
			w.WriteHeader(http.StatusBadGateway)
		}
	}))
	defer srv.Close()
	for path, want := range map[string]string{"/healthz": "", "/readyz": "not ready: dispatcher: joining", "/broken": "it answered 502 Bad Gateway"} {
		err := askHealth(context.Background(), http.DefaultClient, srv.URL+path)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	srv.Close()
	if err := askHealth(context.Background(), http.DefaultClient, srv.URL+"/healthz"); err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody listens: %v", err)
	}
}

func TestLocalAddr(t *testing.T) {
	for in, want := range map[string]string{"0.0.0.0:8080": "127.0.0.1:8080", ":8080": "127.0.0.1:8080", "[::]:1": "127.0.0.1:1", "10.0.0.1:8080": "10.0.0.1:8080", "localhost:8080": "localhost:8080"} {
		if got := localAddr(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}

// Over TLS the certificate must be the very one that is configured.
func TestAskHealthOverTLS(t *testing.T) {
	srv := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer srv.Close()
	dir := t.TempDir()
	write := func(name string, der []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := write("good.pem", srv.Certificate().Raw)
	other := write("other.pem", append([]byte{0}, srv.Certificate().Raw...))
	for file, want := range map[string]string{good: "", other: "another certificate"} {
		client, scheme, err := healthClient(file)
		if err == nil {
			err = askHealth(context.Background(), client, scheme+strings.TrimPrefix(srv.URL, "https://")+"/healthz")
		}
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", file, err)
		}
	}
	if _, _, err := healthClient(filepath.Join(dir, "none")); err == nil {
		t.Error("a certificate that is not there is taken")
	}
}
