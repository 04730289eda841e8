package app

import (
	"cmp"
	"context"
	"encoding/hex"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	collectorpb "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// otlpCollector takes spans by either protocol of OTLP.
type otlpCollector struct {
	collectorpb.UnimplementedTraceServiceServer
	mu    sync.Mutex
	spans []*tracepb.Span // under mu
}

// Export implements the gRPC service.
func (c *otlpCollector) Export(_ context.Context, req *collectorpb.ExportTraceServiceRequest) (*collectorpb.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range req.ResourceSpans {
		for _, s := range r.ScopeSpans {
			c.spans = append(c.spans, s.Spans...)
		}
	}
	return &collectorpb.ExportTraceServiceResponse{}, nil
}

// ServeHTTP is the same as protobuf over HTTP.
func (c *otlpCollector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	var req collectorpb.ExportTraceServiceRequest
	if err != nil || r.URL.Path != "/v1/traces" || proto.Unmarshal(body, &req) != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	resp, _ := c.Export(r.Context(), &req)
	out, _ := proto.Marshal(resp)
	w.Header().Set("Content-Type", "application/x-protobuf")
	_, _ = w.Write(out)
}

// of gives the spans of a trace, by their start.
func (c *otlpCollector) of(traceID string) []*tracepb.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []*tracepb.Span
	for _, s := range c.spans {
		if hex.EncodeToString(s.TraceId) == traceID {
			out = append(out, s)
		}
	}
	slices.SortStableFunc(out, func(a, b *tracepb.Span) int { return cmp.Compare(a.StartTimeUnixNano, b.StartTimeUnixNano) })
	return out
}

