package dispatch

import (
	"errors"
	"fmt"
	"time"

	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Config of the dispatcher. The prefix HOOKLINE_ of the environment is added by
// who parses it.
type Config struct {
	// RetryDelays are the waits before retry 1, 2 and 3, counted from the end of
	// the failed attempt. At most three; fewer allow fewer retries.
	RetryDelays []kafkax.Duration `env:"RETRY_DELAYS" envDefault:"30s,30s,30s"`
	// MaxInFlight bounds the requests under way in this process, but for those of
	// MAX_SLOW_IN_FLIGHT.
	MaxInFlight int `env:"MAX_IN_FLIGHT" envDefault:"256"`
	// MaxSlow bounds the requests that may be under way besides MAX_IN_FLIGHT because
	// they have had no answer for half a second: so many endpoints that never
	// answer take no slot from the others. Each costs about 30 KB and a file descriptor.
	MaxSlow int `env:"MAX_SLOW_IN_FLIGHT" envDefault:"4096"`
	// FailingShare is the percentage of MAX_IN_FLIGHT that lanes whose last
	// attempt failed may have together.
	FailingShare int `env:"FAILING_SHARE" envDefault:"25"`
	// CommitInterval is the time between two transactions under load. Longer
	// costs less and delays retries and dead letters by as much.
	CommitInterval kafkax.Duration `env:"COMMIT_INTERVAL" envDefault:"50ms"`
	// SessionTimeout after which the group takes a silent process's partitions.
	SessionTimeout kafkax.Duration `env:"SESSION_TIMEOUT" envDefault:"10s"`
	// MaxQueued bounds the deliveries of one subscription that wait in memory,
	// per partition; more are parked in Kafka.
	MaxQueued int `env:"MAX_QUEUED" envDefault:"1024"`
	// SlowAfter is how long deliveries wait in memory behind a request of their
	// own subscription before they are parked, when the partition is held up by
	// it (ten times as long when it is not).
	SlowAfter kafkax.Duration `env:"SLOW_AFTER" envDefault:"1s"`
	// MaxParked bounds the parked deliveries of one subscription that fails or is paused, and the lanes of any; beyond it the
	// subscription is disabled with reason backlog. One that takes what it is sent may be further behind, and of one that gets
	// what it missed first ten times as many may be held.
	MaxParked int `env:"MAX_PARKED" envDefault:"100000"`
	// MaxParkedAge bounds how long a delivery stays parked, not counting while
	// its lane is held; beyond it the subscription is disabled.
	MaxParkedAge kafkax.Duration `env:"MAX_PARKED_AGE" envDefault:"24h"`
	// MaxParkedOffsets bounds the parked deliveries whose places are kept in
	// memory, per partition; the places of more are read again from Kafka when
	// they are needed.
	MaxParkedOffsets int `env:"MAX_PARKED_OFFSETS" envDefault:"200000"`
	// MaxRecords bounds the unsettled deliveries records in memory, per partition.
	MaxRecords int `env:"MAX_RECORDS" envDefault:"2048"`
	// MaxPayloadBytes bounds the payload bytes in memory, per partition.
	MaxPayloadBytes kafkax.Bytes `env:"MAX_PAYLOAD_BYTES" envDefault:"32MiB"`
}

// DefaultConfig has the defaults that the environment has.
func DefaultConfig() Config {
	s := func(d time.Duration) kafkax.Duration { return kafkax.Duration(d) }
	return Config{
		RetryDelays: []kafkax.Duration{s(30 * time.Second), s(30 * time.Second), s(30 * time.Second)},
		MaxInFlight: 256, MaxSlow: 4096, FailingShare: 25, CommitInterval: s(50 * time.Millisecond),
		SessionTimeout: s(10 * time.Second), MaxQueued: 1024, SlowAfter: s(time.Second), MaxParked: 100_000,
		MaxParkedAge: s(24 * time.Hour), MaxParkedOffsets: 200_000, MaxRecords: 2048, MaxPayloadBytes: 32 << 20,
	}
}

// Lane gives the bounds of the state machine.
func (c *Config) Lane() lane.Config {
	l := lane.DefaultConfig()
	l.Delays = nil
	for _, d := range c.RetryDelays {
		l.Delays = append(l.Delays, time.Duration(d))
	}
	l.MaxQueued, l.SlowAfter = c.MaxQueued, time.Duration(c.SlowAfter)
	l.MaxParked, l.MaxParkedAge = c.MaxParked, time.Duration(c.MaxParkedAge)
	l.MaxParkedOffsets = c.MaxParkedOffsets
	l.MaxRecords, l.MaxPayloadBytes = c.MaxRecords, int(c.MaxPayloadBytes)
	return l
}

// Limits of the configuration.
const (
	MaxInFlightLimit  = 1 << 16
	minSessionTimeout = time.Second
	maxSessionTimeout = 5 * time.Minute
)

// Validate reports everything that is wrong, at once.
func (c *Config) Validate() error {
	l := c.Lane()
	errs := []error{l.Validate()}
	within := func(name string, n, lo, hi int) {
		if n < lo || n > hi {
			errs = append(errs, fmt.Errorf("%s: %d: must be within %d to %d", name, n, lo, hi))
		}
	}
	within("MAX_IN_FLIGHT", c.MaxInFlight, 1, MaxInFlightLimit)
	within("MAX_SLOW_IN_FLIGHT", c.MaxSlow, 0, MaxInFlightLimit)
	within("FAILING_SHARE", c.FailingShare, 1, 100)
	span := func(name string, d kafkax.Duration, lo, hi time.Duration) {
		if t := time.Duration(d); t < lo || t > hi {
			errs = append(errs, fmt.Errorf("%s: %v: must be within %v to %v", name, d, lo, hi))
		}
	}
	span("COMMIT_INTERVAL", c.CommitInterval, time.Millisecond, 5*time.Second)
	span("SESSION_TIMEOUT", c.SessionTimeout, minSessionTimeout, maxSessionTimeout)
	return errors.Join(errs...)
}

// failingSlots is the number of requests that failing lanes may have under way.
func (c *Config) failingSlots() int { return max(1, c.MaxInFlight*c.FailingShare/100) }
