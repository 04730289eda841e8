package telemetry

import (
	"encoding/hex"
	"slices"
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
	linesDropped prometheus.Counter
	missing      *prometheus.CounterVec
	sinkDead     prometheus.Counter
	refused      prometheus.Gauge

	commit        prometheus.Histogram
	connections   *prometheus.GaugeVec
	subscriptions *prometheus.GaugeVec
	ready         *prometheus.GaugeVec
	build         *prometheus.GaugeVec
}

// NewMetrics makes the metrics and the registry that serves them, together with
// those of the Go runtime and the process. Every label value that is known
// beforehand is there from the start, at zero: a rate or an alert over a counter
// that appears with its first count would miss that one.
func NewMetrics() *Metrics {
	m := &Metrics{registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.events, m.filters = m.counters(nameEvents), m.counters(nameFilters)
	m.dead, m.omitted = m.counters(nameDead), m.counters(nameOmitted)
	m.forgotten, m.sinkRows = m.counter(nameForgotten), m.counter(nameSinkRows)
	m.sinkErrors, m.spansLost = m.counter(nameSinkErrors), m.counter(nameSpansLost)
	m.linesDropped = m.counter(nameLinesDropped)
	m.missing, m.sinkDead, m.refused = m.counters(nameMissing), m.counter(nameSinkDead), m.gauge(nameRefused)
	m.seconds = m.histogram(nameSeconds, 0.001, 2, 15)
	m.deliveryLag = m.histogram(nameDeliveryLag, 0.005, 2, 18)
	m.commit = m.histogram(nameCommit, 0.001, 2, 15)
	m.lanes, m.kafkaLag, m.connections = m.gauges(nameLanes), m.gauges(nameKafkaLag), m.gauges(nameConnections)
	m.subscriptions, m.ready, m.build = m.gauges(nameSubs), m.gauges(nameReady), m.gauges(nameBuild)
	m.parked, m.inFlight = m.gauge(nameParked), m.gauge(nameInFlight)
	m.retryOverdue, m.sinkLag = m.gauge(nameRetryOverdue), m.gauge(nameSinkLag)
	deliveries, attempts := m.counters(nameDeliveries), m.counters(nameAttempts)
	for _, o := range pipeline.Outcomes {
		m.deliveries[o] = deliveries.WithLabelValues(o.String())
		for n := range maxAttempts + 1 {
			m.attempts[o][n] = attempts.WithLabelValues(o.String(), strconv.Itoa(n))
		}
	}
	m.known()
	return m
}

// Label values that are known beforehand.
var (
	eventResults  = []string{"routed", "unmatched", "dead", "duplicate", "gap"} // router.Result*
	filterReasons = []string{"error", "not_boolean", "not_json", "over_limit"}  // filter.Result
	laneStates    = []string{"waiting", "held"}
	subStates     = []string{"active", "paused", "disabled"}
	formats       = []pipeline.Format{
		pipeline.FormatCotalker, pipeline.FormatGoflow, pipeline.FormatSIGNL4, pipeline.FormatTask, pipeline.FormatCloudEvents,
		pipeline.FormatJSON, "unknown",
	}
	deadReasons = []pipeline.DeadReason{
		pipeline.DeadExhausted, pipeline.DeadSkipped, pipeline.DeadBacklog, pipeline.DeadCancelled, pipeline.DeadUnreadable,
	}
)

// known makes the series of the label values that are known.
func (m *Metrics) known() {
	for _, f := range formats {
		for _, r := range eventResults {
			m.events.WithLabelValues(string(f), r)
		}
	}
	for _, r := range filterReasons {
		m.filters.WithLabelValues(r)
	}
	for _, r := range deadReasons {
		m.dead.WithLabelValues(string(r))
	}
	for _, s := range laneStates {
		m.lanes.WithLabelValues(s)
	}
	for _, s := range subStates {
		m.subscriptions.WithLabelValues(s)
	}
	m.omitted.WithLabelValues("X-S4-ExternalID")
	m.Connections(0, 0)
}

const namespace = "hookline"

// described finds a metric's description.
func described(name string, kind Kind) Metric {
	i := slices.IndexFunc(catalog, func(d Metric) bool { return d.Name == name && d.Kind == kind })
	if i < 0 {
		panic("BUG: no metric " + name + " of this kind is described")
	}
	return catalog[i]
}

// register puts a collector into what /metrics serves.
func register[C prometheus.Collector](m *Metrics, c C) C {
	m.registry.MustRegister(c)
	return c
}

func (m *Metrics) counters(name string) *prometheus.CounterVec {
	d := described(name, Counter)
	return register(m, prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: d.Help}, d.Labels))
}

