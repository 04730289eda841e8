package telemetry

import (
	"maps"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/hookline/hookline/pipeline"
)

// contract is what dashboards and alerts rely on: names and labels.
var contract = map[string][]string{
	"hookline_events_total":             {"format", "result"},
	"hookline_deliveries_total":         {"outcome"},
	"hookline_attempts_total":           {"attempt", "outcome"},
	"hookline_attempt_seconds":          nil,
	"hookline_delivery_lag_seconds":     nil,
	"hookline_lanes":                    {"state"},
	"hookline_parked_deliveries":        nil,
	"hookline_in_flight":                nil,
	"hookline_retry_overdue_seconds":    nil,
	"hookline_sink_rows_total":          nil,
	"hookline_sink_lag_seconds":         nil,
	"hookline_sink_insert_errors_total": nil,
	"hookline_kafka_lag":                {"topic"},
	"hookline_dead_total":               {"reason"},
	"hookline_headers_omitted_total":    {"header"},
	"hookline_filter_failures_total":    {"reason"},
	"hookline_dedupe_forgotten_total":   nil,
	"hookline_trace_spans_lost_total":   nil,
	"hookline_log_lines_dropped_total":  nil,
	"hookline_records_missing_total":    {"topic"},
	"hookline_sink_dead_total":          nil,
	"hookline_subscriptions_refused":    nil,
	"hookline_commit_seconds":           nil,
	"hookline_connections":              {"state"},
	"hookline_subscriptions":            {"state"},
	"hookline_ready":                    {"part"},
	"hookline_build_info":               {"version"},
}

func TestNamesAndLabelsAreThoseOfTheContract(t *testing.T) {
	m := NewMetrics()
	m.Missing("t", 1)
	m.KafkaLag("hookline.deliveries", 1)
	m.Ready("registry", true)
	m.Build("test")
	families, err := m.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string][]string{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "hookline_") {
			continue
		}
		var labels []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			labels = append(labels, l.GetName())
		}
		got[f.GetName()] = labels
	}
	for _, name := range slices.Sorted(maps.Keys(contract)) {
		labels, ok := got[name]
		if !ok {
			t.Errorf("%s is missing", name)
			continue
		}
		if !slices.Equal(labels, contract[name]) {
			t.Errorf("%s has labels %v, want %v", name, labels, contract[name])
		}
		delete(got, name)
	}
	for name := range got {
		t.Errorf("%s is not in the contract", name)
	}
}

// The page describes what is registered, and nothing else.
func TestCatalogIsWhatIsRegistered(t *testing.T) {
	for _, d := range Catalog() {
		labels := slices.Sorted(slices.Values(d.Labels))
		want, ok := contract[d.Name]
		if !ok || !slices.Equal(labels, want) {
			t.Errorf("%s%v is described, the contract has %v", d.Name, labels, want)
		}
		if d.Help == "" || d.High == "" || d.Unit == "" {
			t.Errorf("%s is not described in full: %+v", d.Name, d)
		}
	}
	if len(Catalog()) != len(contract) {
		t.Errorf("%d metrics are described, the contract has %d", len(Catalog()), len(contract))
	}
}

func TestAttemptsOutsideTheEnumDoNotPanic(t *testing.T) {
	m := NewMetrics()
	m.Attempt(0, 1, time.Second, nil)
	m.Attempt(200, 99, time.Second, nil)
	m.Attempt(pipeline.OutcomeSuccess, 99, time.Second, nil)
	m.Attempt(pipeline.OutcomeSuccess, -1, time.Second, nil)
	m.Delivery(200)
}

func TestAttemptDoesNotAllocate(t *testing.T) {
	m := NewMetrics()
	n := testing.AllocsPerRun(100, func() {
		m.Attempt(pipeline.OutcomeSuccess, 1, time.Millisecond, nil)
		m.Delivery(pipeline.OutcomeSuccess)
	})
	if n != 0 {
		t.Errorf("%v allocations for each attempt", n)
	}
}

// The trace's id stands beside the bucket that its attempt fell into.
func TestExemplars(t *testing.T) {
	m := NewMetrics()
	sampled := pipeline.TraceContext{TraceID: [16]byte{0xab, 15: 1}, SpanID: [8]byte{1}, Flags: 1}
	m.Attempt(pipeline.OutcomeSuccess, 1, 3*time.Millisecond, &sampled)
	m.DeliveryLag(7*time.Millisecond, &sampled)
	unsampled := sampled
	unsampled.TraceID, unsampled.Flags = [16]byte{0xcd}, 0
	m.Attempt(pipeline.OutcomeSuccess, 1, time.Second, &unsampled)

	r := httptest.NewRequest("GET", "/metrics", nil)
	r.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	w := httptest.NewRecorder()
	promhttp.HandlerFor(m.Registry(), promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(w, r)
	body := w.Body.String()
	for _, want := range []string{
		`hookline_attempt_seconds_bucket{le="0.004"} 1 # {trace_id="ab000000000000000000000000000001"} 0.003`,
		`hookline_delivery_lag_seconds_bucket{le="0.01"} 1 # {trace_id="ab000000000000000000000000000001"} 0.007`,
	} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
	if strings.Contains(body, `trace_id="cd`) {
		t.Error("a trace that nobody recorded is an exemplar")
	}
}
