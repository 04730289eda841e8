package telemetry

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.43.0"
	"go.opentelemetry.io/otel/trace"

	"github.com/hookline/hookline/pipeline"
)

// TraceConfig says where spans go and which traces hookline begins itself.
type TraceConfig struct {
	// OTLPEndpoint is where spans are sent by OTLP: http://host:4318 or https:// (protobuf over HTTP), grpc://host:4317 or grpcs://; empty: no spans, and an event's trace context goes out with its requests as it came. OTEL_EXPORTER_OTLP_HEADERS, OTEL_EXPORTER_OTLP_CERTIFICATE and OTEL_RESOURCE_ATTRIBUTES are read too.
	OTLPEndpoint string `env:"OTLP_ENDPOINT"`
	// TraceSample is the share, 0 to 1, of the events without a trace context that hookline begins a trace for. An event with one is recorded where its producer sampled it, whatever stands here.
	TraceSample float64 `env:"TRACE_SAMPLE" envDefault:"0"`
}

// Bounds of what waits to be exported: beyond the queue spans are dropped, so
// that a collector which is away costs memory and nothing else. A span takes
// about 1 KiB.
const (
	spanQueue      = 16384
	spanBatch      = 1024
	spanBatchEvery = time.Second
	exportTimeout  = 10 * time.Second
	// flushTimeout is what stopping waits for the collector.
	flushTimeout = 5 * time.Second
)

// Validate names every setting that has no meaning.
func (c *TraceConfig) Validate() error {
	var errs []error
	if c.OTLPEndpoint != "" {
		if _, err := parseEndpoint(c.OTLPEndpoint); err != nil {
			errs = append(errs, err)
		}
	}
	if !(c.TraceSample >= 0 && c.TraceSample <= 1) {
		errs = append(errs, fmt.Errorf("HOOKLINE_TRACE_SAMPLE: %v is not a share (write 0 to 1)", c.TraceSample))
	}
	return errors.Join(errs...)
}

// parseEndpoint reads OTLP_ENDPOINT. What it cannot read it does not quote:
// there may be a password in it.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("HOOKLINE_OTLP_ENDPOINT: not an address (write http://host:4318 or grpc://host:4317)")
	case u.User != nil:
		return nil, errors.New("HOOKLINE_OTLP_ENDPOINT: it has a name or password in it (put credentials into OTEL_EXPORTER_OTLP_HEADERS)")
	}
	switch u.Scheme {
	case "http", "https":
		if !strings.HasSuffix(u.Path, "/v1/traces") {
			u.Path = strings.TrimSuffix(u.Path, "/") + "/v1/traces"
		}
	case "grpc", "grpcs":
		if u.Path != "" && u.Path != "/" {
			return nil, errors.New("HOOKLINE_OTLP_ENDPOINT: a path means nothing to gRPC (write grpc://host:4317)")
		}
	default:
		return nil, fmt.Errorf("HOOKLINE_OTLP_ENDPOINT: %q is not a scheme (one of http, https, grpc, grpcs)", u.Scheme)
	}
	return u, nil
}

// Tracing makes hookline's spans and sends them to a collector. Safe for
// concurrent use. It implements the tracers of router and dispatcher.
type Tracing struct {
	provider *sdktrace.TracerProvider
	tracer   trace.Tracer
	ratio    float64
	now      func() time.Time
}

// TracingDeps is what Tracing is given.
type TracingDeps struct {
	Version string
	Node    string // names the process
	Log     *slog.Logger
	Metrics *Metrics // counts failed exports
}

// NewTracing makes a Tracing that exports as c says, which was validated and has
// an endpoint. It does not connect: a collector that is away fails no start.
func NewTracing(c *TraceConfig, d TracingDeps) (*Tracing, error) {
	u, err := parseEndpoint(c.OTLPEndpoint)
	if err != nil {
		return nil, err
	}
	exporter, err := newExporter(u)
	if err != nil {
		return nil, fmt.Errorf("preparing the export of traces to %s: %w", u.Redacted(), err)
	}
	res, err := resource.New(context.Background(),
		resource.WithAttributes(semconv.ServiceName("hookline")), resource.WithFromEnv(), resource.WithTelemetrySDK(),
		resource.WithAttributes(semconv.ServiceVersion(d.Version), semconv.ServiceInstanceID(d.Node)))
	if err != nil && !errors.Is(err, resource.ErrPartialResource) {
		return nil, fmt.Errorf("reading OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	p := sdktrace.NewTracerProvider(
		sdktrace.WithResource(res),
		// Only what is to be recorded is begun at all: see Route and Attempt.
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
		sdktrace.WithIDGenerator(idGenerator{}),
		sdktrace.WithBatcher(&watchedExporter{SpanExporter: exporter, log: d.Log, metrics: d.Metrics, to: u.Redacted()},
			sdktrace.WithMaxQueueSize(spanQueue), sdktrace.WithMaxExportBatchSize(spanBatch),
			sdktrace.WithBatchTimeout(spanBatchEvery), sdktrace.WithExportTimeout(exportTimeout)),
	)
	const scope = "github.com/hookline/hookline"
	return &Tracing{
		provider: p, ratio: c.TraceSample, now: time.Now,
		tracer: p.Tracer(scope, trace.WithInstrumentationVersion(d.Version), trace.WithSchemaURL(semconv.SchemaURL)),
	}, nil
}

func newExporter(u *url.URL) (sdktrace.SpanExporter, error) {
	ctx := context.Background() // neither of them connects now
	switch u.Scheme {
	case "grpc", "grpcs":
		to := *u
		to.Scheme = strings.Replace(u.Scheme, "grpc", "http", 1)
		return otlptracegrpc.New(ctx, otlptracegrpc.WithEndpointURL(to.String()), otlptracegrpc.WithTimeout(exportTimeout))
	default:
		return otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(u.String()), otlptracehttp.WithTimeout(exportTimeout))
	}
}

