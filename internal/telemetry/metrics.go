package telemetry

import (
	"encoding/hex"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/hookline/hookline/pipeline"
)

// maxAttempts is the highest attempt number that has its own label value.
const maxAttempts = pipeline.MaxRetries + 1

// Metrics holds hookline's Prometheus metrics under the names of its contract.
// Its methods are the small metric ports that the parts declare. Safe for
// concurrent use.
type Metrics struct {
	registry *prometheus.Registry

	events       *prometheus.CounterVec
	deliveries   [len(pipeline.Outcomes) + 1]prometheus.Counter
	attempts     [len(pipeline.Outcomes) + 1][maxAttempts + 1]prometheus.Counter
	seconds      prometheus.Histogram
	deliveryLag  prometheus.Histogram
	lanes        *prometheus.GaugeVec
	parked       prometheus.Gauge
	inFlight     prometheus.Gauge
	retryOverdue prometheus.Gauge
	sinkRows     prometheus.Counter
	sinkLag      prometheus.Gauge
	sinkErrors   prometheus.Counter
	kafkaLag     *prometheus.GaugeVec
	dead         *prometheus.CounterVec
	filters      *prometheus.CounterVec
	omitted      *prometheus.CounterVec
	forgotten    prometheus.Counter
	spansLost    prometheus.Counter
	missing      *prometheus.CounterVec
	sinkDead     prometheus.Counter
}

// NewMetrics makes the metrics and the registry that serves them, together with
// those of the Go runtime and the process.
func NewMetrics() *Metrics {
	m := &Metrics{
		registry:     prometheus.NewRegistry(),
		events:       counters("events_total", "Events read from the event topics, by what became of them.", "format", "result"),
		seconds:      histogram("attempt_seconds", "Time from a request's start to its end.", 0.001, 2, 15),
		deliveryLag:  histogram("delivery_lag_seconds", "Time from an event's production to the start of its first attempt.", 0.005, 2, 18),
		lanes:        gauges("lanes", "Lanes in memory, by state.", "state"),
		parked:       gauge("parked_deliveries", "Deliveries parked behind a failing or slow one."),
		inFlight:     gauge("in_flight", "Requests under way."),
		retryOverdue: gauge("retry_overdue_seconds", "How long the oldest retry that is due has been waiting to be sent."),
		sinkRows:     counter("sink_rows_total", "Rows stored in ClickHouse."),
		sinkLag:      gauge("sink_lag_seconds", "Age of the oldest record that the sink has read and not yet stored."),
		sinkErrors:   counter("sink_insert_errors_total", "Inserts that ClickHouse refused or did not answer."),
		kafkaLag:     gauges("kafka_lag", "Records not yet processed, by topic.", "topic"),
		dead:         counters("dead_total", "Deliveries that ended in the dead topic, by reason.", "reason"),
		filters:      counters("filter_failures_total", "Filters that could say neither yes nor no of an event, by what went wrong; the subscription did not get it.", "reason"),
		omitted:      counters("headers_omitted_total", "Headers left out of requests since their value is not fit for one.", "header"),
	}
	m.forgotten = counter("dedupe_forgotten_total", "Event ids forgotten within their topic's dedupe window, since their partition has too many.")
	m.spansLost = counter("trace_spans_lost_total", "Spans that the collector of traces did not take.")
	m.missing = counters("records_missing_total", "Records that were removed from a topic before hookline had read them.", "topic")
	m.sinkDead = counter("sink_dead_total", "Records of the delivery log that cannot be stored, wholly or in part, and went to attempts.dead.")
	deliveries := counters("deliveries_total", "Deliveries that ended, by their last outcome.", "outcome")
	attempts := counters("attempts_total", "Tries, by outcome and attempt number (0: none was spent).", "outcome", "attempt")
	for _, o := range pipeline.Outcomes {
		m.deliveries[o] = deliveries.WithLabelValues(o.String())
		for n := range maxAttempts + 1 {
			m.attempts[o][n] = attempts.WithLabelValues(o.String(), strconv.Itoa(n))
		}
	}
	m.registry.MustRegister(
		m.events, deliveries, attempts, m.seconds, m.deliveryLag, m.lanes, m.parked, m.inFlight, m.retryOverdue,
		m.sinkRows, m.sinkLag, m.sinkErrors, m.kafkaLag, m.dead, m.filters, m.omitted, m.forgotten, m.spansLost, m.missing, m.sinkDead,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

const namespace = "hookline"

func counters(name, help string, labels ...string) *prometheus.CounterVec {
	return prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func counter(name, help string) prometheus.Counter {
	return prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, labels)
}

func gauge(name, help string) prometheus.Gauge {
	return prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
}

func histogram(name, help string, start, factor float64, n int) prometheus.Histogram {
	return prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: help, Buckets: prometheus.ExponentialBuckets(start, factor, n),
	})
}

