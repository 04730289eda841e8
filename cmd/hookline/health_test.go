package main

import (
	"context"
	"net/http"
	"net/http/httptest"
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
	addr := strings.TrimPrefix(srv.URL, "http://")
	for path, want := range map[string]string{"/healthz": "", "/readyz": "not ready: dispatcher: joining", "/broken": "it answered 502 Bad Gateway"} {
		err := askHealth(context.Background(), addr, path)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	srv.Close()
	if err := askHealth(context.Background(), addr, "/healthz"); err == nil || !strings.Contains(err.Error(), "refused") {
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
