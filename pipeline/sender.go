package pipeline

import (
	"sync/atomic"
	"time"
)

// Request asks a Sender for one try of one delivery. The Sender does not keep
// it, nor anything it points to, after Send returned.
type Request struct {
	// DeliveryID may be left empty: then the Sender makes it, of the envelope's
	// source and the subscription, and fills it in.
	DeliveryID   string
	Attempt      int // 1..4, header X-Hookline-Attempt
	Subscription *Subscription
	Envelope     *Envelope
	Payload      []byte
	// Trace goes out as traceparent and tracestate; nil: the envelope's.
	Trace *TraceContext
	// Withdrawn, where not nil and true when the first byte would be written, ends
	// the try as local_error with nothing written: the delivery is another
	// process's by now.
	Withdrawn *atomic.Bool
	// Test marks a request that is no delivery (header X-Hookline-Test).
	Test bool
}

// TraceContext is what the request carries.
func (r *Request) TraceContext() *TraceContext {
	if r.Trace != nil {
		return r.Trace
	}
	return &r.Envelope.Trace
}

// Result is what came of a Request. Its byte slices belong to the Result: they
// are valid until it is passed to Send again.
type Result struct {
	Outcome           Outcome
	URL               string // the subscription's, as the log has it; empty: the Sender did not say
	StatusCode        int    // 0: no complete answer
	Error             string
	StartedAt         time.Time // carries a monotonic reading
	Elapsed           time.Duration
	DNS               time.Duration
	Connect           time.Duration
	TLS               time.Duration
	TTFB              time.Duration
	RequestHeaders    []byte
	RequestBytes      int // length of the body that was made for the request
	RequestWritten    bool
	ResponseHeaders   []byte
	ResponseBody      []byte
	ResponseTruncated bool
	Resends           int
	AckID             string // see Attempt.AckID
	// RetryAfter is the answer's Retry-After on 429 and 503, cut to [0, 1h];
	// 0: none.
	RetryAfter time.Duration
}

// EndedAt is the moment the try ended, from which a retry's delay counts.
func (r *Result) EndedAt() time.Time { return r.StartedAt.Add(r.Elapsed) }

// Sender makes one try and fills res. It blocks until the try has ended, at the
// latest at the request's time limit; it never panics and never retries beyond
// the one safe resend. Safe for concurrent use.
type Sender interface {
	Send(req *Request, res *Result)
}

// Try is a Request and its Result, for a Batch.
type Try struct {
	Request Request
	Result  Result
	Owner   any // the caller's own; a Batch does not look at it
}

// Batcher is a Sender that can make many tries with few goroutines.
type Batcher interface {
	Sender
	// Batch begins to do so; false: it cannot here. done gets tries that have
	// ended. It is called on goroutines of the Batch, several at once; it must not
	// block and must not keep the slice. One Batch may be open at a time.
	Batch(done func([]*Try)) (Batch, bool)
}

// Batch makes tries. Each is to Send what a call of it would be: the same rules,
// limits and results.
type Batch interface {
	// Start begins tries and returns at once. Each comes back by done exactly
	// once, in any order, about as late as Send would have returned.
	Start(tries []*Try)
	// Close waits until all tries have come back. Start must not be called any more.
	Close()
}