// Registry is what /metrics serves.
func (m *Metrics) Registry() *prometheus.Registry { return m.registry }

// Event counts n events of a format with one result.
func (m *Metrics) Event(format, result string, n int) {
	m.events.WithLabelValues(format, result).Add(float64(n))
}

// DedupeForgotten counts n event ids that were forgotten within the window.
func (m *Metrics) DedupeForgotten(n int) { m.forgotten.Add(float64(n)) }

// SpansLost counts n spans that the collector did not take.
func (m *Metrics) SpansLost(n int) { m.spansLost.Add(float64(n)) }

// FilterFailed counts a subscription that did not get an event since its filter
// failed on it.
func (m *Metrics) FilterFailed(reason string) { m.filters.WithLabelValues(reason).Inc() }

// Attempt counts one try. Of a sampled trace the id becomes an exemplar.
func (m *Metrics) Attempt(o pipeline.Outcome, attempt int, elapsed time.Duration, of *pipeline.TraceContext) {
	if int(o) < len(m.attempts) && o != 0 {
		m.attempts[o][min(max(attempt, 0), maxAttempts)].Inc()
	}
	observe(m.seconds, elapsed, of)
}

func observe(h prometheus.Histogram, d time.Duration, of *pipeline.TraceContext) {
	if of != nil && of.Sampled() {
		h.(prometheus.ExemplarObserver).ObserveWithExemplar(d.Seconds(), prometheus.Labels{"trace_id": hex.EncodeToString(of.TraceID[:])})
		return
	}
	h.Observe(d.Seconds())
}

// Delivery counts a delivery that ended with outcome o.
func (m *Metrics) Delivery(o pipeline.Outcome) {
	if int(o) < len(m.deliveries) && o != 0 {
		m.deliveries[o].Inc()
	}
}

// DeliveryLag notes the time from an event's production to its first attempt. Of
// a sampled trace the id becomes an exemplar.
func (m *Metrics) DeliveryLag(d time.Duration, of *pipeline.TraceContext) {
	observe(m.deliveryLag, max(d, 0), of)
}

// Lanes sets the number of lanes in a state.
func (m *Metrics) Lanes(state string, n int) { m.lanes.WithLabelValues(state).Set(float64(n)) }

// Parked sets the number of parked deliveries.
func (m *Metrics) Parked(n int) { m.parked.Set(float64(n)) }

// InFlight sets the number of requests under way.
func (m *Metrics) InFlight(n int) { m.inFlight.Set(float64(n)) }

// RetryOverdue sets how long the oldest due retry has waited.
func (m *Metrics) RetryOverdue(d time.Duration) { m.retryOverdue.Set(max(d, 0).Seconds()) }

// SinkRows counts rows stored.
func (m *Metrics) SinkRows(n int) { m.sinkRows.Add(float64(n)) }

// SinkLag sets the age of the oldest record read and not stored.
func (m *Metrics) SinkLag(d time.Duration) { m.sinkLag.Set(max(d, 0).Seconds()) }

// SinkInsertError counts a failed insert.
func (m *Metrics) SinkInsertError() { m.sinkErrors.Inc() }

// Subscriptions has the gauges of subscriptions ask count whenever they are read:
// how many are good, and of how many the last record was refused. Call it once.
func (m *Metrics) Subscriptions(count func() (good, refused int)) {
	g := func(name, help string, value func() int) {
		m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help}, func() float64 { return float64(value()) }))
	}
	g("subscriptions", "Subscriptions with a configuration that this process can read.", func() int { good, _ := count(); return good })
	g("subscriptions_refused", "Subscriptions whose last record this process cannot read: the last good one stays in force, or they wait.", func() int { _, refused := count(); return refused })
}

// Missing counts n records of a topic that were removed before they were read.
func (m *Metrics) Missing(topic string, n int64) { m.missing.WithLabelValues(topic).Add(float64(n)) }

// SinkDead counts a record of the delivery log that cannot be stored.
func (m *Metrics) SinkDead() { m.sinkDead.Inc() }

// KafkaLag sets the number of records of a topic that wait to be processed.
func (m *Metrics) KafkaLag(topic string, n int64) { m.kafkaLag.WithLabelValues(topic).Set(float64(n)) }

// Dead counts a delivery that went to the dead topic.
func (m *Metrics) Dead(reason pipeline.DeadReason) { m.dead.WithLabelValues(string(reason)).Inc() }

// HeaderOmitted counts a header that was left out of a request since its value
// is not fit for one.
func (m *Metrics) HeaderOmitted(name string) { m.omitted.WithLabelValues(name).Inc() }
