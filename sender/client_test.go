package sender

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/pipeline"
)

func TestMain(m *testing.M) {
	if os.Getenv(churnReceiverEnv) != "" {
		churnReceiver()
		return
	}
	// The benchmarks run fasthttp's own server and client, whose goroutines
	// outlive them; the sender starts none of these.
	goleak.VerifyTestMain(twice{m},
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*HostClient).connsCleaner"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*TCPDialer).tcpAddrsClean"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"),
	)
}

// localConfig is what dev and demo use: plain http to loopback on any port.
func localConfig() Config {
	cfg := DefaultConfig()
	cfg.AllowHTTP, cfg.AllowCIDRs, cfg.AllowPorts = true, []string{"127.0.0.0/8"}, []string{"1-65535"}
	return cfg
}

func newClient(t testing.TB, cfg Config, deps Deps) *Client {
	t.Helper()
	if deps.Log == nil {
		deps.Log = slog.New(slog.DiscardHandler)
	}
	c, err := New(cfg, deps)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	if inBatches {
		openBatch(t, c)
	}
	return c
}

func request(url string) *pipeline.Request {
	return &pipeline.Request{
		DeliveryID:   "dlv_test",
		Attempt:      1,
		Subscription: &pipeline.Subscription{ID: "sub-1", Tenant: "acme", URL: url},
		Envelope:     &pipeline.Envelope{EventType: "COTTask.create"},
		Payload:      []byte(`{"a":1}`),
	}
}

func send(c *Client, req *pipeline.Request) *pipeline.Result {
	var res pipeline.Result
	sendWith(c, req, &res)
	return &res
}

func sendWith(c *Client, req *pipeline.Request, res *pipeline.Result) {
	if !sendInBatch(c, req, res) {
		c.Send(req, res)
	}
}

func TestSendDeliversPayloadAndHeaders(t *testing.T) {
	var got *http.Request
	var body strings.Builder
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got = r
		body.Reset()
		_, _ = body.WriteString(readAll(t, r.Body))
		w.Header().Set("X-Answer", "yes")
		_, _ = w.Write([]byte("thanks"))
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{Version: "1.2.3"})
	req := request(srv.URL + "/hook?x=1")
	req.Attempt = 3
	req.Envelope.Replay = "rpl_1"
	req.Subscription.Headers = []pipeline.Header{{Name: "X-Team", Value: "ops"}, {Name: "X-Api-Key", Value: "hush"}}
	res := send(c, req)
	if res.Outcome != pipeline.OutcomeSuccess || res.StatusCode != 200 || res.Error != "" || !res.RequestWritten {
		t.Fatalf("got %+v", res)
	}
	if got.Method != http.MethodPost || got.URL.String() != "/hook?x=1" || body.String() != `{"a":1}` {
		t.Errorf("receiver got %s %s %q", got.Method, got.URL, body.String())
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "User-Agent": "hookline/1.2.3", "Webhook-Id": "dlv_test",
		"X-Hookline-Event-Type": "COTTask.create", "X-Hookline-Attempt": "3", "X-Hookline-Subscription": "sub-1",
		"X-Hookline-Replay": "rpl_1", "X-Team": "ops", "X-Api-Key": "hush",
	} {
		if got.Header.Get(name) != want {
			t.Errorf("header %s is %q, want %q", name, got.Header.Get(name), want)
		}
	}
	logged := string(res.RequestHeaders)
	if !strings.Contains(logged, "webhook-id: dlv_test\r\n") || !strings.Contains(logged, "X-Api-Key: [redacted]\r\n") ||
		strings.Contains(logged, "hush") || strings.HasPrefix(logged, "POST") {
		t.Errorf("logged request headers %q", logged)
	}
	if string(res.ResponseBody) != "thanks" || !strings.Contains(string(res.ResponseHeaders), "X-Answer: yes\r\n") {
		t.Errorf("logged answer %q %q", res.ResponseHeaders, res.ResponseBody)
	}
	if res.Elapsed <= 0 || res.TTFB <= 0 || res.Connect <= 0 || res.Elapsed < res.TTFB+res.Connect {
		t.Errorf("timings %+v", res)
	}
	if idle, busy := c.Connections(); idle != 1 || busy != 0 {
		t.Errorf("connections idle %d, busy %d", idle, busy)
	}
}