func startCollector(t *testing.T, scheme string) (c *otlpCollector, endpoint string) {
	t.Helper()
	c = &otlpCollector{}
	if scheme == "http" {
		srv := httptest.NewServer(c)
		t.Cleanup(srv.Close)
		return c, srv.URL
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	collectorpb.RegisterTraceServiceServer(srv, c)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	t.Cleanup(func() {
		srv.Stop()
		<-ended
	})
	return c, "grpc://" + l.Addr().String()
}

// received is a request's place in a trace, as the receiver sees it.
type received struct{ path, parent, state string }

// tracedReceiver refuses the first request to /flaky of each event.
func tracedReceiver(t *testing.T) (url string, all func() []received) {
	t.Helper()
	var mu sync.Mutex
	var got []received
	refused := map[string]bool{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		got = append(got, received{r.URL.Path, r.Header.Get("traceparent"), r.Header.Get("tracestate")})
		if id := r.Header.Get("webhook-id"); r.URL.Path == "/flaky" && !refused[id] {
			refused[id] = true
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, func() []received {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got)
	}
}

const (
	sampledTrace   = "4bf92f3577b34da6a3ce929d0e0e4736"
	sampledParent  = "00-" + sampledTrace + "-00f067aa0ba902b7-01"
	unsampledTrace = "0af7651916cd43dd8448eb211c80319c"
	unsampled      = "00-" + unsampledTrace + "-b7ad6b7169203331-00"
)

const tracedDocs = `
- {id: steady, tenant: "*", url: "URL/steady"}
- {id: flaky, tenant: "*", url: "URL/flaky?token=CANARY-QUERY"}
`

// deliverTraced runs the service over three events, whose traces are sampled,
// not sampled and none, until all is delivered.
func deliverTraced(t *testing.T, settings map[string]string) []received {
	t.Helper()
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "events"))
	cfg := canaryConfig(t, strings.Join(cluster.ListenAddrs(), ","))
	for name, value := range settings {
		if err := cfg.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	client, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if _, err := kafkax.EnsureTopics(ctx, kadm.NewClient(client), &cfg.Kafka); err != nil {
		t.Fatal(err)
	}
	url, all := tracedReceiver(t)
	log := slog.New(slog.DiscardHandler)
	applyCanaries(ctx, t, cfg, log, strings.ReplaceAll(tracedDocs, "URL", url))
	for _, headers := range [][]kgo.RecordHeader{
		{{Key: "traceparent", Value: []byte(sampledParent)}, {Key: "tracestate", Value: []byte("vendor=1")}},
		{{Key: "traceparent", Value: []byte(unsampled)}},
		nil,
	} {
		if err := client.ProduceSync(ctx, &kgo.Record{Topic: "events", Value: []byte(`{"type":"t"}`), Headers: headers}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	runUntil(ctx, t, cfg, log, func() bool { return len(all()) == 9 })
	return all()
}

func runUntil(ctx context.Context, t *testing.T, cfg *configs.Config, log *slog.Logger, done func() bool) {
	t.Helper()
	a, err := New(cfg, []Role{RoleRouter, RoleDispatcher}, Deps{Log: log, Version: "test", Cluster: "c"})
	if err != nil {
		t.Fatal(err)
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- a.Run(running) }()
	waitFor(ctx, t, done, func() string { return "not everything was delivered" })
	stop()
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}

// From the producer's traceparent to the receiver's: one trace, over a retry.
func TestTraceFromProducerToReceiver(t *testing.T) {
	for _, scheme := range []string{"http", "grpc"} {
		t.Run(scheme, func(t *testing.T) {
			t.Parallel()
			collector, endpoint := startCollector(t, scheme)
			got := deliverTraced(t, map[string]string{"OTLP_ENDPOINT": endpoint})
			checkTrace(t, collector.of(sampledTrace), got)
			if spans := collector.of(unsampledTrace); len(spans) > 0 {
				t.Errorf("spans of a trace that is not sampled: %v", spans)
			}
			untraced := 0
			for _, r := range got {
				switch {
				case r.parent == "":
					untraced++
				case strings.Contains(r.parent, unsampledTrace) && r.parent != unsampled:
					t.Errorf("a trace that is not sampled was changed to %s", r.parent)
				}
			}
			if untraced != 3 {
				t.Errorf("%d requests without a trace, want the 3 of the event that has none", untraced)
			}
		})
	}
}

func checkTrace(t *testing.T, spans []*tracepb.Span, got []received) {
	t.Helper()
	byName := map[string][]*tracepb.Span{}
	for _, s := range spans {
		byName[s.Name] = append(byName[s.Name], s)
		if strings.Contains(s.String(), "CANARY") {
			t.Errorf("a span shows a secret: %s", s)
		}
	}
	if len(spans) != 6 || len(byName["route events"]) != 1 || len(byName["deliver"]) != 2 || len(byName["POST"]) != 3 {
		t.Fatalf("want the spans of a route, two deliveries and three attempts, got %v", spans)
	}
	route := byName["route events"][0]
	if p := hex.EncodeToString(route.ParentSpanId); p != "00f067aa0ba902b7" {
		t.Errorf("the router's span is a child of %s, not of the producer's", p)
	}
	attempts := map[string]int{}
	for _, d := range byName["deliver"] {
		if !slices.Equal(d.ParentSpanId, route.SpanId) || d.StartTimeUnixNano < route.StartTimeUnixNano {
			t.Errorf("a delivery is not a part of the routing: %s", d)
		}
		for _, a := range byName["POST"] {
			if slices.Equal(a.ParentSpanId, d.SpanId) {
				attempts[attribute(a, "hookline.subscription_id")]++
				if a.EndTimeUnixNano > d.EndTimeUnixNano {
					t.Errorf("an attempt ends after its delivery: %s, %s", a, d)
				}
			}
		}
	}
	if attempts["steady"] != 1 || attempts["flaky"] != 2 {
		t.Errorf("attempts by delivery: %v", attempts)
	}
	for _, a := range byName["POST"] {
		i := slices.IndexFunc(got, func(r received) bool { return strings.Contains(r.parent, hex.EncodeToString(a.SpanId)) })
		if i < 0 || got[i].state != "vendor=1" || !strings.HasPrefix(got[i].parent, "00-"+sampledTrace) || got[i].path != "/"+attribute(a, "hookline.subscription_id") {
			t.Errorf("no request is the attempt's %s: %v", a, got)
		}
	}
}

func attribute(s *tracepb.Span, name string) string {
	for _, a := range s.Attributes {
		if a.Key == name {
			return a.Value.GetStringValue()
		}
	}
	return ""
}

// Without a collector hookline makes no spans and hands the context on.
func TestTraceIsPassedOnWithoutTracing(t *testing.T) {
	t.Parallel()
	seen := map[received]int{}
	for _, r := range deliverTraced(t, nil) {
		seen[r]++
	}
	for want, n := range map[received]int{
		{"/steady", sampledParent, "vendor=1"}: 1, {"/flaky", sampledParent, "vendor=1"}: 2,
		{"/steady", unsampled, ""}: 1, {"/flaky", unsampled, ""}: 2, {"/steady", "", ""}: 1, {"/flaky", "", ""}: 2,
	} {
		if seen[want] != n {
			t.Errorf("%d requests of %v, want %d; all: %v", seen[want], want, n, seen)
		}
	}
}

// TRACE_SAMPLE begins traces for events that have none, and for no others.
func TestTraceSample(t *testing.T) {
	t.Parallel()
	_, endpoint := startCollector(t, "http")
	fresh := 0
	for _, r := range deliverTraced(t, map[string]string{"OTLP_ENDPOINT": endpoint, "TRACE_SAMPLE": "1"}) {
		tc, ok := pipeline.ParseTraceContext([]byte(r.parent), nil)
		if !ok {
			t.Errorf("a request without a trace: %v", r)
		}
		switch id := hex.EncodeToString(tc.TraceID[:]); {
		case id == unsampledTrace && tc.Sampled():
			t.Error("a trace that its producer did not sample is sampled")
		case id != unsampledTrace && id != sampledTrace:
			fresh++
		}
	}
	if fresh != 3 {
		t.Errorf("%d requests of a new trace, want the 3 of the event that had none", fresh)
	}
}
