package lane

import (
	"errors"
	"fmt"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Config holds the protocol's delays and bounds.
type Config struct {
	// Delays are the waits before retry 1, 2 and 3, counted from the end of
	// the failed attempt. At most three; their number bounds a subscription's
	// retries.
	Delays []time.Duration
	// MaxQueued (q) bounds the deliveries of one subscription that wait in
	// memory, over all its lanes; beyond it they are parked.
	MaxQueued int
	// SlowAfter (t) is how long a delivery may wait in memory behind a request
	// of its own subscription while the task is full; beyond it its lane is
	// parked. A task that is not full waits SlackFactor times as long. A due
	// retry that finds no slot for so long is moved to parked.
	SlowAfter time.Duration
	// MaxParked bounds the parked deliveries of one subscription that fails or is
	// paused, and the lanes of any; beyond it the subscription is disabled with
	// reason backlog. One that takes what it is sent may have more to catch up, and
	// of one that gets what it missed first ten times as many may be held.
	MaxParked int
	// MaxParkedAge bounds how long a delivery stays parked (not while held);
	// beyond it the subscription is disabled with reason backlog.
	MaxParkedAge time.Duration
	// MaxParkedOffsets (M) bounds the parked deliveries whose places a task keeps
	// in memory, over all its lanes. Each lane has at least its first; what is
	// beyond is read again from parked when the lane gets there.
	MaxParkedOffsets int
	// MaxRecords (W) bounds a task's unsettled records in memory.
	MaxRecords int
	// MaxPayloadBytes (B) bounds a task's payload bytes in memory, those that
	// wait for their transaction included.
	MaxPayloadBytes int
	// MaxRetryHeld bounds the records of one retry partition in memory.
	MaxRetryHeld int
	// LocalRetryAfter is the pause after a local error, which spends no attempt.
	LocalRetryAfter time.Duration
}

// delay is the wait before retry k. A head may stand in a retry topic for which
// no delay is configured any more: it waits as long as those of the last.
func (c *Config) delay(k int) time.Duration {
	if len(c.Delays) == 0 {
		return 0
	}
	return c.Delays[min(k, len(c.Delays))-1]
}

// SlackFactor times SlowAfter is the patience of a task that is not full.
const SlackFactor = 10

// DefaultConfig has the values that hookline runs with unless told otherwise.
func DefaultConfig() Config {
	return Config{
		Delays:       []time.Duration{30 * time.Second, 30 * time.Second, 30 * time.Second},
		MaxQueued:    1024,
		SlowAfter:    time.Second,
		MaxParked:    100_000,
		MaxParkedAge: 24 * time.Hour,

		MaxParkedOffsets: 200_000,

		MaxRecords:      2048,
		MaxPayloadBytes: 32 << 20,
		MaxRetryHeld:    4096,
		LocalRetryAfter: time.Second,
	}
}

// Validate names every value that is out of range.
func (c *Config) Validate() error {
	var errs []error
	if len(c.Delays) > pipeline.MaxRetries {
		errs = append(errs, fmt.Errorf("RETRY_DELAYS: %d delays: at most %d", len(c.Delays), pipeline.MaxRetries))
	}
	for i, d := range c.Delays {
		if d <= 0 || d > 24*time.Hour {
			errs = append(errs, fmt.Errorf("RETRY_DELAYS: delay %d is %v: must be over 0 and at most 24h", i+1, d))
		}
	}
	positive := func(name string, n int) {
		if n < 1 {
			errs = append(errs, fmt.Errorf("%s: %d: must be at least 1", name, n))
		}
	}
	positive("MAX_QUEUED", c.MaxQueued)
	positive("MAX_PARKED", c.MaxParked)
	positive("MAX_PARKED_OFFSETS", c.MaxParkedOffsets)
	positive("MAX_RECORDS", c.MaxRecords)
	positive("MAX_PAYLOAD_BYTES", c.MaxPayloadBytes)
	positive("MAX_RETRY_HELD", c.MaxRetryHeld)
	if c.SlowAfter <= 0 {
		errs = append(errs, fmt.Errorf("SLOW_AFTER: %v: must be over 0", c.SlowAfter))
	}
	if c.LocalRetryAfter <= 0 {
		errs = append(errs, fmt.Errorf("pause after a local error: %v: must be over 0", c.LocalRetryAfter))
	}
	if c.MaxParkedAge <= 0 {
		errs = append(errs, fmt.Errorf("MAX_PARKED_AGE: %v: must be over 0", c.MaxParkedAge))
	}
	return errors.Join(errs...)
}