func TestUnsafeValuesBecomeSafeHeaders(t *testing.T) {
	var got http.Header
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header }))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{})
	req := request(srv.URL)
	req.Envelope = &pipeline.Envelope{
		Format: pipeline.FormatSIGNL4, EventType: "a\r\nX-Forged: 1", Correlation: "ext 7", ContentType: "text/plain\nX-Forged: 1",
	}
	mustSend(t, c, req)
	if got.Get("X-Hookline-Event-Type") != "a%0D%0AX-Forged:%201" || got.Get("X-Forged") != "" ||
		got.Get("X-S4-ExternalID") != "ext 7" || got.Get("Content-Type") != "application/json" {
		t.Errorf("receiver got %v", got)
	}
	req.Envelope = &pipeline.Envelope{Format: pipeline.FormatSIGNL4, Correlation: "\u00fc", ContentType: "text/plain"}
	mustSend(t, c, req)
	if _, there := got["X-S4-Externalid"]; there || got.Get("Content-Type") != "text/plain" {
		t.Errorf("receiver got %v", got)
	}
}

func TestLargePayloadArrivesWhole(t *testing.T) {
	var got string
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = readAll(t, r.Body) }))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{})
	for _, size := range []int{0, 1, joinBytes, joinBytes + 1, 8 << 20} {
		req := request(srv.URL)
		req.Payload = []byte(strings.Repeat("x", size))
		mustSend(t, c, req)
		if got != string(req.Payload) {
			t.Errorf("%d bytes arrived as %d", size, len(got))
		}
	}
}

func TestSubscriptionCannotAskForMoreTimeThanTheLimit(t *testing.T) {
	srv := serveRaw(t, (*peer).hold)
	cfg := localConfig()
	cfg.RequestTimeout = 100 * time.Millisecond
	req := request(srv.url())
	req.Subscription.Timeout = time.Hour
	if res := send(newClient(t, cfg, Deps{}), req); res.Outcome != pipeline.OutcomeTimeout || res.Error != "request timeout 100ms" {
		t.Errorf("got %s %q", res.Outcome, res.Error)
	}
}

// TestResultIsReused sends a failure after a success with the same Result:
// nothing of the first is left.
func TestResultIsReused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Set-Cookie", "session=hush")
		_, _ = w.Write([]byte("body"))
	}))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{})
	var res pipeline.Result
	sendWith(c, request(srv.URL), &res)
	if headers := string(res.ResponseHeaders); strings.Contains(headers, "hush") || !strings.Contains(headers, "Set-Cookie: [redacted]\r\n") {
		t.Errorf("logged %q", headers)
	}
	sendWith(c, request("http://192.0.2.1/"), &res)
	if res.Outcome != pipeline.OutcomeBlocked || res.StatusCode != 0 || res.RequestWritten || res.TTFB != 0 ||
		len(res.RequestHeaders)+len(res.ResponseHeaders)+len(res.ResponseBody) != 0 {
		t.Errorf("got %+v", res)
	}
}

// TestSendDoesNotAllocate holds the hot path: a kept connection, a success.
func TestSendDoesNotAllocate(t *testing.T) {
	if overrun > 100*time.Millisecond {
		t.Skip("the race detector allocates")
	}
	wire := []byte("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\nok")
	srv := serveRaw(t, func(p *peer) {
		buf := make([]byte, 4096) // one read is one request, and nothing is allocated
		for {
			if _, err := p.Read(buf); err != nil {
				return
			}
			if _, err := p.Write(wire); err != nil {
				return
			}
		}
	})
	c := newClient(t, localConfig(), Deps{Gate: func() bool { return true }})
	req := request(srv.url())
	var res pipeline.Result
	if n := testing.AllocsPerRun(500, func() { c.Send(req, &res) }); n >= 1 || res.Outcome != pipeline.OutcomeSuccess {
		t.Errorf("%.1f allocations for each request; %s %q", n, res.Outcome, res.Error)
	}
}
