package telemetry

import (
	"fmt"
	"io"
	"strings"
)

//go:generate go run ./metricsdoc

// Kind is a metric's Prometheus type.
type Kind string

// The kinds.
const (
	Counter   Kind = "counter"
	Gauge     Kind = "gauge"
	Histogram Kind = "histogram"
)

// Metric describes one metric for its registration and for docs/metrics.md.
type Metric struct {
	Name   string // with the prefix hookline_
	Kind   Kind
	Labels []string
	Unit   string // of its value
	Help   string // one sentence: what it counts or measures
	High   string // what to think of and do when it is high; for the page
}

// The names, without the prefix.
const (
	nameEvents       = "events_total"
	nameForgotten    = "dedupe_forgotten_total"
	nameFilters      = "filter_failures_total"
	nameDeliveries   = "deliveries_total"
	nameAttempts     = "attempts_total"
	nameSeconds      = "attempt_seconds"
	nameDeliveryLag  = "delivery_lag_seconds"
	nameLanes        = "lanes"
	nameParked       = "parked_deliveries"
	nameInFlight     = "in_flight"
	nameRetryOverdue = "retry_overdue_seconds"
	nameCommit       = "commit_seconds"
	nameDead         = "dead_total"
	nameOmitted      = "headers_omitted_total"
	nameConnections  = "connections"
	nameSinkRows     = "sink_rows_total"
	nameSinkLag      = "sink_lag_seconds"
	nameSinkErrors   = "sink_insert_errors_total"
	nameKafkaLag     = "kafka_lag"
	nameSubs         = "subscriptions"
	nameReady        = "ready"
	nameSpansLost    = "trace_spans_lost_total"
	nameLinesDropped = "log_lines_dropped_total"
	nameBuild        = "build_info"
	nameMissing      = "records_missing_total"
	nameSinkDead     = "sink_dead_total"
	nameRefused      = "subscriptions_refused"
)

