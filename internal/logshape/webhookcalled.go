package logshape

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/pipeline"
)

// WebhookStatus is how an attempt ended in the words of goflow's webhook_called.
type WebhookStatus string

// The statuses.
const (
	WebhookSuccess         WebhookStatus = "success"
	WebhookConnectionError WebhookStatus = "connection_error" // no complete answer
	WebhookResponseError   WebhookStatus = "response_error"   // an answer that is not a success
	WebhookSubscriberGone  WebhookStatus = "subscriber_gone"  // 410
)

// WebhookStatusOf gives the status of an attempt.
func WebhookStatusOf(a *pipeline.Attempt) WebhookStatus {
	switch {
	case a.Outcome == pipeline.OutcomeSuccess:
		return WebhookSuccess
	case a.Outcome == pipeline.OutcomeGone:
		return WebhookSubscriberGone
	case a.StatusCode != 0:
		return WebhookResponseError
	}
	return WebhookConnectionError
}

// Called is what a webhook_called is made of besides its attempt.
type Called struct {
	// Payload is the event's, as the subscriber gets it; nil: not known (yet).
	Payload []byte
	// Resthook that the event called; empty: none.
	Resthook string
	// BodyBytes is how much of a request's body is shown; 0: nothing. An answer's
	// body was cut already when it was logged.
	BodyBytes int
	// BodiesDropped: headers and bodies are not in the log, since the record was
	// too large for Kafka.
	BodiesDropped bool
	// WithIDs adds subscription_id and event_id, which the published shape lacks.
	WithIDs bool
}

// AppendWebhookCalled appends the attempt as one line of JSON without its line
// break, with the published keys in their order. The dumps have what the log
// has: secrets redacted. body_ignored says that a body was there of which not
// all is shown: it was binary, too long, or is not known.
func AppendWebhookCalled(dst []byte, a *pipeline.Attempt, c Called) []byte {
	request, ignored := requestDump(a, &c)
	dst = append(dst, `{"type":"webhook_called","created_on":"`...)
	dst = endedAt(a).AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	dst = append(dst, `","url":`...)
	dst = appendText(dst, a.URL)
	if c.Resthook != "" {
		dst = append(dst, `,"resthook":`...)
		dst = appendText(dst, c.Resthook)
	}
	dst = append(dst, `,"status":"`...)
	dst = append(dst, WebhookStatusOf(a)...)
	dst = append(dst, '"')
	if a.StatusCode != 0 {
		dst = append(dst, `,"status_code":`...)
		dst = strconv.AppendInt(dst, int64(a.StatusCode), 10)
	}
	dst = append(dst, `,"elapsed_ms":`...)
	dst = strconv.AppendInt(dst, a.Elapsed.Milliseconds(), 10)
	dst = append(dst, `,"request":`...)
	dst = appendText(dst, request)
	if a.StatusCode != 0 {
		response, dropped := responseDump(a)
		ignored = ignored || dropped
		dst = append(dst, `,"response":`...)
		dst = appendText(dst, response)
	}
	if ignored || c.BodiesDropped {
		dst = append(dst, `,"body_ignored":true`...)
	}
	if c.WithIDs {
		dst = append(dst, `,"subscription_id":`...)
		dst = appendText(dst, a.SubscriptionID)
		dst = append(dst, `,"event_id":`...)
		dst = appendText(dst, a.Envelope.EventID)
	}
	return append(dst, '}')
}

// requestDump is the request as it was sent, or was to be sent. ignored: not the
// whole body is in it.
func requestDump(a *pipeline.Attempt, c *Called) (dump string, ignored bool) {
	authority, target := splitURL(a.URL)
	var b strings.Builder
	b.WriteString("POST " + target + " HTTP/1.1\r\n")
	if len(a.RequestHeaders) == 0 {
		b.WriteString("Host: " + authority + "\r\n")
	}
	b.Write(a.RequestHeaders)
	b.WriteString("\r\n")
	// A body of another length than was sent is not the one that was sent.
	unsent := !a.RequestWritten && a.RequestBytes == 0
	if len(c.Payload) != a.RequestBytes && !unsent || c.Payload == nil {
		return b.String(), true
	}
	body := c.Payload
	if len(body) > c.BodyBytes {
		body, ignored = body[:c.BodyBytes], true
	}
	b.Write(body)
	return b.String(), ignored
}

// splitURL takes a logged URL apart; one that is not shown gives the target /.
func splitURL(url string) (authority, target string) {
	_, rest, ok := strings.Cut(url, "://")
	if !ok {
		return "", "/"
	}
	n := strings.IndexAny(rest, "/?")
	if n < 0 {
		return rest, "/"
	}
	authority, target = rest[:n], rest[n:]
	if target[0] != '/' {
		target = "/" + target
	}
	return authority, target
}

// responseDump is the answer. dropped: not its whole body is in it.
func responseDump(a *pipeline.Attempt) (dump string, dropped bool) {
	var b strings.Builder
	b.WriteString("HTTP/1.1 " + strconv.Itoa(a.StatusCode) + " " + http.StatusText(a.StatusCode) + "\r\n")
	b.Write(a.ResponseHeaders)
	b.WriteString("\r\n")
	if binary(a.ResponseBody, a.ResponseTruncated) {
		return b.String(), true
	}
	b.Write(a.ResponseBody)
	return b.String(), a.ResponseTruncated
}

// binary tells whether body is no text. A truncated one may end within a
// character.
func binary(body []byte, truncated bool) bool {
	if bytes.IndexByte(body, 0) >= 0 {
		return true
	}
	ends := 1
	if truncated {
		ends = utf8.UTFMax
	}
	for n := range ends {
		if utf8.Valid(body[:max(0, len(body)-n)]) {
			return false
		}
	}
	return true
}

// ResthookOf is the resthook that a goflow event called, of which raw is the
// whole record; empty for events of other types.
func ResthookOf(eventType string, raw []byte) string {
	var event struct {
		Resthook string `json:"resthook"`
	}
	if eventType != "resthook_called" || json.Unmarshal(raw, &event) != nil {
		return ""
	}
	return event.Resthook
}

// WithoutDumps gives a webhook_called again without what makes it long: of the
// request its first line is left, the response is left out.
func WithoutDumps(called []byte) ([]byte, error) {
	var members struct {
		Type        jsontext.Value `json:"type"`
		CreatedOn   jsontext.Value `json:"created_on"`
		URL         jsontext.Value `json:"url"`
		Resthook    jsontext.Value `json:"resthook,omitzero"`
		Status      jsontext.Value `json:"status"`
		StatusCode  jsontext.Value `json:"status_code,omitzero"`
		ElapsedMS   jsontext.Value `json:"elapsed_ms"`
		Request     string         `json:"request"`
		BodyIgnored bool           `json:"body_ignored"`
	}
	if err := json.Unmarshal(called, &members); err != nil {
		return nil, fmt.Errorf("shortening a webhook_called: %w", err)
	}
	line, _, _ := strings.Cut(members.Request, "\r\n")
	members.Request, members.BodyIgnored = line+"\r\n\r\n", true
	b, err := json.Marshal(&members)
	if err != nil {
		return nil, fmt.Errorf("shortening a webhook_called: %w", err)
	}
	return b, nil
}
