// Package content makes the body and the content headers of a request out of an
// event and a subscription: pure, and the same bytes on every attempt, on every
// replay and wherever a request is put together again later.
//
// A payload goes out as it was produced, with two exceptions. One that has a
// Splice gets its subscription's id and a notification id of its own, byte by
// byte. And a subscription may ask for a CloudEvents mode: structured puts the
// payload into a JSON object with the event's attributes, binary puts the
// attributes into headers. An event that is a CloudEvent itself keeps its own
// attributes, and its mode where nothing else is asked for.
package content

import (
	"errors"
	"fmt"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

// Media types.
const (
	TypeJSON       = "application/json"
	TypeStructured = "application/cloudevents+json" // of CloudEvents' structured mode
)

// Message is what a request says about its event.
type Message struct {
	// Body is the request's Payload itself where nothing is changed, else the
	// end of what Render appended to.
	Body        []byte
	ContentType string
	Headers     []pipeline.Header // ce-*, of the binary mode only; their values are encoded
}

// Render gives the message of req. What it has to write it appends to dst, which
// it returns, grown, to be used again; dst must not overlap with the payload. An
// error means that the envelope and the payload do not belong together or that
// the payload is not what its format says; it quotes neither.
func Render(dst []byte, req *pipeline.Request) ([]byte, Message, error) {
	env := req.Envelope
	from := len(dst)
	mode := req.Subscription.ContentMode
	switch {
	case isStructured(env):
		if mode == pipeline.ContentBinary {
			return unwrap(dst, req.Payload)
		}
		return dst, Message{Body: req.Payload, ContentType: headerType(env, TypeStructured)}, nil
	case mode == pipeline.ContentStructured:
		dst, err := wrap(dst, req)
		if err != nil {
			return dst[:from], Message{}, err
		}
		return dst, Message{Body: dst[from:], ContentType: TypeStructured}, nil
	}
	m := Message{Body: req.Payload, ContentType: headerType(env, TypeJSON)}
	if env.Splice != nil {
		var err error
		if dst, err = appendPayload(dst, req); err != nil {
			return dst, Message{}, err
		}
		m.Body = dst[from:]
	}
	if mode == pipeline.ContentBinary || isCloudEvent(env) {
		var stack [ownAttributes]pipeline.Attribute
		m.Headers = headers(attributes(stack[:0], env))
	}
	return dst, m, nil
}

func isCloudEvent(env *pipeline.Envelope) bool { return env.Format == pipeline.FormatCloudEvents }

// isStructured tells whether the payload is a CloudEvent in structured mode.
func isStructured(env *pipeline.Envelope) bool { return isCloudEvent(env) && len(env.Attributes) == 0 }

// headerType is the event's content type, or fallback where it has none that a
// header can carry.
func headerType(env *pipeline.Envelope, fallback string) string {
	if env.ContentType == "" || !endpoint.ValidValue(env.ContentType) {
		return fallback
	}
	return env.ContentType
}

// appendPayload appends the payload as the subscription gets it.
func appendPayload(dst []byte, req *pipeline.Request) ([]byte, error) {
	if req.Envelope.Splice == nil {
		return append(dst, req.Payload...), nil
	}
	return appendSpliced(dst, req)
}

var errSplice = errors.New("rendering the payload: its envelope names places that it does not have")

// edit puts an id, between two texts, where payload[from:to] was.
type edit struct {
	from, to          int
	before, id, after string
}

// appendSpliced appends the payload with the subscription's ids; see
// pipeline.Splice.
func appendSpliced(dst []byte, req *pipeline.Request) ([]byte, error) {
	s, p := req.Envelope.Splice, req.Payload
	if s.InsertAt < 1 || s.InsertAt >= len(p) || p[s.InsertAt-1] != '{' {
		return dst, errSplice
	}
	notification := edit{s.IDFrom, s.IDTo, `"`, NotificationID(req.DeliveryID), `"`}
	if s.IDFrom == s.IDTo {
		notification = edit{s.InsertAt, s.InsertAt, `"id":"`, notification.id, `",`}
	}
	subscription := edit{s.SubFrom, s.SubTo, "", req.Subscription.ID, ""}
	switch s.Sub {
	case pipeline.SubAbsent:
		subscription = edit{s.InsertAt, s.InsertAt, `"subscription":{"id":"`, req.Subscription.ID, `"},`}
	case pipeline.SubValue:
		subscription.before, subscription.after = `{"id":"`, `"}`
	case pipeline.SubIDValue:
		subscription.before, subscription.after = `"`, `"`
	case pipeline.SubWithoutID:
		subscription.before, subscription.after = `"id":"`, `",`
	default:
		return dst, fmt.Errorf("rendering the payload: way %d of naming the subscription is not known (written by a newer hookline?)", s.Sub)
	}
	edits := [...]edit{notification, subscription}
	if subscription.from < notification.from {
		edits = [...]edit{subscription, notification}
	}
	from, at := len(dst), 0
	for i := range edits {
		e := &edits[i]
		if e.from < max(at, s.InsertAt) || e.to < e.from || e.to > len(p) {
			return dst[:from], errSplice
		}
		dst = append(dst, p[at:e.from]...)
		dst = append(append(append(dst, e.before...), e.id...), e.after...)
		at = e.to
	}
	return append(dst, p[at:]...), nil
}