// Close sends what waits, within a few seconds.
func (t *Tracing) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), flushTimeout)
	defer cancel()
	_ = t.provider.Shutdown(ctx) // a failed export was logged
}

// Route begins the span of an event's routing where its producer sampled the
// trace, or where there is none and TRACE_SAMPLE says so.
func (t *Tracing) Route(src *pipeline.Position, parent pipeline.TraceContext) (pipeline.RouteSpan, pipeline.TraceContext) {
	if !parent.Sampled() && (parent.Valid() || t.ratio == 0 || rand.Float64() >= t.ratio) {
		return nil, parent
	}
	at := t.now()
	_, span := t.tracer.Start(remote(&parent, parent.SpanID), "route "+src.Topic,
		trace.WithSpanKind(trace.SpanKindConsumer), trace.WithTimestamp(at), trace.WithAttributes(
			semconv.MessagingSystemKafka, semconv.MessagingOperationTypeProcess, semconv.MessagingOperationName("route"),
			semconv.MessagingDestinationName(src.Topic), semconv.MessagingDestinationPartitionID(fmt.Sprint(src.Partition)),
			semconv.MessagingKafkaOffset(int(src.Offset))))
	return &routeSpan{span: span}, contextOf(span, parent.State, at)
}

type routeSpan struct{ span trace.Span }

// Routed implements pipeline.RouteSpan.
func (s *routeSpan) Routed(ev *pipeline.Event, result string, subscriptions int) {
	s.span.SetAttributes(
		attribute.String("hookline.event_id", ev.ID), attribute.String("hookline.event_type", ev.Type),
		attribute.String("hookline.tenant", ev.Tenant), attribute.String("hookline.format", string(ev.Format)),
		attribute.String("hookline.result", result), attribute.Int("hookline.subscriptions", subscriptions))
	if result == "dead" {
		s.span.SetStatus(codes.Error, "not an event: it went to events.dead")
	}
}

// End implements pipeline.RouteSpan.
func (s *routeSpan) End(committed bool) {
	if !committed {
		s.span.SetStatus(codes.Error, "the transaction was aborted: the event is routed again")
	}
	s.span.End()
}

// Attempt begins the span of a try. Its parent is the delivery's span, whose id
// is known before that span is made.
func (t *Tracing) Attempt(req *pipeline.Request, to string) pipeline.AttemptSpan {
	env := req.Envelope
	attrs := append(make([]attribute.KeyValue, 0, 12), deliveryAttributes(env, req.DeliveryID, req.Subscription.ID)...)
	attrs = append(attrs, semconv.HTTPRequestMethodPost, semconv.URLFull(to), attribute.Int("hookline.attempt", req.Attempt))
	if u, err := url.Parse(to); err == nil && u.Host != "" {
		attrs = append(attrs, semconv.ServerAddress(u.Hostname()))
	}
	if req.Attempt > 1 {
		attrs = append(attrs, semconv.HTTPRequestResendCount(req.Attempt-1))
	}
	_, span := t.tracer.Start(remote(&env.Trace, deliverySpanID(env, req.DeliveryID)), "POST",
		trace.WithSpanKind(trace.SpanKindClient), trace.WithTimestamp(t.now()), trace.WithAttributes(attrs...))
	return &attemptSpan{span: span, context: contextOf(span, env.Trace.State, time.Time{})}
}

type attemptSpan struct {
	span    trace.Span
	context pipeline.TraceContext
}

// Context implements pipeline.AttemptSpan.
func (s *attemptSpan) Context() *pipeline.TraceContext { return &s.context }

