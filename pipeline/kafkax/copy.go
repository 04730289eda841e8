package kafkax

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

const (
	// MaxAttempts is the first attempt and MaxRetries more.
	MaxAttempts = 1 + pipeline.MaxRetries
	// MaxRounds bounds the operator's retries of one head.
	MaxRounds = 1_000_000
	// MaxLaneBytes bounds a lane key: an entity is part of the envelope, too.
	MaxLaneBytes = MaxEnvelopeBytes
	// maxAhead is how much later than its record's timestamp a failure or a
	// not-before time may be before it counts as forged. Retry-After is honoured
	// for an hour; the rest is for clocks.
	maxAhead = 24 * time.Hour
)

// Copy is a delivery in retry.* or parked.
type Copy struct {
	Subscription string
	Lane         string
	Origin       int64     // offset in deliveries
	Attempts     int       // made so far, 0..MaxAttempts
	Round        int       // 0; +1 for each operator's retry
	FailedAt     time.Time // end of the last failed attempt, rounded up to the ms; zero: none
	NotBefore    time.Time // zero: no such bound
	Envelope     []byte    // encoded
	Payload      []byte
}

// Record makes the Kafka record of c. It shares c's Envelope and Payload.
func (c *Copy) Record(topic string, partition int32) *kgo.Record {
	headers := make([]kgo.RecordHeader, 0, 7)
	headers = append(headers,
		kgo.RecordHeader{Key: HeaderEnvelope, Value: c.Envelope},
		kgo.RecordHeader{Key: HeaderOrigin, Value: strconv.AppendInt(nil, c.Origin, 10)},
		kgo.RecordHeader{Key: HeaderLane, Value: []byte(c.Lane)},
		kgo.RecordHeader{Key: HeaderAttempts, Value: strconv.AppendInt(nil, int64(c.Attempts), 10)},
	)
	if c.Round != 0 {
		headers = append(headers, kgo.RecordHeader{Key: HeaderRound, Value: strconv.AppendInt(nil, int64(c.Round), 10)})
	}
	if !c.FailedAt.IsZero() {
		headers = append(headers, kgo.RecordHeader{Key: HeaderFailedAt, Value: appendMillisUp(nil, c.FailedAt)})
	}
	if !c.NotBefore.IsZero() {
		headers = append(headers, kgo.RecordHeader{Key: HeaderNotBefore, Value: appendMillisUp(nil, c.NotBefore)})
	}
	return &kgo.Record{Topic: topic, Partition: partition, Key: []byte(c.Subscription), Value: c.Payload, Headers: headers}
}

// appendMillisUp writes t in unix milliseconds, rounded up: never early.
func appendMillisUp(dst []byte, t time.Time) []byte {
	return strconv.AppendInt(dst, t.Add(time.Millisecond-time.Nanosecond).UnixMilli(), 10)
}

// ParseCopy reads a record of retry.* or parked as foreign input: whatever is
// missing, twice there, out of range or does not belong together is an error.
// The Copy shares the record's envelope and payload; the envelope itself is for
// DecodeEnvelope to check.
func ParseCopy(rec *kgo.Record) (Copy, error) {
	c := Copy{Subscription: string(rec.Key), Origin: -1, Attempts: -1, Payload: rec.Value}
	for i := range rec.Headers {
		if err := c.parseHeader(rec, &rec.Headers[i]); err != nil {
			return Copy{}, fmt.Errorf("parsing copy %s/%d/%d: header %q: %w", rec.Topic, rec.Partition, rec.Offset, rec.Headers[i].Key, err)
		}
	}
	if err := c.check(); err != nil {
		return Copy{}, fmt.Errorf("parsing copy %s/%d/%d: %w", rec.Topic, rec.Partition, rec.Offset, err)
	}
	return c, nil
}

func (c *Copy) parseHeader(rec *kgo.Record, h *kgo.RecordHeader) (err error) {
	twice := false
	switch h.Key {
	case HeaderEnvelope:
		twice, c.Envelope = c.Envelope != nil, h.Value
		if len(h.Value) > MaxEnvelopeBytes {
			return fmt.Errorf("%d bytes are more than %d", len(h.Value), MaxEnvelopeBytes)
		}
	case HeaderLane:
		twice, c.Lane = c.Lane != "", string(h.Value)
	case HeaderOrigin:
		twice = c.Origin >= 0
		c.Origin, err = parseNumber(h.Value, 1<<62)
	case HeaderAttempts:
		twice = c.Attempts >= 0
		var n int64
		n, err = parseNumber(h.Value, MaxAttempts)
		c.Attempts = int(n)
	case HeaderRound:
		twice = c.Round != 0
		var n int64
		n, err = parseNumber(h.Value, MaxRounds)
		c.Round = int(n)
	case HeaderFailedAt:
		twice = !c.FailedAt.IsZero()
		c.FailedAt, err = parseMillis(h.Value, rec.Timestamp)
	case HeaderNotBefore:
		twice = !c.NotBefore.IsZero()
		c.NotBefore, err = parseMillis(h.Value, rec.Timestamp)
	}
	if twice && err == nil {
		err = errors.New("it is there twice")
	}
	return err
}

func (c *Copy) check() error {
	switch {
	case !ValidSubscription(c.Subscription):
		return errors.New("its key is not a subscription id")
	case c.Envelope == nil:
		return fmt.Errorf("header %q is missing", HeaderEnvelope)
	case c.Origin < 0:
		return fmt.Errorf("header %q is missing", HeaderOrigin)
	case c.Attempts < 0:
		return fmt.Errorf("header %q is missing", HeaderAttempts)
	case len(c.Lane) > MaxLaneBytes:
		return fmt.Errorf("its lane key has more than %d bytes", MaxLaneBytes)
	case !laneBelongs(c.Lane, c.Subscription, c.Origin):
		return errors.New("its lane is not one of its subscription's")
	}
	return nil
}

// laneBelongs tells whether pipeline.LaneKey can have given lane.
func laneBelongs(lane, sub string, origin int64) bool {
	if pipeline.LaneSubscription(lane) != sub {
		return false
	}
	env := pipeline.Envelope{Entity: pipeline.LaneEntity(lane)}
	if pipeline.LaneIsCatchUp(lane) {
		env.Replay = pipeline.CatchUpReplay("")
	}
	return lane == pipeline.LaneKeyOf(sub, pipeline.LaneOrdering(lane), &env, origin)
}

// parseNumber parses a decimal number in 0..limit, in the one way it is written.
func parseNumber(b []byte, limit int64) (int64, error) {
	if len(b) == 0 || len(b) > 19 || b[0] == '0' && len(b) > 1 {
		return 0, fmt.Errorf("%.24q is not a number", b)
	}
	var n uint64 // 19 digits fit
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, fmt.Errorf("%.24q is not a number", b)
		}
		n = n*10 + uint64(c-'0')
	}
	if n > uint64(limit) {
		return 0, fmt.Errorf("%.24q is more than %d", b, limit)
	}
	return int64(n), nil
}

// parseMillis parses unix milliseconds that are not far after at, the record's
// own timestamp (where it has one).
func parseMillis(b []byte, at time.Time) (time.Time, error) {
	n, err := parseNumber(b, maxUnix*1000-1)
	if err != nil {
		return time.Time{}, err
	}
	t := time.UnixMilli(n).UTC()
	if n == 0 || at.UnixMilli() > 0 && t.Sub(at) > maxAhead {
		return time.Time{}, fmt.Errorf("time %d is not credible for a record of %d (ms)", n, at.UnixMilli())
	}
	return t, nil
}
