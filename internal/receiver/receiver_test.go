package receiver

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start runs a receiver until the test ends.
func start(t *testing.T, cfg Config) *Receiver {
	t.Helper()
	r, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return r
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

func post(t *testing.T, url, delivery, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodPost, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("webhook-id", delivery)
	req.Header.Set("X-Hookline-Subscription", "sub-1")
	req.Header.Set("X-Hookline-Attempt", "2")
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(b)
}

func TestPathsDoWhatTheySay(t *testing.T) {
	r := start(t, Config{Status: 202, FailFirst: 1})
	for _, tc := range []struct {
		path, delivery string
		want           int
	}{
		{"/ok", "a", 200},
		{"/ok/erp", "a", 200},
		{"/gone", "a", 410},
		{"/status/503", "a", 503},
		{"/status/299/x", "a", 299},
		{"/status/99", "a", 400},
		{"/slow?ms=1", "a", 200},
		{"/fail?first=2", "b", 503},
		{"/fail?first=2", "b", 503},
		{"/fail?first=2", "c", 503},
		{"/fail?first=2", "b", 200},
		{"/down", "a", 503},
		{"/down?from=1h&for=1h", "a", 200},
		{"/down?for=soon", "a", 400},
		{"/else", "d", 503},
		{"/else", "d", 202},
	} {
		if got, _ := post(t, r.URL()+tc.path, tc.delivery, "{}"); got != tc.want {
			t.Errorf("%s (delivery %s): status %d, want %d", tc.path, tc.delivery, got, tc.want)
		}
	}
}

func TestDownEndsWithItsWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	r := start(t, Config{Now: func() time.Time { return now }})
	for _, step := range []struct {
		age  time.Duration
		want int
	}{{0, 200}, {5 * time.Second, 503}, {44 * time.Second, 503}, {45 * time.Second, 200}} {
		now = time.Unix(1000, 0).Add(step.age)
		if got, _ := post(t, r.URL()+"/down?from=5s&for=40s", "a", ""); got != step.want {
			t.Errorf("after %s: status %d, want %d", step.age, got, step.want)
		}
	}
}

func TestLedgerIsWrittenBeforeTheAnswer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ledger.jsonl")
	r := start(t, Config{Ledger: path, KeepBodies: true})
	for _, body := range []string{`{"n":1}`, `{"n":2}`} {
		post(t, r.URL()+"/ok/x", "dlv_1", body)
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := bytes.Split(bytes.TrimSpace(raw), []byte("\n"))
		var got Request
		if err := json.Unmarshal(lines[len(lines)-1], &got); err != nil {
			t.Fatal(err)
		}
		if got.Body != body || got.DeliveryID != "dlv_1" || got.Subscription != "sub-1" || got.Attempt != 2 ||
			got.Method != "POST" || got.Path != "/ok/x" || got.Status != 200 || got.BodyBytes != len(body) {
			t.Errorf("ledger has %+v", got)
		}
	}
	if got := r.Requests(); len(got) != 2 || got[1].Body != `{"n":2}` || r.Total() != 2 {
		t.Errorf("memory has %+v", got)
	}
}

func TestScriptAnswers(t *testing.T) {
	r := start(t, Config{Script: func(req *Request) Reply {
		if req.DeliveryID == "drop" {
			return Reply{Close: true}
		}
		return Reply{Status: 429, RetryAfter: "7", Body: "later"}
	}})
	if status, body := post(t, r.URL(), "a", ""); status != 429 || body != "later" {
		t.Errorf("got %d %q", status, body)
	}
	req, _ := http.NewRequest(http.MethodPost, r.URL(), nil)
	req.Header.Set("webhook-id", "drop")
	if res, err := client.Do(req); !errors.Is(err, io.EOF) {
		t.Errorf("a dropped request got %v, %v", res, err)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	r := start(t, Config{MaxRequests: 4})
	for range 11 {
		post(t, r.URL()+"/ok", "a", "")
	}
	if n := len(r.Requests()); n > 4 || r.Total() != 11 {
		t.Errorf("%d of %d requests kept", n, r.Total())
	}
}

func TestWaitAndStopDuringADelay(t *testing.T) {
	r, err := New(Config{Delay: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 2)
	go func() { done <- r.Run(ctx) }()
	go func() {
		res, err := client.Post(r.URL(), "application/json", nil)
		if err == nil {
			err = res.Body.Close()
		}
		done <- err
	}()
	limit, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	if err := r.Wait(limit, 1); err != nil {
		t.Fatal(err)
	}
	cancel() // the answer goes out, the delay cut short
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := r.Wait(ctx, 2); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with an ended context: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"status":  {Status: 99},
		"address": {Addr: "256.0.0.1:1"},
		"ledger":  {Ledger: filepath.Join(t.TempDir(), "no", "such", "folder")},
	} {
		if r, err := New(cfg); err == nil {
			t.Errorf("%s: accepted as %s", name, r.URL())
		}
	}
}