// End implements pipeline.AttemptSpan.
func (s *attemptSpan) End(res *pipeline.Result) {
	s.span.SetAttributes(attribute.String("hookline.outcome", res.Outcome.String()))
	if res.StatusCode != 0 {
		s.span.SetAttributes(semconv.HTTPResponseStatusCode(res.StatusCode))
	}
	setError(s.span, res.Outcome, res.Error)
	s.span.End(trace.WithTimestamp(res.EndedAt()))
}

// Delivery makes the span of a delivery that ended: from its routing to the end
// of its last try, over every retry and whatever process made them.
func (t *Tracing) Delivery(a *pipeline.Attempt) {
	env := a.Envelope
	begin := env.Trace.RoutedAt
	if begin.IsZero() { // routed by a process that makes no spans
		begin = env.ProducedAt
	}
	attrs := append(deliveryAttributes(env, a.DeliveryID, a.SubscriptionID),
		attribute.Int("hookline.attempts", a.Attempt), attribute.String("hookline.outcome", a.Outcome.String()))
	ctx := context.WithValue(remote(&env.Trace, env.Trace.SpanID), spanIDKey{}, deliverySpanID(env, a.DeliveryID))
	_, span := t.tracer.Start(ctx, "deliver", trace.WithSpanKind(trace.SpanKindInternal), trace.WithTimestamp(begin), trace.WithAttributes(attrs...))
	setError(span, a.Outcome, a.Error)
	span.End(trace.WithTimestamp(a.StartedAt.Add(a.Elapsed)))
}

func deliveryAttributes(env *pipeline.Envelope, delivery, subscription string) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("hookline.delivery_id", delivery), attribute.String("hookline.subscription_id", subscription),
		attribute.String("hookline.event_id", env.EventID), attribute.String("hookline.event_type", env.EventType),
		attribute.String("hookline.tenant", env.Tenant),
	}
}

func setError(span trace.Span, o pipeline.Outcome, text string) {
	if o == pipeline.OutcomeSuccess {
		return
	}
	span.SetAttributes(semconv.ErrorTypeKey.String(o.String()))
	span.SetStatus(codes.Error, text)
}

// deliverySpanID is the same on every attempt, whichever process makes it: the
// attempts' spans are sent long before that of their delivery, which ends last.
func deliverySpanID(env *pipeline.Envelope, delivery string) (id trace.SpanID) {
	sum := sha256.Sum256([]byte("hookline/span/1\x00" + delivery + "\x00" + env.Replay))
	copy(id[:], sum[:])
	return id
}

// remote is a context whose span is span of t's trace; of none where t is not
// valid.
func remote(t *pipeline.TraceContext, span [8]byte) context.Context {
	ctx := context.Background()
	if !t.Valid() {
		return ctx
	}
	state, err := trace.ParseTraceState(t.State)
	if err != nil {
		state = trace.TraceState{}
	}
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t.TraceID, SpanID: span, TraceFlags: trace.FlagsSampled, TraceState: state, Remote: true,
	}))
}

func contextOf(span trace.Span, state string, at time.Time) pipeline.TraceContext {
	sc := span.SpanContext()
	return pipeline.TraceContext{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Flags: byte(sc.TraceFlags()), State: state, RoutedAt: at}
}

// spanIDKey is the key of a span's id that was decided before.
type spanIDKey struct{}

// idGenerator makes random ids, and takes a span's from the context where it is
// there.
type idGenerator struct{}

// NewIDs implements sdktrace.IDGenerator.
func (g idGenerator) NewIDs(ctx context.Context) (id trace.TraceID, span trace.SpanID) {
	fillRandom(id[:])
	return id, g.NewSpanID(ctx, id)
}

// NewSpanID implements sdktrace.IDGenerator.
func (idGenerator) NewSpanID(ctx context.Context, _ trace.TraceID) (id trace.SpanID) {
	if id, ok := ctx.Value(spanIDKey{}).(trace.SpanID); ok {
		return id
	}
	fillRandom(id[:])
	return id
}

// fillRandom never gives zeros alone, which would be no id.
func fillRandom(b []byte) {
	for i := 0; i < len(b); i += 8 {
		binary.BigEndian.PutUint64(b[i:], max(rand.Uint64(), 1))
	}
}

// watchedExporter tells of failed exports in our log and metrics. It gives the
// errors to nobody else: the SDK would write them to standard error.
type watchedExporter struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	metrics *Metrics
	to      string
}

// ExportSpans implements sdktrace.SpanExporter.
func (e *watchedExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.metrics.SpansLost(len(spans))
		e.log.Warn("exporting traces failed; the spans are lost, deliveries go on", "to", e.to, "spans", len(spans), "error", err)
	}
	return nil
}
