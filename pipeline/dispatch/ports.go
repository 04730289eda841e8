package dispatch

import (
	"errors"
	"log/slog"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Registry is what the dispatcher needs of the subscription registry.
type Registry interface {
	// View is the newest view; nil until the registry has been read.
	View() pipeline.Subscriptions
	// Changed gives a channel that gets a value after every change, coalesced.
	Changed() <-chan struct{}
}

// Metrics is what the dispatcher counts. Every method is called from the loop
// and must not block.
type Metrics interface {
	Attempted(a *pipeline.Attempt)
	Delivered(o pipeline.Outcome)            // a delivery ended
	FirstAttemptLag(a *pipeline.Attempt)     // event produced to first attempt
	Dead(reason pipeline.DeadReason)         // a record for dead was committed
	Lanes(st Stats)                          // every few seconds
	CommitTook(d time.Duration, records int) // one transaction
	KafkaLag(topic string, records int64)    // every few seconds
	// Missing counts records that somebody removed before they were read; it is
	// called from other goroutines too.
	Missing(topic string, records int64)
}

// Tracer makes the spans of deliveries whose event's trace is recorded.
type Tracer interface {
	// Attempt begins the span of a try, to url, which has no secrets. nil: none.
	// Called by workers, concurrently.
	Attempt(req *pipeline.Request, url string) pipeline.AttemptSpan
	// Delivery makes the span of a delivery that ended with a. Called from the
	// loop; it must not block.
	Delivery(a *pipeline.Attempt)
}

// Stats are gauges over all tasks of the process.
type Stats struct {
	Tasks, Waiting, Held, Parked, Heads, Queued, InFlight int
	MemoryBytes                                           int
	RetryOverdue                                          time.Duration
}

// Deps are the parts that the dispatcher works with. All are required but Tracer.
type Deps struct {
	Kafka    *kafkax.Config
	Sender   pipeline.Sender
	Registry Registry
	Gate     *Gate
	Metrics  Metrics
	Tracer   Tracer // nil: no spans; requests carry the event's trace context as it came
	Log      *slog.Logger
	// Node names this process in the log.
	Node string
	// RequestTimeout bounds one attempt: how long a stop waits for those that
	// are under way.
	RequestTimeout time.Duration
	// StateRecord encodes the registry record that disables a subscription.
	StateRecord func(Disabled) (key, value []byte)
	// HealthRecord encodes the registry record that says since when a
	// subscription is failing; zero: it is not.
	HealthRecord func(id string, revision int64, failingSince time.Time) (key, value []byte)
	// RedactURL is how a subscription's URL stands in the log.
	RedactURL func(url string) string

	unstableLimit time.Duration // tests: a shorter one
}

// Disabled is a subscription that a task disables.
type Disabled struct {
	ID, Reason   string
	Revision     int64
	Since        time.Time
	FailingSince time.Time // zero: it had not been failing
	// Routed is how far the router had come a moment before, by topic and
	// partition (-1: not known): what is behind it may not be routed to the
	// subscription any more. nil: not known.
	Routed map[string][]int64
}

func (d *Deps) validate() error {
	var errs []error
	need := func(ok bool, what string) {
		if !ok {
			errs = append(errs, errors.New("making dispatcher: no "+what))
		}
	}
	need(d.Kafka != nil, "Kafka configuration")
	need(d.Sender != nil, "sender")
	need(d.Registry != nil, "registry")
	need(d.Gate != nil, "gate")
	need(d.Metrics != nil, "metrics")
	need(d.Log != nil, "logger")
	need(d.RequestTimeout > 0, "request timeout")
	need(d.StateRecord != nil, "state record encoder")
	need(d.HealthRecord != nil, "health record encoder")
	need(d.RedactURL != nil, "URL redaction")
	return errors.Join(errs...)
}
