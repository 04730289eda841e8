package app

import (
	"context"
	"regexp"
	"slices"
	"time"

	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/router"
	"github.com/hookline/hookline/sink"
)

func (a *App) addSink() error {
	opts, err := a.cfg.Kafka.ClientOpts(a.log.With("part", "sink"))
	if err != nil {
		return err
	}
	// A killed process's part is to be taken over as soon as by the dispatcher.
	opts = append(opts, kafkax.SessionOpts(time.Duration(a.cfg.Dispatch.SessionTimeout))...)
	topics := a.cfg.Kafka.Topics()
	events, regex := eventTopics(a.cfg.Router.EventsTopics)
	a.metrics.Reads(topics.Attempts())
	s, err := sink.New(a.cfg.Sink, sink.Deps{
		ClientOpts: opts, Group: a.cfg.Kafka.SinkGroup(), AttemptsTopic: topics.Attempts(), DeadTopic: topics.AttemptsDead(),
		EventTopics: events, EventRegex: regex, EventsSince: since(a.cfg.Router.Start),
		ParseEvent: router.NewReader(&a.cfg.Router, &a.cfg.Kafka), Taken: a.matchers.taken,
		WebhookCalledTopic: topics.WebhookCalled(), DumpBodyBytes: a.cfg.Sender.ResponseBodyBytes,
		Alone:   !slices.Contains(a.roles, RoleDispatcher) && !slices.Contains(a.roles, RoleRouter),
		Metrics: sinkMetrics{a.metrics}, Logger: a.log.With("part", "sink"),
	})
	if err != nil {
		return err
	}
	a.parts = append(a.parts, part{name: "sink", run: a.sinkRun(s), stopWithin: stopSlow, drains: true})
	a.ready = append(a.ready, func() admin.Part { return sinkReadiness(s) })
	return nil
}

// sinkRun begins when the subscriptions have been read. A sink that is stopped
// before is run all the same: Run is what closes it.
func (a *App) sinkRun(s *sink.Sink) func(context.Context) error {
	return func(ctx context.Context) error {
		select {
		case <-ctx.Done():
		case <-a.registry.Ready():
		}
		return s.Run(ctx)
	}
}

// eventTopics names the event topics for a consumer: as they are, or all as
// expressions where one of them is one.
func eventTopics(specs router.TopicSpecs) (topics []string, regex bool) {
	regex = slices.ContainsFunc(specs, func(s router.TopicSpec) bool { return s.Pattern != nil })
	for i := range specs {
		switch s := &specs[i]; {
		case s.Pattern != nil:
			topics = append(topics, s.Pattern.String())
		case regex:
			topics = append(topics, "^"+regexp.QuoteMeta(s.Topic)+"$")
		default:
			topics = append(topics, s.Topic)
		}
	}
	return topics, regex
}

// startMargin: events that were produced so long before the sink began are
// stored too, since the router may have routed them.
const startMargin = 10 * time.Minute

// since is where the events of a topic begin that was never seen before.
func since(start router.Start) time.Time {
	switch start {
	case router.StartEarliest:
		return time.Time{}
	case router.StartLatest:
		// The router may have begun a little before us.
		return time.Now().Add(-startMargin)
	}
	at, err := time.Parse(time.RFC3339, start.String())
	if err != nil {
		panic("BUG: START is neither earliest, latest nor a time: " + start.String())
	}
	return at
}

// sinkReadiness: a sink that has reached ClickHouse once stays ready; when it
// cannot now it is degraded: deliveries go on, and it catches up.
func sinkReadiness(s *sink.Sink) admin.Part {
	p := admin.Part{Name: "sink", Ready: s.Ready()}
	if err := s.Healthy(); err != nil {
		p.Degraded, p.Detail = p.Ready, err.Error()
	}
	if !p.Ready && p.Detail == "" {
		p.Detail = "not yet connected to ClickHouse"
	}
	return p
}

// sinkMetrics gives the sink's counts their Prometheus names.
type sinkMetrics struct{ m *telemetry.Metrics }

// SinkRows counts rows of all tables together.
func (s sinkMetrics) SinkRows(_ string, rows int) { s.m.SinkRows(rows) }

// SinkLag sets the age of the oldest record that waits.
func (s sinkMetrics) SinkLag(age time.Duration) { s.m.SinkLag(age) }

// KafkaLag sets a topic's lag.
func (s sinkMetrics) KafkaLag(topic string, records int64) { s.m.KafkaLag(topic, records) }

// SinkInsertError counts a failed insert.
func (s sinkMetrics) SinkInsertError(string) { s.m.SinkInsertError() }

// SinkMissing counts records that were removed too early.
func (s sinkMetrics) SinkMissing(topic string, records int64) { s.m.Missing(topic, records) }

// SinkDead counts a record that cannot be stored.
func (s sinkMetrics) SinkDead(string) { s.m.SinkDead() }
