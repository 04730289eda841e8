package kafkax

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

// Readable headers of the dead topics.
const (
	HeaderWebhookID    = "webhook-id"
	HeaderSubscription = "hookline-subscription"
	HeaderReason       = "hookline-reason"
	HeaderMadeAttempts = "hookline-attempts"
	HeaderSource       = "hookline-source"
	HeaderError        = "hookline-error"
)

// MaxErrorBytes bounds the header hookline-error.
const MaxErrorBytes = 1024

// Dead is a delivery that ended by anything but success.
type Dead struct {
	Subscription string
	Reason       pipeline.DeadReason
	Attempts     int
	Error        string // the last attempt's, or why; cut to MaxErrorBytes
	Envelope     pipeline.Envelope
	Payload      []byte
}

// DeadRecord makes the record of d for topic dead. It shares d's payload.
func DeadRecord(topic string, partition int32, d *Dead) *kgo.Record {
	return &kgo.Record{
		Topic: topic, Partition: partition, Key: []byte(d.Subscription), Value: d.Payload,
		Headers: []kgo.RecordHeader{
			{Key: HeaderWebhookID, Value: []byte(pipeline.DeliveryID(&d.Envelope.Source, d.Subscription))},
			{Key: HeaderSubscription, Value: []byte(d.Subscription)},
			{Key: HeaderReason, Value: []byte(d.Reason)},
			{Key: HeaderMadeAttempts, Value: strconv.AppendInt(nil, int64(d.Attempts), 10)},
			{Key: HeaderSource, Value: []byte(d.Envelope.Source.String())},
			{Key: HeaderError, Value: []byte(CleanError(d.Error))},
			{Key: HeaderEnvelope, Value: EncodeEnvelope(nil, &d.Envelope)},
		},
	}
}

// ParseDead reads a record of topic dead as foreign input.
func ParseDead(rec *kgo.Record) (Dead, error) {
	d := Dead{Subscription: string(rec.Key), Attempts: -1, Payload: rec.Value}
	var id string
	var err error
	seen := false
	for i := range rec.Headers {
		h := &rec.Headers[i]
		switch h.Key {
		case HeaderWebhookID:
			id = string(h.Value)
		case HeaderReason:
			d.Reason = pipeline.DeadReason(h.Value)
		case HeaderMadeAttempts:
			var n int64
			if n, err = parseNumber(h.Value, MaxAttempts); err == nil {
				d.Attempts = int(n)
			}
		case HeaderError:
			d.Error = CleanError(string(h.Value))
		case HeaderEnvelope:
			seen, err = true, DecodeEnvelope(h.Value, &d.Envelope)
		}
		if err != nil {
			return Dead{}, fmt.Errorf("parsing dead letter %s/%d/%d: header %q: %w", rec.Topic, rec.Partition, rec.Offset, h.Key, err)
		}
	}
	why := ""
	switch {
	case !ValidSubscription(d.Subscription):
		why = "its key is not a subscription id"
	case !seen:
		why = "it has no envelope"
	case d.Attempts < 0:
		why = "it does not say how many attempts were made"
	case id != pipeline.DeliveryID(&d.Envelope.Source, d.Subscription):
		why = "its webhook-id is not that of its event and subscription"
	case !knownReason(d.Reason):
		why = "its reason is not known"
	}
	if why != "" {
		return Dead{}, fmt.Errorf("parsing dead letter %s/%d/%d: %s", rec.Topic, rec.Partition, rec.Offset, why)
	}
	return d, nil
}

func knownReason(r pipeline.DeadReason) bool {
	switch r {
	case pipeline.DeadExhausted, pipeline.DeadSkipped, pipeline.DeadBacklog, pipeline.DeadCancelled,
		pipeline.DeadUnreadable:
		return true
	}
	return false
}

// CleanError makes an error text fit for a header: valid UTF-8 without control
// characters, at most MaxErrorBytes.
func CleanError(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s[:min(len(s), 4*MaxErrorBytes)])
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= MaxErrorBytes {
		return s
	}
	s = s[:MaxErrorBytes]
	for len(s) > 0 {
		if r, n := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || n > 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s
}
