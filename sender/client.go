// Package sender makes one try of one delivery: it POSTs a payload and says what
// came of it.
//
// Messages are written and parsed by fasthttp; connections are ours. fasthttp's
// HostClient keeps a goroutine, a buffer pool and idle connections for each
// host, has no bound over all hosts, reads what a receiver sent unasked as the
// answer to the next request, and hides from its caller whether a byte was
// written or read, on which it depends whether a request may be sent again.
package sender

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// Deps is what a Client needs from outside. All fields may be left empty.
type Deps struct {
	// Now is the clock; time.Now by default. It must run with real time, since
	// sockets keep their own deadlines.
	Now func() time.Time
	// Gate is asked immediately before the first write of each request; where
	// it answers false nothing is written and the try ends as local_error.
	Gate func() bool
	// Version goes into the User-Agent; "dev" by default.
	Version string
	// Metrics counts; nothing is counted by default.
	Metrics Metrics
	// Log gets the allow-list at start; slog.Default by default.
	Log *slog.Logger
	// Resolver looks names up; Go's own, without cgo, by default.
	Resolver Resolver
	// RootCAs replaces the system's certificate authorities.
	RootCAs *x509.CertPool
	// Secrets reads what subscriptions refer to and opens what is sealed; by
	// default one without keys.
	Secrets *secret.Resolver
}

// Metrics is what a Client counts. Its methods must not block; safe for
// concurrent use.
type Metrics interface {
	// HeaderOmitted counts a header that was left out of a request since its
	// value is not fit for one.
	HeaderOmitted(name string)
}

// uncounted is the Metrics of who counts nothing.
type uncounted struct{}

func (uncounted) HeaderOmitted(string) {}

// Client makes tries. It implements pipeline.Sender.
type Client struct {
	cfg       Config
	parsed    *parsed
	now       func() time.Time
	gate      func() bool
	metrics   Metrics
	firstLine []byte // of every request's headers: the User-Agent
	dialer    *dialer
	pool      *pool
	secrets   *secret.Resolver
	prepared  *cache[*target] // by subscription id: what is the same for every try
	redacted  *cache[string]  // by URL, for who asks without sending
	exchanges sync.Pool       // of *exchange

	aged    atomic.Int64 // Unix nanoseconds: when tidy last went through what is kept
	closing atomic.Bool
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	done    sync.WaitGroup // the janitor
}

var _ pipeline.Sender = (*Client)(nil)

// New makes a Client. Close it after the last Send.
func New(cfg Config, deps Deps) (*Client, error) {
	p, err := cfg.parse()
	if err != nil {
		return nil, fmt.Errorf("configuring the sender: %w", err)
	}
	if deps.Now == nil {
		deps.Now = time.Now
	}
	if deps.Version == "" {
		deps.Version = "dev"
	}
	if deps.Log == nil {
		deps.Log = slog.Default()
	}
	if deps.Metrics == nil {
		deps.Metrics = uncounted{}
	}
	if deps.Resolver == nil {
		deps.Resolver = newSystemResolver((&net.Dialer{}).DialContext)
	}
	if deps.Secrets == nil {
		deps.Secrets = &secret.Resolver{}
	}
	c := &Client{
		secrets: deps.Secrets,
		cfg:     cfg, parsed: p, now: deps.Now, gate: deps.Gate, metrics: deps.Metrics,
		firstLine: appendLine(nil, fasthttp.HeaderUserAgent, "hookline/"+deps.Version),
		pool:      newPool(&cfg), prepared: newCache[*target](maxPrepared), redacted: newCache[string](maxPrepared),
	}
	c.exchanges.New = func() any { return newExchange() }
	c.ctx, c.cancel = context.WithCancel(context.Background())
	names := newNames(c.ctx, deps.Resolver, cfg.DNSCacheTTL, deps.Now)
	names.absolute = !p.policy.LocalNames
	c.dialer = &dialer{
		names:   names,
		guard:   p.guard,
		net:     net.Dialer{Control: p.guard.Control, KeepAlive: cfg.IdleConnectionTimeout, FallbackDelay: -1},
		tls:     &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, RootCAs: deps.RootCAs, Time: deps.Now},
		timeout: cfg.ConnectTimeout,
		now:     deps.Now,
		slots:   make(chan struct{}, cfg.MaxDials),

		deadSlots: make(chan struct{}, max(1, cfg.MaxDials/4)),
		dead:      map[poolKey]time.Time{},
	}
	if cidrs := trimmed(cfg.AllowCIDRs); len(cidrs) > 0 || cfg.AllowHTTP {
		deps.Log.Warn("sending is allowed beyond https to public addresses", "allow_cidrs", cidrs, "allow_http", cfg.AllowHTTP)
	}
	c.aged.Store(deps.Now().UnixNano())
	c.done.Go(c.janitor)
	return c, nil
}

// Close closes every connection and waits for the client's goroutine. Sends
// under way end soon as local_error; so do later ones.
func (c *Client) Close() {
	// In this order: an exchange that begins now sees closing, or its connection
	// is among those that the pool cuts.
	c.closing.Store(true)
	c.pool.close()
	c.cancel()
	c.done.Wait()
	c.dialer.names.work.Wait()
}

