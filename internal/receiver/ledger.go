package receiver

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/valyala/fasthttp"
)

// Request is one request as the ledger has it.
type Request struct {
	Time         time.Time `json:"time"` // when it had been read
	Method       string    `json:"method"`
	Path         string    `json:"path"` // without the query
	DeliveryID   string    `json:"webhook_id"`
	Subscription string    `json:"subscription"`
	EventType    string    `json:"event_type"`
	Attempt      int       `json:"attempt"` // 0: the request names none
	Replay       string    `json:"replay,omitempty"`
	Test         bool      `json:"test,omitempty"`
	Status       int       `json:"status"` // as answered after this was written down; 0: no answer
	BodyBytes    int       `json:"body_bytes"`
	BodySHA256   string    `json:"body_sha256"`
	Body         string    `json:"body,omitempty"` // with KeepBodies
	// Headers are by their names in lower case, with KeepHeaders.
	Headers map[string]string `json:"headers,omitempty"`
}

func (r *Receiver) read(ctx *fasthttp.RequestCtx) Request {
	h := &ctx.Request.Header
	body := ctx.PostBody()
	sum := sha256.Sum256(body)
	attempt, _ := strconv.Atoi(string(h.Peek("X-Hookline-Attempt")))
	req := Request{
		Time:         r.cfg.Now(),
		Method:       string(ctx.Method()),
		Path:         string(ctx.Path()),
		DeliveryID:   string(h.Peek("webhook-id")),
		Subscription: string(h.Peek("X-Hookline-Subscription")),
		EventType:    string(h.Peek("X-Hookline-Event-Type")),
		Attempt:      attempt,
		Replay:       string(h.Peek("X-Hookline-Replay")),
		Test:         len(h.Peek("X-Hookline-Test")) > 0,
		BodyBytes:    len(body),
		BodySHA256:   hex.EncodeToString(sum[:]),
	}
	if r.cfg.KeepBodies {
		req.Body = string(body)
	}
	if r.cfg.KeepHeaders {
		req.Headers = make(map[string]string, h.Len())
		for name, value := range h.All() {
			req.Headers[strings.ToLower(string(name))] = string(value)
		}
	}
	return req
}

// record writes req to the ledger, then to memory, in the same order in both.
func (r *Receiver) record(req *Request) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.ledger.append(req); err != nil {
		return err
	}
	r.total++
	if r.cfg.MaxRequests > 0 {
		if len(r.requests) >= r.cfg.MaxRequests {
			// A quarter at once: taking the first off each time would copy all.
			r.requests = append(r.requests[:0], r.requests[max(1, len(r.requests)/4):]...)
		}
		r.requests = append(r.requests, *req)
	}
	close(r.arrived)
	r.arrived = make(chan struct{})
	return nil
}

// ledger appends JSON lines to a file, under the Receiver's lock. A nil ledger
// drops them.
type ledger struct{ file *os.File }

func openLedger(path string) (*ledger, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening the ledger: %w", err)
	}
	return &ledger{file: f}, nil
}

func (l *ledger) append(req *Request) error {
	if l == nil {
		return nil
	}
	line, err := json.Marshal(req)
	if err != nil {
		return fmt.Errorf("encoding a ledger line: %w", err)
	}
	// One write for each line: a receiver that is killed leaves whole lines.
	if _, err := l.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("writing the ledger: %w", err)
	}
	return nil
}

func (l *ledger) close() error {
	if l == nil {
		return nil
	}
	if err := l.file.Close(); err != nil {
		return fmt.Errorf("closing the ledger: %w", err)
	}
	return nil
}
