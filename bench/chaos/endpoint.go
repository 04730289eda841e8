package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/internal/proof"
)

// lifeVar names the variable that each process has a value of its own of: the
// bearer token of its requests, which says who sent them.
const (
	lifeVar    = "CHAOS_LIFE"
	lifePrefix = "life-"
)

// endpoint is the receiver of all subscriptions: it writes a request down, waits
// until that is on the disk, then answers.
type endpoint struct {
	world   *world
	journal *proof.Journal
	track   *tracker
	by      *served
	began   time.Time
	ln      net.Listener
	srv     *fasthttp.Server
	served  chan error

	mu sync.Mutex
	n  int // requests; under mu
}

func newEndpoint(r *runner) (*endpoint, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listening: %w", err)
	}
	e := &endpoint{world: r.world, journal: r.journal, track: r.track, by: &r.served, began: r.began, ln: ln, served: make(chan error, 1)}
	e.srv = &fasthttp.Server{
		Handler: e.handle, NoDefaultDate: true, NoDefaultServerHeader: true,
		// Longer than hookline keeps a connection: it is never closed under it.
		IdleTimeout: 2 * time.Minute, ReadBufferSize: 16 << 10,
	}
	go func() { e.served <- e.srv.Serve(ln) }() // awaited by close
	return e, nil
}

func (e *endpoint) url() string { return "http://" + e.ln.Addr().String() }

func (e *endpoint) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := e.srv.ShutdownWithContext(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = nil // idle connections of killed processes
	}
	return errors.Join(err, <-e.served)
}

// arrive numbers a request: the order of the numbers is that of the times.
func (e *endpoint) arrive() (int, time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n++
	return e.n, time.Since(e.began)
}

func (e *endpoint) handle(ctx *fasthttp.RequestCtx) {
	p, why := e.read(ctx)
	if why != "" {
		_ = e.journal.Stray(why)
		ctx.SetStatusCode(fasthttp.StatusInternalServerError)
		return
	}
	var delay time.Duration
	var after string
	p.N, p.At = e.arrive()
	e.by.note(e.world.subs[p.Sub].Part, p.Life)
	p.Status, delay, after = e.world.answer(p.Sub, p.Seq, p.Attempt, time.Now())
	p.Until = time.Since(e.began) + delay
	if seconds, err := strconv.Atoi(after); err == nil && seconds > 0 {
		p.RetryAfter = time.Duration(seconds) * time.Second
	}
	if err := e.journal.Post(p); err != nil {
		e.track.fail(err) // a ledger with a hole would be worse than no test at all
		return
	}
	if rest := p.Until - time.Since(e.began); rest > 0 {
		time.Sleep(rest)
	}
	if p.OK() {
		e.track.settle(p.Sub, p.Seq)
	}
	if err := e.journal.Reply(proof.Reply{N: p.N, At: time.Since(e.began)}); err != nil {
		e.track.fail(err)
	}
	if after != "" {
		ctx.Response.Header.Set("Retry-After", after)
	}
	ctx.SetStatusCode(p.Status)
}

// read makes a Post of a request, or says why it is none.
func (e *endpoint) read(ctx *fasthttp.RequestCtx) (*proof.Post, string) {
	h := &ctx.Request.Header
	body := ctx.PostBody()
	id := string(h.Peek("X-Hookline-Subscription"))
	sub, known := e.world.byID[id]
	seq := seqOf(string(body))
	attempt, err1 := strconv.Atoi(string(h.Peek("X-Hookline-Attempt")))
	life, err2 := strconv.Atoi(strings.TrimPrefix(string(h.Peek("Authorization")), "Bearer "+lifePrefix))
	rest, ours := strings.CutPrefix(string(ctx.Path()), "/s/"+id+"/")
	revision, err3 := strconv.Atoi(rest)
	switch {
	case !known || !ours || err3 != nil:
		return nil, fmt.Sprintf("%s for subscription %q", ctx.Path(), id)
	case errors.Join(err1, err2) != nil:
		return nil, fmt.Sprintf("a request for %s with attempt %q and token %q", id, h.Peek("X-Hookline-Attempt"), h.Peek("Authorization"))
	case seq == 0 || !bytes.Equal(body, appendBody(nil, seq)):
		return nil, fmt.Sprintf("a body that is none of ours for %s: %.80q", id, body)
	}
	return &proof.Post{Sub: sub, Seq: seq, Attempt: attempt, Life: life, ID: string(h.Peek("webhook-id")), Revision: revision}, ""
}
