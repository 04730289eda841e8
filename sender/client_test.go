package sender

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/pipeline"
)

func TestMain(m *testing.M) {
	// The benchmarks run fasthttp's own server and client, whose goroutines
	// outlive them; the sender starts none of these.
	goleak.VerifyTestMain(m,
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
	c.Send(req, &res)
	return &res
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
