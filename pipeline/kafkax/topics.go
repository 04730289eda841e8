package kafkax

import (
	"math"
	"strconv"
	"time"
)

// Topics names hookline's own topics.
type Topics struct {
	Prefix string // TOPIC_PREFIX, with its dot
}

// RetryTopics is how many retry topics there are, and the most retries.
const RetryTopics = 3

// Deliveries holds one event and the subscriptions of this partition it goes to.
func (t Topics) Deliveries() string { return t.Prefix + "deliveries" }

// Retry is the topic of heads that wait for their k-th retry, k in 1..3.
func (t Topics) Retry(k int) string {
	if k < 1 || k > RetryTopics {
		panic("BUG: retry topic " + strconv.Itoa(k) + " is not within 1 to 3")
	}
	return t.Prefix + "retry." + strconv.Itoa(k)
}

// Parked holds the deliveries that wait behind a failed head.
func (t Topics) Parked() string { return t.Prefix + "parked" }

// Lanes is the compacted state of the waiting lanes and of the tasks (#d).
func (t Topics) Lanes() string { return t.Prefix + "lanes" }

// Dead holds the deliveries that ended by anything but success.
func (t Topics) Dead() string { return t.Prefix + "dead" }

// Attempts is the delivery log, binary batches.
func (t Topics) Attempts() string { return t.Prefix + "attempts" }

// AttemptsJSON is the delivery log as JSON, when switched on.
func (t Topics) AttemptsJSON() string { return t.Prefix + "attempts.json" }

// AttemptsDead holds log rows that ClickHouse refused.
func (t Topics) AttemptsDead() string { return t.Prefix + "attempts.dead" }

// EventsDead holds event records that could not be parsed.
func (t Topics) EventsDead() string { return t.Prefix + "events.dead" }

// Notices tells of changes of a subscription's state.
func (t Topics) Notices() string { return t.Prefix + "notices" }

// Audit tells who did what.
func (t Topics) Audit() string { return t.Prefix + "audit" }

// WebhookCalled has goflow's webhook_called events, when switched on.
func (t Topics) WebhookCalled() string { return t.Prefix + "webhook_called" }

// Subscriptions is the compacted registry, of one partition.
func (t Topics) Subscriptions() string { return t.Prefix + "subscriptions" }

// Replays is the compacted state of replays.
func (t Topics) Replays() string { return t.Prefix + "replays" }

// Control carries operators' commands to lanes.
func (t Topics) Control() string { return t.Prefix + "control" }

// TaskTopics are the topics that task p reads or writes partition p of, besides
// dead: they must have the same number of partitions.
func (t Topics) TaskTopics() []string {
	return []string{t.Deliveries(), t.Retry(1), t.Retry(2), t.Retry(3), t.Parked(), t.Lanes()}
}

// Setting is what a topic must be like.
type Setting struct {
	Topic      string
	Partitions int32
	// Configs are the topic's configuration where hookline makes it.
	Configs map[string]string
	// Optional: made only where asked for, checked where it exists.
	Optional bool
	// Compacted and Unlimited: cleanup.policy is compact; retention.ms is -1.
	// Both are checked on topics that exist.
	Compacted, Unlimited bool
}

// Broker-side settings that more than one function names.
const (
	configCleanup      = "cleanup.policy"
	configRetention    = "retention.ms"
	configRetentionLen = "retention.bytes"
	configMaxMessage   = "max.message.bytes"
	configMinISR       = "min.insync.replicas"
)

// Settings is the table of topics, in the order in which they are made.
func (c *Config) Settings() []Setting {
	t, n := c.Topics(), c.Partitions
	out := []Setting{
		{Topic: t.Subscriptions(), Partitions: 1, Compacted: true},
		{Topic: t.Deliveries(), Partitions: n, Unlimited: true},
		{Topic: t.Retry(1), Partitions: n, Unlimited: true},
		{Topic: t.Retry(2), Partitions: n, Unlimited: true},
		{Topic: t.Retry(3), Partitions: n, Unlimited: true},
		{Topic: t.Parked(), Partitions: n, Unlimited: true},
		{Topic: t.Lanes(), Partitions: n, Compacted: true},
		{Topic: t.Replays(), Partitions: 1, Compacted: true},
	}
	for _, d := range []struct {
		topic      string
		partitions int32
		days       int
		optional   bool
	}{
		{t.Dead(), n, 30, false},
		{t.Attempts(), 4, 7, false},
		{t.AttemptsJSON(), 4, 7, true},
		{t.AttemptsDead(), 1, 30, false},
		{t.EventsDead(), 1, 30, false},
		{t.Notices(), 1, 30, false},
		{t.Audit(), 1, 30, false},
		{t.WebhookCalled(), 1, 30, true},
		{t.Control(), 1, 1, false},
	} {
		s := Setting{Topic: d.topic, Partitions: d.partitions, Optional: d.optional}
		s.Configs = map[string]string{configRetention: millis(time.Duration(d.days) * day)}
		out = append(out, s)
	}
	for i := range out {
		c.complete(&out[i])
	}
	return out
}

// complete fills in the configuration that follows from a setting's kind.
func (c *Config) complete(s *Setting) {
	if s.Configs == nil {
		s.Configs = map[string]string{}
	}
	s.Configs[configCleanup] = "delete"
	s.Configs[configMaxMessage] = strconv.Itoa(c.MaxMessageBytes())
	switch {
	case s.Compacted:
		// Small segments: the active one is never compacted, and a starting task
		// reads all that is left. One segment must still hold the largest record.
		s.Configs[configCleanup] = "compact"
		s.Configs["segment.bytes"] = strconv.Itoa(max(8<<20, min(4*c.MaxMessageBytes(), math.MaxInt32)))
		s.Configs["segment.ms"] = millis(time.Hour)
		s.Configs["min.cleanable.dirty.ratio"] = "0.1"
		s.Configs["max.compaction.lag.ms"] = millis(2 * time.Hour)
	case s.Unlimited:
		s.Configs[configRetention] = "-1"
		s.Configs[configRetentionLen] = "-1"
		// DeleteRecords frees whole segments only.
		s.Configs["segment.bytes"] = strconv.Itoa(max(128<<20, min(4*c.MaxMessageBytes(), math.MaxInt32)))
	}
	if c.Replication >= 3 {
		s.Configs[configMinISR] = "2"
	}
}

func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
