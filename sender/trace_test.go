package sender

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

func traceContext(state string) *pipeline.TraceContext {
	return &pipeline.TraceContext{TraceID: [16]byte{0xab, 15: 1}, SpanID: [8]byte{0xcd, 7: 2}, Flags: 1, State: state}
}

const traceParent = "00-ab000000000000000000000000000001-cd00000000000002-01"

// A request carries the context that it is given, else its event's. What could
// end a header line is left out.
func TestTraceHeaders(t *testing.T) {
	got := make(chan http.Header, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header }))
	defer srv.Close()
	c := newClient(t, localConfig(), Deps{})
	for name, test := range map[string]struct {
		request, event *pipeline.TraceContext
		parent, state  string
	}{
		"none":               {nil, &pipeline.TraceContext{}, "", ""},
		"the event's":        {nil, traceContext("a=b"), traceParent, "a=b"},
		"the attempt's":      {traceContext("a=b"), &pipeline.TraceContext{TraceID: [16]byte{9}}, traceParent, "a=b"},
		"no state":           {nil, traceContext(""), traceParent, ""},
		"state with newline": {nil, traceContext("a=b\r\nX-Forged: 1"), traceParent, ""},
	} {
		req := request(srv.URL)
		req.Trace, req.Envelope.Trace = test.request, *test.event
		if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
			t.Fatalf("%s: %s %s", name, res.Outcome, res.Error)
		}
		h := <-got
		if h.Get("traceparent") != test.parent || h.Get("tracestate") != test.state || h.Get("X-Forged") != "" {
			t.Errorf("%s: %q %q %q", name, h.Get("traceparent"), h.Get("tracestate"), h.Get("X-Forged"))
		}
	}
}

// A subscription may not forge a request's place in a trace.
func TestCustomTraceHeadersAreRefused(t *testing.T) {
	c := newClient(t, localConfig(), Deps{})
	for _, name := range []string{"traceparent", "TraceParent", "tracestate"} {
		req := request("http://127.0.0.1:1/")
		req.Subscription.Headers = []pipeline.Header{{Name: name, Value: traceParent}}
		if res := send(c, req); res.Outcome != pipeline.OutcomeBlocked {
			t.Errorf("%s: %s %s", name, res.Outcome, res.Error)
		}
	}
}

func TestTraceDoesNotAllocate(t *testing.T) {
	b, trace := make([]byte, 0, 256), traceContext("a=b")
	if n := testing.AllocsPerRun(100, func() { b = appendTrace(b[:0], trace) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