// catalog lists hookline's own metrics, in the order of the page.
var catalog = []Metric{
	{
		nameEvents, Counter,
		[]string{"format", "result"},
		"events", "Events read from the event topics, by what became of them.",
		"result dead: records that are no events, see the topic events.dead. result gap: the topic's retention removed events before the router read them: raise it, or add routers. result unmatched only means that nobody subscribes.",
	},
	{
		nameForgotten, Counter, nil, "ids", "Event ids forgotten within their topic's dedupe window, since their partition has too many.",
		"Duplicates may be routed: use a shorter window or more partitions.",
	},
	{
		nameFilters, Counter,
		[]string{"reason"},
		"events", "Filters that could say neither yes nor no of an event, by what went wrong; the subscription did not get it.",
		"A filter does not fit the events it sees: the log names its subscription.",
	},
	{
		nameDeliveries, Counter,
		[]string{"outcome"},
		"deliveries", "Deliveries that ended, by their last outcome.",
		"Outcomes but success end as dead letters: look at dead_total.",
	},
	{
		nameAttempts, Counter,
		[]string{"outcome", "attempt"},
		"attempts", "Tries, by outcome and attempt number (0: none was spent).",
		"By outcome: timeout and connect_error are the endpoints' or the network's; local_error is hookline's own (file descriptors, resolver, connections).",
	},
	{
		nameSeconds, Histogram, nil, "seconds", "Time from a try's start to its end.",
		"Slow endpoints. Lanes behind them wait; others do not. Bounded by REQUEST_TIMEOUT.",
	},
	{
		nameDeliveryLag, Histogram, nil, "seconds", "Time from an event's production to the start of its first attempt.",
		"Look at kafka_lag: of an event topic, the router is behind; of deliveries, the dispatcher is. With neither, the lane waits for a failing or slow endpoint.",
	},
	{
		nameLanes, Gauge,
		[]string{"state"},
		"lanes", "Lanes that do not move freely: waiting (behind a failing or slow delivery) and held (paused, or blocked until an operator decides).",
		"Which subscriptions: hookline subs list. waiting goes down by itself when the endpoint answers; held needs someone to act.",
	},
	{
		nameParked, Gauge, nil, "deliveries", "Deliveries parked in Kafka behind a failing, slow or held one.",
		"At MAX_PARKED of one subscription it is disabled with reason backlog.",
	},
	{
		nameInFlight, Gauge, nil, "requests", "Requests under way.",
		"At MAX_IN_FLIGHT for long: more dispatchers, or a higher limit. Slow endpoints take slots for longer.",
	},
	{
		nameRetryOverdue, Gauge, nil, "seconds", "How long the oldest retry that is due has been waiting to be sent.",
		"No slot: failing lanes share FAILING_SHARE of MAX_IN_FLIGHT. Or the process cannot commit.",
	},
	{
		nameCommit, Histogram, nil, "seconds", "Time that one transaction of the dispatcher took.",
		"Kafka is slow. Retries and dead letters become durable later; after 15 s without a commit no request is begun.",
	},
	{
		nameDead, Counter,
		[]string{"reason"},
		"deliveries", "Deliveries that ended in the dead topic, by reason.",
		"exhausted: an endpoint failed every attempt. backlog: a subscription was disabled with deliveries waiting. unreadable: a record of hookline's own could not be read, which must not happen.",
	},
	{
		nameOmitted, Counter,
		[]string{"header"},
		"headers", "Headers left out of requests since their value is not fit for one.",
		"The producer writes values that no header can carry.",
	},
	{
		nameConnections, Gauge,
		[]string{"state"},
		"connections", "Connections to endpoints: idle (kept for the next request) and busy.",
		"Each takes a file descriptor: MAX_IDLE_CONNECTIONS, MAX_CONNECTIONS_PER_HOST.",
	},
	{
		nameSinkRows, Counter, nil, "rows", "Rows stored in ClickHouse, of attempts and events.",
		"It should follow attempts_total.",
	},
	{
		nameSinkLag, Gauge, nil, "seconds", "Age of the oldest record that the sink has read and not yet stored.",
		"ClickHouse is away or slow. Deliveries go on; the log waits in Kafka for at most the retention of the topic attempts (7 days).",
	},
	{
		nameSinkErrors, Counter, nil, "inserts", "Inserts that ClickHouse refused or did not answer; they are repeated.",
		"The log says why: connection, password, disk, too many parts.",
	},
	{
		nameSinkDead, Counter, nil, "records", "Records of the delivery log that cannot be stored, wholly or in part, and went to attempts.dead.",
		"Written by a newer hookline, or damaged: the log says which.",
	},
	{
		nameMissing, Counter,
		[]string{"topic"},
		"records", "Records that were removed from a topic before hookline had read them.",
		"Somebody deletes from hookline's topics, or a retention is shorter than an outage was.",
	},
	{
		nameRefused, Gauge, nil, "subscriptions", "Subscriptions whose last record this process cannot read: the last good one stays in force, or they wait.",
		"hookline subs list and /readyz say which and why.",
	},
	{
		nameKafkaLag, Gauge,
		[]string{"topic"},
		"records", "Records of the partitions of this process that it has not processed yet: event topics by the router, deliveries by the dispatcher, attempts by the sink.",
		"Steadily rising: more processes of that role (up to the number of partitions), or it is stuck: look at ready and the log.",
	},
	{
		nameSubs, Gauge,
		[]string{"state"},
		"subscriptions", "Subscriptions with a configuration that this process can read, by state: active, paused, disabled. The same in every process.",
		"disabled: hookline subs list says why; deliveries to it are not made until it is resumed.",
	},
	{
		nameReady, Gauge,
		[]string{"part"},
		"1 or 0", "Whether a part of the process is ready, as /readyz says. degraded-sink is 1 while the sink cannot reach ClickHouse.",
		"0 for long: /readyz says what it waits for.",
	},
	{
		nameSpansLost, Counter, nil, "spans", "Spans that the collector of traces did not take.",
		"OTLP_ENDPOINT is away or refuses them. Deliveries do not depend on it.",
	},
	{
		nameLinesDropped, Counter, nil, "lines", "Lines of the log that were dropped, since what reads standard error did not take them.",
		"The log collector hangs or is too slow. Deliveries do not wait for it; the log itself tells how many lines are missing.",
	},
	{nameBuild, Gauge, []string{"version"}, "1", "The version that runs.", "Several at once: an upgrade is under way."},
}

// Catalog lists hookline's own metrics, with their prefix.
func Catalog() []Metric {
	out := make([]Metric, len(catalog))
	for i, m := range catalog {
		m.Name = namespace + "_" + m.Name
		out[i] = m
	}
	return out
}

// WriteMarkdown writes the page of all metrics.
func WriteMarkdown(w io.Writer) error {
	var b strings.Builder
	b.WriteString("<!-- Generated by `go generate ./internal/telemetry`; do not edit. -->\n\n# Metrics\n\n" +
		"`/metrics` on `HOOKLINE_ADMIN_ADDR`, for Prometheus; with `ADMIN_TOKEN` it wants `Authorization: Bearer TOKEN`.\n" +
		"Every metric is there from the start, at zero. Counters start anew with the process: use `rate` or `increase`.\n" +
		"Gauges are of one process; sum them, but for `hookline_subscriptions`, which is the same everywhere.\n" +
		"Asked for OpenMetrics, the two histograms of time have the ids of sampled traces as exemplars.\n" +
		"Alerts over them: [runbooks](runbooks.md). Besides these there are those of the Go runtime (`go_*`) and the process (`process_*`).\n")
	for _, m := range Catalog() {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n", m.Name, m.Help)
		labels := "none"
		if len(m.Labels) > 0 {
			labels = "`" + strings.Join(m.Labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "%s · unit: %s · labels: %s\n\nWhen it is high: %s\n", m.Kind, m.Unit, labels, m.High)
	}
	_, err := io.WriteString(w, b.String())
	return err
}
