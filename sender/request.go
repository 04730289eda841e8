package sender

import (
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

// customHead is the headers that a subscription has of its own, as bytes.
type customHead struct {
	wire []byte
	// logged is the same as the log has it, without secret values.
	logged []byte
}

// newCustomHead gives nil where there are none. The header that carries the
// signature is not the subscription's to set, in any case of letters.
func newCustomHead(sub *pipeline.Subscription) *customHead {
	if len(sub.Headers) == 0 {
		return nil
	}
	signature, _ := signatureHeader(sub)
	var h customHead
	for _, custom := range sub.Headers {
		if strings.EqualFold(custom.Name, signature) {
			continue
		}
		h.wire = appendLine(h.wire, custom.Name, custom.Value)
		if endpoint.SecretHeader(custom.Name) {
			h.logged = appendRedacted(h.logged, custom.Name)
		} else {
			h.logged = appendLine(h.logged, custom.Name, custom.Value)
		}
	}
	return &h
}

// appendLine appends a header line. A line break in the value would begin
// another header: it becomes a space.
func appendLine(dst []byte, name, value string) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	at := len(dst)
	dst = append(dst, value...)
	if strings.ContainsAny(value, "\r\n") {
		for i := at; i < len(dst); i++ {
			if dst[i] == '\r' || dst[i] == '\n' {
				dst[i] = ' '
			}
		}
	}
	return append(dst, '\r', '\n')
}

func appendRedacted(dst []byte, name string) []byte {
	return append(append(dst, name...), ": [redacted]\r\n"...)
}

const (
	requestLineStart = fasthttp.MethodPost + " "
	requestLineEnd   = " HTTP/1.1\r\n"
)

// build makes the request and its log form, of what render has made. The error
// says why it cannot be signed.
func (x *exchange) build(c *Client, to *target, cr *credentials, req *pipeline.Request, res *pipeline.Result) error {
	body := x.content.Body
	b := append(append(append(x.wire[:0], requestLineStart...), to.url.Target...), requestLineEnd...)
	from := len(b)
	b = append(append(b, c.firstLine...), fasthttp.HeaderHost+": "...)
	b = append(append(b, to.url.Authority...), '\r', '\n')
	b = appendLine(b, fasthttp.HeaderContentType, x.content.ContentType)
	b = append(b, fasthttp.HeaderContentLength+": "...)
	b = append(strconv.AppendInt(b, int64(len(body)), 10), '\r', '\n')
	b = append(append(b, "X-Hookline-Subscription: "...), endpoint.SafeValue(to.sub.ID)...)
	b = append(b, '\r', '\n')
	logged := append(res.RequestHeaders, b[from:]...)
	if to.custom != nil {
		b, logged = append(b, to.custom.wire...), append(logged, to.custom.logged...)
	}
	own := len(b)
	for _, line := range x.content.Headers {
		b = appendLine(b, line.Name, line.Value)
	}
	id := endpoint.SafeValue(req.DeliveryID)
	b = appendLine(b, "webhook-id", id)
	b = x.appendOwn(b, c, req)
	logged = append(logged, b[own:]...)
	if x.authorization != "" {
		b = appendLine(b, fasthttp.HeaderAuthorization, x.authorization)
		logged = appendRedacted(logged, fasthttp.HeaderAuthorization)
	}
	if cr.signer.Signs() {
		var err error
		if b, logged, err = x.sign(b, logged, to, cr, id, c.now()); err != nil {
			return err
		}
	}
	b = append(b, crlf...)
	x.payload, res.RequestHeaders = body, logged
	if len(body) <= joinBytes {
		b, x.payload = append(b, body...), nil
	}
	x.wire = b
	return nil
}

// appendOwn appends the headers that tell of the event and the attempt.
func (x *exchange) appendOwn(b []byte, c *Client, req *pipeline.Request) []byte {
	env := req.Envelope
	if env.EventType != "" {
		b = appendLine(b, "X-Hookline-Event-Type", endpoint.SafeValue(env.EventType))
	}
	b = append(b, "X-Hookline-Attempt: "...)
	b = append(strconv.AppendInt(b, int64(req.Attempt), 10), '\r', '\n')
	if req.Test {
		b = append(b, "X-Hookline-Test: 1\r\n"...)
	}
	if env.Replay != "" {
		b = appendLine(b, "X-Hookline-Replay", endpoint.SafeValue(env.Replay))
	}
	if trace := req.TraceContext(); trace.Valid() {
		b = appendTrace(b, trace)
	}
	if env.Format == pipeline.FormatSIGNL4 && env.Correlation != "" {
		if fitsExternalID(env.Correlation) {
			b = appendLine(b, headerExternalID, env.Correlation)
		} else {
			c.metrics.HeaderOmitted(headerExternalID)
		}
	}
	return b
}

// appendTrace appends the headers of W3C Trace Context.
func appendTrace(b []byte, trace *pipeline.TraceContext) []byte {
	b = append(b, pipeline.HeaderTraceParent+": "...)
	b = append(trace.AppendParent(b), '\r', '\n')
	if trace.State == "" || !endpoint.ValidValue(trace.State) {
		return b
	}
	return appendLine(b, pipeline.HeaderTraceState, trace.State)
}

// sign appends the headers of the signature over the body as it is sent, and
// what the log has of them.
func (x *exchange) sign(b, logged []byte, to *target, cr *credentials, id string, now time.Time) (wire, log []byte, err error) {
	signature, hub := signatureHeader(to.sub)
	if !hub {
		at := len(b)
		b = append(b, "webhook-timestamp: "...)
		b = append(strconv.AppendInt(b, now.Unix(), 10), '\r', '\n')
		logged = append(logged, b[at:]...)
	}
	b = append(append(b, signature...), ": "...)
	if b, err = cr.signer.Append(b, id, now, x.content.Body); err != nil {
		return b, logged, err
	}
	return append(b, '\r', '\n'), appendRedacted(logged, signature), nil
}

// headerExternalID carries the id that SIGNL4's caller once gave the alert.
const headerExternalID = "X-S4-ExternalID"

// maxExternalID is the longest such id that is sent, in bytes: with a longer one
// receivers refuse the request as a whole.
const maxExternalID = 2048

// fitsExternalID tells whether the id arrives as it is: visible ASCII and
// spaces, which receivers take off at both ends.
func fitsExternalID(id string) bool {
	return len(id) <= maxExternalID && endpoint.ValidValue(id) && strings.IndexByte(id, '\t') < 0
}
