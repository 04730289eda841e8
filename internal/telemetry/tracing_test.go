package telemetry

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/pipeline"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestTraceConfig(t *testing.T) {
	for _, good := range []string{"", "http://c:4318", "https://c/otlp", "grpc://c:4317", "grpcs://c:4317/"} {
		if err := (&TraceConfig{OTLPEndpoint: good}).Validate(); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"c:4318", "ftp://c", "http://", "http://u:CANARY@c:4318", "grpc://c:4317/v1/traces", "http://c:4318?token=CANARY", "http://c:CANARY"} {
		err := (&TraceConfig{OTLPEndpoint: bad}).Validate()
		if err == nil || !strings.HasPrefix(err.Error(), "HOOKLINE_OTLP_ENDPOINT: ") || strings.Contains(err.Error(), "CANARY") {
			t.Errorf("%q: %v", bad, err)
		}
	}
	for _, bad := range []float64{-0.1, 1.1, nan()} {
		if err := (&TraceConfig{TraceSample: bad}).Validate(); err == nil {
			t.Errorf("TRACE_SAMPLE=%v is taken", bad)
		}
	}
}

func nan() float64 { zero := 0.0; return zero / zero }

func TestEndpointPath(t *testing.T) {
	for in, want := range map[string]string{"http://c:4318": "/v1/traces", "http://c/": "/v1/traces", "http://c/otlp": "/otlp/v1/traces", "http://c/v1/traces": "/v1/traces"} {
		if u, err := parseEndpoint(in); err != nil || u.Path != want {
			t.Errorf("%s: %v, %v", in, u, err)
		}
	}
}

// A collector that is away costs its spans, a line in the log and a count; the
// SDK itself writes nothing.
func TestCollectorAway(t *testing.T) {
	var out bytes.Buffer
	m := NewMetrics()
	c := TraceConfig{OTLPEndpoint: "http://127.0.0.1:1"}
	tr, err := NewTracing(&c, TracingDeps{Version: "test", Node: "n", Log: slog.New(slog.NewJSONHandler(&out, nil)), Metrics: m})
	if err != nil {
		t.Fatal(err)
	}
	parent, _ := pipeline.ParseTraceContext([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), nil)
	span, on := tr.Route(&pipeline.Position{Topic: "t"}, parent)
	if on.TraceID != parent.TraceID || on.SpanID == parent.SpanID || !on.Sampled() || on.RoutedAt.IsZero() {
		t.Errorf("%+v", on)
	}
	span.Routed(&pipeline.Event{ID: "e"}, "routed", 1)
	span.End(true)
	begun := time.Now()
	tr.Close()
	if took := time.Since(begun); took > 2*flushTimeout {
		t.Errorf("stopping waited %s for the collector", took)
	}
	if n := testutil.ToFloat64(m.spansLost); n != 1 || !strings.Contains(out.String(), "exporting traces failed") {
		t.Errorf("%v spans lost; log: %s", n, out.String())
	}
}

// What is not recorded is handed on as it is, and takes no allocation.
func TestUnsampledRoute(t *testing.T) {
	c := TraceConfig{OTLPEndpoint: "http://127.0.0.1:1"}
	tr, err := NewTracing(&c, TracingDeps{Log: slog.New(slog.DiscardHandler), Metrics: NewMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	defer tr.Close()
	parent, _ := pipeline.ParseTraceContext([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), []byte("a=b"))
	src := pipeline.Position{Topic: "t"}
	for _, p := range []pipeline.TraceContext{parent, {}} {
		if span, on := tr.Route(&src, p); span != nil || on != p {
			t.Errorf("%v, %+v", span, on)
		}
		if n := testing.AllocsPerRun(100, func() { tr.Route(&src, p) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}