// Connections counts the idle connections and those in use.
func (c *Client) Connections() (idle, busy int) { return c.pool.counts() }

func (c *Client) janitor() {
	ticker := time.NewTicker(min(max(c.cfg.IdleConnectionTimeout/4, 10*time.Millisecond), time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-ticker.C:
			c.tidy()
		}
	}
}

// tidy lets go of what has not been used for long.
func (c *Client) tidy() {
	now := c.now()
	c.pool.expire(now)
	last := c.aged.Load()
	if now.Sub(time.Unix(0, last)) < forgetEvery || !c.aged.CompareAndSwap(last, now.UnixNano()) {
		return
	}
	c.prepared.age()
	c.redacted.age()
	c.dialer.names.forget(now)
	c.dialer.forget(now)
}

// Send makes one try; see pipeline.Sender.
func (c *Client) Send(req *pipeline.Request, res *pipeline.Result) {
	if x := c.open(req, res); x != nil {
		c.sendAuthorized(x, req, res)
		c.end(x, res)
	}
}

// open begins a try with what is the same however it is sent, and renders its
// body. It returns nil where the try has ended with that.
func (c *Client) open(req *pipeline.Request, res *pipeline.Result) *exchange {
	*res = pipeline.Result{
		StartedAt:       c.now(),
		RequestHeaders:  res.RequestHeaders[:0],
		ResponseHeaders: res.ResponseHeaders[:0],
		ResponseBody:    res.ResponseBody[:0],
	}
	if req.DeliveryID == "" {
		req.DeliveryID = pipeline.DeliveryID(&req.Envelope.Source, req.Subscription.ID)
	}
	x := c.exchanges.Get().(*exchange)
	x.limit = c.cfg.RequestTimeout
	if t := req.Subscription.Timeout; t > 0 && t < x.limit {
		x.limit = t
	}
	x.to, x.deadline = c.prepare(req.Subscription), res.StartedAt.Add(x.limit)
	res.URL = x.to.shownURL()
	x.withdrawn = req.Withdrawn
	err := x.render(req, res)
	if refused := x.to.refuses(req.Envelope); refused != nil {
		err = refused
	}
	if err != nil {
		res.Outcome, res.Error = pipeline.OutcomeBlocked, err.Error()
		c.end(x, res)
		return nil
	}
	return x
}

// end ends a try that open began.
func (c *Client) end(x *exchange, res *pipeline.Result) {
	res.Elapsed = c.now().Sub(res.StartedAt)
	x.forget()
	c.exchanges.Put(x)
}

// try sends the request that x holds, at most twice: see mayResend.
func (c *Client) try(x *exchange, cr *credentials, res *pipeline.Result) {
	at, err := c.once(x, cr, res, false)
	c.conclude(x, cr, res, at, err)
}

// conclude takes in how the first run ended, and makes the second one where the
// request may be sent again.
func (c *Client) conclude(x *exchange, cr *credentials, res *pipeline.Result, at phase, err error) {
	for {
		if err == nil {
			c.judge(x, res)
			return
		}
		if c.cfg.ResendStale && res.Resends == 0 && x.mayResend(err, c.now()) {
			res.Resends = 1
			at, err = c.once(x, cr, res, true)
			continue
		}
		if c.closing.Load() {
			err = errClosed
		}
		v := classify(at, err, x.limit.String())
		res.Outcome, res.Error, res.StatusCode = v.outcome, v.text, 0
		return
	}
}

// once runs the exchange over one connection; kept connections that turn out
// unusable before anything was written do not count.
func (c *Client) once(x *exchange, cr *credentials, res *pipeline.Result, fresh bool) (phase, error) {
	for {
		conn, at, err := c.connection(x.to, cr, res, x.deadline, fresh)
		if err != nil {
			x.last = lastRun{}
			return at, err
		}
		at, err = x.run(conn, c, res)
		c.release(x, conn, err)
		if !errors.Is(err, errStale) {
			return at, err
		}
	}
}

// release gives the connection of a run that ended with err back.
func (c *Client) release(x *exchange, cn *conn, err error) {
	keep := err == nil && x.keep || errors.Is(err, errNotFresh)
	x.finish()
	c.pool.put(cn, keep, c.now())
}

// connection takes a kept connection or makes a new one.
func (c *Client) connection(to *target, cr *credentials, res *pipeline.Result, deadline time.Time, fresh bool) (*conn, phase, error) {
	key := c.key(to, cr.identity)
	cn, err := c.pool.take(key, fresh)
	for cn != nil && c.dialer.moved(c.ctx, cn, c.now(), deadline) {
		c.pool.put(cn, false, c.now())
		cn, err = c.pool.take(key, fresh)
	}
	if cn != nil || err != nil {
		return cn, phaseConnect, err
	}
	ctx, cancel := context.WithDeadline(c.ctx, deadline)
	defer cancel()
	var times dialTimes
	cn, err = c.dialer.dial(ctx, key, &to.url, cr.tls, &times)
	res.DNS += times.dns
	res.Connect += times.connect
	res.TLS += times.tls
	if err != nil {
		c.pool.cancel(key)
		return nil, phaseConnect, err
	}
	return cn, phaseConnect, c.pool.add(cn)
}
