// Package receiver is a webhook endpoint for tests and demos: it writes down
// what it got, before it answers, and answers as it is told to.
//
// What a path does (anything may follow it, so that each subscription has its own):
//
//	/ok               200
//	/status/503       that status
//	/gone             410
//	/slow?ms=250      200 after that long
//	/fail?first=2     503 to the first 2 requests of each delivery, then 200
//	/down?from=5s&for=40s  503 in that window of the receiver's life, else 200
//
// and any other path what Config says.
package receiver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/valyala/fasthttp"
)

// maxBodyBytes is the largest request that is read.
const maxBodyBytes = 64 << 20

// Config says how to answer. The zero value answers 200 at once, on a free port
// of the loopback interface.
type Config struct {
	Addr string // default 127.0.0.1:0
	// Status, Delay and FailFirst rule paths without a rule of their own; Delay
	// holds for all. FailFirst counts requests of one delivery (of one path,
	// where a request names none).
	Status    int // default 200
	Delay     time.Duration
	FailFirst int
	Ledger    string // append a JSON line for each request to this file; empty: none
	// KeepBodies keeps the bodies in memory and in the ledger, not just their
	// hashes.
	KeepBodies bool
	// KeepHeaders keeps the headers likewise.
	KeepHeaders bool
	// MaxRequests bounds the requests kept in memory, oldest out first;
	// 0: 100,000; negative: none are kept.
	MaxRequests int
	// Script, when set, answers instead of the rules. It must not keep r.
	Script func(r *Request) Reply
	// Now is the clock; time.Now by default.
	Now func() time.Time
}

// Reply is an answer.
type Reply struct {
	Status     int           // 0: 200
	Delay      time.Duration // before answering
	Body       string        // default: "" on 204 and 304, else {"ok":true} or {"ok":false}
	RetryAfter string        // header Retry-After; empty: none
	Close      bool          // close the connection without any answer
}

// Receiver is a running endpoint.
type Receiver struct {
	cfg     Config
	ln      net.Listener
	started time.Time
	ledger  *ledger
	stop    chan struct{} // closed when Run ends: delays end too

	mu       sync.Mutex
	requests []Request      // oldest first
	total    int            // ever received
	seen     map[string]int // delivery (or path) -> requests that a fail rule saw
	arrived  chan struct{}  // closed and replaced with each request
}

// Check tells whether the receiver can answer so.
func (c *Config) Check() error {
	switch {
	case c.Status != 0 && (c.Status < 200 || c.Status > 599):
		return fmt.Errorf("status %d is not a final status (200 to 599)", c.Status)
	case c.Delay < 0:
		return fmt.Errorf("a delay of %s is negative", c.Delay)
	case c.FailFirst < 0:
		return fmt.Errorf("%d requests to fail first is negative", c.FailFirst)
	}
	return nil
}

// New opens the listener and the ledger; Run serves and closes them.
func New(cfg Config) (*Receiver, error) {
	if cfg.Addr == "" {
		cfg.Addr = "127.0.0.1:0"
	}
	if cfg.Status == 0 {
		cfg.Status = fasthttp.StatusOK
	}
	if err := cfg.Check(); err != nil {
		return nil, fmt.Errorf("configuring the receiver: %w", err)
	}
	if cfg.MaxRequests == 0 {
		cfg.MaxRequests = 100_000
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	l, err := openLedger(cfg.Ledger)
	if err != nil {
		return nil, err
	}
	ln, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening the port of the receiver: %s: %w", cfg.Addr, bare(err)), l.close())
	}
	return &Receiver{
		cfg: cfg, ln: ln, started: cfg.Now(), ledger: l, stop: make(chan struct{}),
		seen: map[string]int{}, arrived: make(chan struct{}),
	}, nil
}

// URL is the receiver's address as http://host:port, without a final slash.
func (r *Receiver) URL() string { return "http://" + r.ln.Addr().String() }

// Run serves until ctx ends, then finishes the requests under way. Call it once.
func (r *Receiver) Run(ctx context.Context) error {
	srv := &fasthttp.Server{
		Handler:               r.handle,
		Name:                  "hookline-receiver",
		MaxRequestBodySize:    maxBodyBytes,
		ReadBufferSize:        32 << 10, // room for the largest header that a sender makes
		IdleTimeout:           time.Minute,
		MaxIdleWorkerDuration: 100 * time.Millisecond, // its cleaner sleeps this long, also at the end
		NoDefaultDate:         true,                   // starts a goroutine that never ends
		CloseOnShutdown:       true,
		Logger:                quiet{},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(r.ln) }()
	var err error
	select {
	case err = <-served:
		close(r.stop)
		return errors.Join(err, r.ledger.close())
	case <-ctx.Done():
	}
	close(r.stop)
	limit, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err = srv.ShutdownWithContext(limit)
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	// Serve has not begun where ctx ended at once; then nobody else closes it.
	_ = r.ln.Close()
	return errors.Join(err, <-served, r.ledger.close())
}

// quiet drops fasthttp's complaints about peers that hang up.
type quiet struct{}

// Printf does nothing.
func (quiet) Printf(string, ...any) {}

// Requests returns what was received, oldest first.
func (r *Receiver) Requests() []Request {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]Request(nil), r.requests...)
}

// Total is how many requests were received, also those no longer kept.
func (r *Receiver) Total() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}

// Wait returns when n requests have been received in all, or with ctx's error.
func (r *Receiver) Wait(ctx context.Context, n int) error {
	for {
		r.mu.Lock()
		total, arrived := r.total, r.arrived
		r.mu.Unlock()
		if total >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %d requests, got %d: %w", n, total, ctx.Err())
		case <-arrived:
		}
	}
}

func (r *Receiver) handle(ctx *fasthttp.RequestCtx) {
	req := r.read(ctx)
	reply := r.reply(&req, ctx.QueryArgs())
	if reply.Status == 0 {
		reply.Status = fasthttp.StatusOK
	}
	req.Status = reply.Status
	if reply.Close {
		req.Status = 0
	}
	if err := r.record(&req); err != nil {
		// A ledger with a hole would be worse than no test at all.
		fmt.Fprintln(os.Stderr, "hookline receiver:", err)
		reply = Reply{Status: fasthttp.StatusInternalServerError, Body: "the ledger cannot be written"}
	}
	if d := r.cfg.Delay + reply.Delay; d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-r.stop:
		}
	}
	write(ctx, reply)
}

func write(ctx *fasthttp.RequestCtx, reply Reply) {
	if reply.Close {
		ctx.HijackSetNoResponse(true)
		ctx.Hijack(func(net.Conn) {})
		return
	}
	ctx.SetStatusCode(reply.Status)
	ctx.SetContentType("application/json")
	if reply.RetryAfter != "" {
		ctx.Response.Header.Set(fasthttp.HeaderRetryAfter, reply.RetryAfter)
	}
	if reply.Body == "" && reply.Status != fasthttp.StatusNoContent && reply.Status != fasthttp.StatusNotModified {
		reply.Body = `{"ok":` + strconv.FormatBool(reply.Status < 300) + `}`
	}
	ctx.SetBodyString(reply.Body)
}

// bare is an error of net.Listen without the address, which it has.
func bare(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}
