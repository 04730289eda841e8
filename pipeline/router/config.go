package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Config says what is routed, from where and how often.
type Config struct {
	// EventsTopics are the event topics and their formats.
	EventsTopics TopicSpecs `env:"EVENTS_TOPICS"`
	// Start says where a topic is read from when its first sight finds no
	// committed offset of it: latest, earliest or a time (RFC 3339).
	Start Start `env:"START" envDefault:"latest"`
	// Interval is the time from one transaction's begin to the next one's under
	// load, 1 ms to 1 s. An idle router does not wait. Defaults to 20 ms.
	Interval time.Duration `env:"ROUTER_INTERVAL" envDefault:"20ms"`
}

// Bounds of Config.Interval.
const (
	DefaultInterval = 20 * time.Millisecond
	minInterval     = time.Millisecond
	maxInterval     = time.Second
)

// Validate reports everything that is wrong with c, at once.
func (c *Config) Validate() error {
	var errs []error
	if len(c.EventsTopics) == 0 {
		errs = append(errs, errors.New("checking HOOKLINE_EVENTS_TOPICS: it is empty (write topic=format, such as cotalker.events=cotalker)"))
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		errs = append(errs, fmt.Errorf("checking HOOKLINE_ROUTER_INTERVAL: %v is not within %v to %v", c.Interval, minInterval, maxInterval))
	}
	return errors.Join(errs...)
}

// Start is where a topic is read from at its first sight. The zero value is
// latest.
type Start struct {
	earliest bool
	at       time.Time
}

// Starts that are not a time.
var (
	StartLatest   = Start{}
	StartEarliest = Start{earliest: true}
)

// StartAt starts at the first record at or after a time.
func StartAt(t time.Time) Start { return Start{at: t} }

// UnmarshalText parses latest, earliest or an RFC 3339 time.
func (s *Start) UnmarshalText(text []byte) error {
	switch string(text) {
	case "latest":
		*s = StartLatest
		return nil
	case "earliest":
		*s = StartEarliest
		return nil
	}
	t, err := time.Parse(time.RFC3339, string(text))
	if err != nil || t.UnixMilli() < 0 {
		return fmt.Errorf("parsing START: %q is neither latest, earliest nor a time such as 2026-01-31T08:00:00Z", text)
	}
	*s = StartAt(t)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (s Start) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String is latest, earliest or the time.
func (s Start) String() string {
	switch {
	case s.earliest:
		return "earliest"
	case s.at.IsZero():
		return "latest"
	}
	return s.at.Format(time.RFC3339)
}

// Parser fills ev from rec. An error means that the record is no event: it goes
// to events.dead with the error's text, which must be one line and quote nothing
// secret. ev.Payload may share rec.Value.
type Parser func(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, ev *pipeline.Event) error

// Matcher is an immutable index of the subscriptions at one version.
type Matcher interface {
	// IDs appends the ids of the subscriptions that take ev to dst, each once.
	IDs(ev *pipeline.Event, dst []string) []string
	// Version is the version of the registry that the index was made from.
	Version() int64
}

// Metrics is where the router counts. It must be safe for concurrent use.
type Metrics interface {
	// Event adds n to events_total; result is one of the Result constants.
	// Records count when their transaction has committed.
	Event(format, result string, n int)
	// DedupeForgotten adds n to dedupe_forgotten_total: ids that were forgotten
	// within the window, since their partition has too many.
	DedupeForgotten(n int)
	// KafkaLag sets the number of a topic's records, of our partitions, that are
	// not routed yet.
	KafkaLag(topic string, records int64)
}

// Tracer makes the spans of routing; it is called from Run's goroutine.
type Tracer interface {
	// Route begins the span of an event's routing and gives the context that
	// travels on with the event. parent is not valid where the event's producer
	// traced nothing. Where the trace is not recorded the span is nil, and the
	// context is parent as it came.
	Route(src *pipeline.Position, parent pipeline.TraceContext) (pipeline.RouteSpan, pipeline.TraceContext)
}

// What becomes of an event record: the label result of events_total.
const (
	ResultRouted    = "routed"    // it went to at least one subscription
	ResultUnmatched = "unmatched" // no subscription takes it
	ResultDead      = "dead"      // it is no event; see events.dead
	ResultDuplicate = "duplicate" // its id was seen within the topic's dedupe window
	ResultGap       = "gap"       // removed by retention before it was read
)

// formatUnknown labels what has no format.
const formatUnknown = "unknown"

// Deps is what the router needs of others.
type Deps struct {
	Kafka   *kafkax.Config
	Cluster string // the Kafka cluster id
	// Parse is nil for package format's. Another one must be safe for concurrent
	// use where a topic has dedupe.
	Parse Parser
	// Matcher gives the current index, nil until the registry was read to its
	// end. Nothing is consumed before. Called for each poll.
	Matcher func() Matcher
	// MatcherReadAt is the newest moment of which the current index is known to be
	// complete. Events are not matched while it is more than staleAfter ago: a
	// process that was frozen would route by subscriptions that are no more, and
	// pass over new ones. Nil: it always is complete.
	MatcherReadAt func() time.Time
	Metrics       Metrics      // nil: not counted
	Tracer        Tracer       // nil: no spans; trace contexts travel on as they came
	Log           *slog.Logger // nil: discarded
	// Opts are added to the client's options (tests).
	Opts []kgo.Opt

	// beforeEnd is called between producing and the end of the transaction; an
	// error ends Run there and then, as a crash would (tests).
	beforeEnd func(ctx context.Context) error
	memoryIDs int           // instead of maxMemoryIDs (tests)
	freshWait time.Duration // instead of the constant (tests)
	// openPatience and aheadSlack are the same.
	openPatience, aheadSlack time.Duration
	// unstableLimit is instead of the constant (tests).
	unstableLimit time.Duration
}

type noMetrics struct{}

func (noMetrics) Event(string, string, int) {}
func (noMetrics) DedupeForgotten(int)       {}
func (noMetrics) KafkaLag(string, int64)    {}
