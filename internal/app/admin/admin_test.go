package admin

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestValidate(t *testing.T) {
	for _, tt := range []struct {
		addr, token, want string
		tls               TLSConfig
	}{
		{addr: "127.0.0.1:8080", token: "", want: ""},
		{addr: "[::1]:8080", token: "", want: ""},
		{addr: "localhost:8080", token: "", want: ""},
		{addr: "off", token: "", want: ""},
		{addr: "0.0.0.0:8080", token: "0123456789abcdef", want: ""},
		{addr: "0.0.0.0:8080", token: "", want: "has no token"},
		{addr: ":8080", token: "", want: "has no token"},
		{addr: "10.0.0.1:8080", token: "", want: "has no token"},
		{addr: "8080", token: "", want: "not an address"},
		{addr: "0.0.0.0:8080", token: "short", want: "shorter than"},
		{addr: "0.0.0.0:8443", tls: TLSConfig{CertFile: "c", KeyFile: "k"}, want: "has no token"},
		{addr: "0.0.0.0:8443", tls: TLSConfig{CertFile: "c", KeyFile: "k", ClientCAFile: "ca"}},
		{addr: "0.0.0.0:8443", tls: TLSConfig{ClientCAFile: "ca"}, want: "need TLS"},
		{addr: "127.0.0.1:8443", tls: TLSConfig{CertFile: "c"}, want: "needs its key"},
	} {
		err := (&Config{Addr: tt.addr, Token: tt.token, TLS: tt.tls}).Validate()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

// serve runs a server until the test ends and returns its URL.
func serve(t *testing.T, c Config, parts []Part) string {
	t.Helper()
	c.Addr = "127.0.0.1:0"
	s, err := Listen(&c, Deps{
		Parts: func() []Part { return parts }, Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + s.Addr()
}

func get(t *testing.T, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestReadyNamesEachPart(t *testing.T) {
	url := serve(t, Config{}, []Part{
		{Name: "registry", Ready: true},
		{Name: "dispatcher", Detail: "recovering partitions"},
		{Name: "sink", Ready: true, Degraded: true, Detail: "ClickHouse away"},
	})
	code, body := get(t, url+"/readyz", "")
	if code != http.StatusServiceUnavailable {
		t.Errorf("status %d, want 503", code)
	}
	var r Readiness
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		t.Fatal(err)
	}
	if r.Ready || len(r.Parts) != 3 || r.Parts[1].Name != "dispatcher" || r.Parts[1].Ready || !r.Parts[2].Degraded {
		t.Errorf("%s", body)
	}
	if code, body := get(t, url+"/healthz", ""); code != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
}

func TestDegradedIsReady(t *testing.T) {
	url := serve(t, Config{}, []Part{{Name: "sink", Ready: true, Degraded: true}})
	if code, body := get(t, url+"/readyz", ""); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
}

func TestTokenGuardsMetrics(t *testing.T) {
	const token = "0123456789abcdef"
	url := serve(t, Config{Token: token}, nil)
	for given, want := range map[string]int{"": 401, "wrong": 401, token + "x": 401, token: 200} {
		if code, _ := get(t, url+"/metrics", given); code != want {
			t.Errorf("token %q: status %d, want %d", given, code, want)
		}
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, _ := get(t, url+path, ""); code != http.StatusOK {
			t.Errorf("%s asks probes for the token: %d", path, code)
		}
	}
}

// TestMetricsUnderAForeignName: on a loopback address a page of another site,
// whose name was made to lead here, gets neither metrics nor profiles.
func TestMetricsUnderAForeignName(t *testing.T) {
	h := Handler(&Config{Addr: "127.0.0.1:8080", Hosts: []string{"hookline.example"}},
		Deps{Parts: func() []Part { return nil }, Gatherer: prometheus.NewRegistry()})
	for host, want := range map[string]int{
		"evil.example:8080": http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest,
		"127.0.0.1:8080": http.StatusOK, "localhost:8080": http.StatusOK, "[::1]:8080": http.StatusOK, "hookline.example": http.StatusOK,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://"+host+"/metrics", http.NoBody))
		if w.Code != want {
			t.Errorf("/metrics of %s: status %d, want %d", host, w.Code, want)
		}
	}
}

// TestAnswersAreNotCutOff: a test request may take REQUEST_TIMEOUT and more.
func TestAnswersAreNotCutOff(t *testing.T) {
	for _, within := range []time.Duration{0, 20 * time.Second, 5 * time.Minute} {
		s, err := Listen(&Config{Addr: "127.0.0.1:0"}, Deps{
			Parts: func() []Part { return nil }, Gatherer: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), RestWithin: within,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := s.http.WriteTimeout; got < within+headerTimeout || got < writeTimeout {
			t.Errorf("answers that take %v are cut off after %v", within, got)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestProfilesNeedTheSwitchAndTheToken: without both there are none, and the
// command line is never shown.
func TestProfilesNeedTheSwitchAndTheToken(t *testing.T) {
	const token = "0123456789abcdef"
	if err := (&Config{Addr: "127.0.0.1:8080", Profile: true}).Validate(); err == nil || !strings.Contains(err.Error(), "HOOKLINE_ADMIN_TOKEN") {
		t.Errorf("profiles without a token: %v", err)
	}
	status := func(url, token string) int {
		req, err := http.NewRequest(http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	off, on := serve(t, Config{Token: token}, nil), serve(t, Config{Token: token, Profile: true}, nil)
	for _, tt := range []struct {
		url, token string
		want       int
	}{
		{off + "/debug/pprof/heap", token, http.StatusNotFound},
		{on + "/debug/pprof/heap", "", http.StatusUnauthorized},
		{on + "/debug/pprof/profile", "wrong", http.StatusUnauthorized},
		{on + "/debug/pprof/heap", token, http.StatusOK},
		{on + "/debug/pprof/cmdline", token, http.StatusNotFound},
		{on + "/debug/pprof/", token, http.StatusNotFound},
	} {
		if got := status(tt.url, tt.token); got != tt.want {
			t.Errorf("%s with token %q: %d, want %d", tt.url, tt.token, got, tt.want)
		}
	}
}

func TestAddressInUse(t *testing.T) {
	url := serve(t, Config{}, nil)
	addr := strings.TrimPrefix(url, "http://")
	_, err := Listen(&Config{Addr: addr}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "HOOKLINE_ADMIN_ADDR") || strings.Count(err.Error(), addr) != 1 {
		t.Errorf("got %v", err)
	}
}