func (m *Metrics) counter(name string) prometheus.Counter { return m.counters(name).WithLabelValues() }

func (m *Metrics) gauges(name string) *prometheus.GaugeVec {
	d := described(name, Gauge)
	return register(m, prometheus.NewGaugeVec(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: d.Help}, d.Labels))
}

func (m *Metrics) gauge(name string) prometheus.Gauge { return m.gauges(name).WithLabelValues() }

func (m *Metrics) histogram(name string, start, factor float64, n int) prometheus.Histogram {
	d := described(name, Histogram)
	return register(m, prometheus.NewHistogram(prometheus.HistogramOpts{
		Namespace: namespace, Name: name, Help: d.Help, Buckets: prometheus.ExponentialBuckets(start, factor, n),
	}))
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

// LogLinesDropped counts n lines of the log that its reader did not take.
func (m *Metrics) LogLinesDropped(n int64) { m.linesDropped.Add(float64(n)) }

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

// Missing counts n records of a topic that were removed before they were read.
func (m *Metrics) Missing(topic string, n int64) { m.missing.WithLabelValues(topic).Add(float64(n)) }

// SinkDead counts a record of the delivery log that cannot be stored.
func (m *Metrics) SinkDead() { m.sinkDead.Inc() }

// KafkaLag sets the number of records of a topic that wait to be processed.
func (m *Metrics) KafkaLag(topic string, n int64) { m.kafkaLag.WithLabelValues(topic).Set(float64(n)) }

// Reads names a topic that this process reads, so that its series are there.
func (m *Metrics) Reads(topic string) {
	m.kafkaLag.WithLabelValues(topic)
	m.missing.WithLabelValues(topic)
}

// Dead counts a delivery that went to the dead topic.
func (m *Metrics) Dead(reason pipeline.DeadReason) { m.dead.WithLabelValues(string(reason)).Inc() }

// HeaderOmitted counts a header that was left out of a request since its value
// is not fit for one.
func (m *Metrics) HeaderOmitted(name string) { m.omitted.WithLabelValues(name).Inc() }

// CommitTook notes how long a transaction of the dispatcher took.
func (m *Metrics) CommitTook(d time.Duration) { m.commit.Observe(d.Seconds()) }

// Connections sets the numbers of connections to endpoints.
func (m *Metrics) Connections(idle, busy int) {
	m.connections.WithLabelValues("idle").Set(float64(idle))
	m.connections.WithLabelValues("busy").Set(float64(busy))
}

// Subscriptions sets the number of subscriptions in a state.
func (m *Metrics) Subscriptions(state string, n int) {
	m.subscriptions.WithLabelValues(state).Set(float64(n))
}

// Refused sets the number of subscriptions whose last record is refused.
func (m *Metrics) Refused(n int) { m.refused.Set(float64(n)) }

// Ready tells whether a part of the process is ready.
func (m *Metrics) Ready(part string, ready bool) {
	value := 0.0
	if ready {
		value = 1
	}
	m.ready.WithLabelValues(part).Set(value)
}

// Build names the version that runs.
func (m *Metrics) Build(version string) { m.build.WithLabelValues(version).Set(1) }
