package sender

import (
	"errors"
	"sync"
	"time"
)

var (
	errPoolFull = errors.New("connection pool is full")
	errClosed   = errors.New("sender is shutting down")
)

// poolKey says who may share a connection.
type poolKey struct {
	tenant string // empty with SHARE_CONNECTIONS
	host   string
	port   uint16
	tls    bool
	// identity tells apart client certificates and authorities of a
	// subscription's own; empty: the process's.
	identity string
}

// pool keeps idle connections: newest first for each key, and within one budget
// over all keys, so that many endpoints cost little. Where the budget is
// reached, the connection that has been idle longest goes.
//
// Lock order: mu is a leaf; no I/O but close happens under it.
type pool struct {
	maxIdle    int
	maxPerHost int
	idleFor    time.Duration

	mu     sync.Mutex
	hosts  map[poolKey]*host
	idle   list // over all hosts, oldest first
	busy   list // connections in exchanges, so that close can cut them
	batch  list // the same, of those that a Batch took: see eachBatched
	closed bool
}

// host is what the pool knows of one key; gone when it has no connections.
type host struct {
	open int     // idle, busy and under construction
	idle []*conn // newest last
}

func newPool(cfg *Config) *pool {
	p := &pool{
		maxIdle: cfg.MaxIdleConnections, maxPerHost: cfg.MaxConnectionsPerHost,
		idleFor: cfg.IdleConnectionTimeout, hosts: map[poolKey]*host{},
	}
	p.idle.init()
	p.busy.init()
	p.batch.init()
	return p
}

// take returns an idle connection, or nil and a slot to dial one: the caller
// then calls add or cancel. With fresh set, idle connections are left alone.
func (p *pool) take(key poolKey, fresh bool) (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	h := p.hosts[key]
	if h == nil {
		h = &host{}
		p.hosts[key] = h
	}
	if len(h.idle) > 0 && !fresh {
		return p.newest(h, &p.busy), nil
	}
	if h.open >= p.maxPerHost {
		if len(h.idle) == 0 {
			return nil, errPoolFull
		}
		p.drop(h.idle[0])
		p.hosts[key] = h // drop forgets a host without connections
	}
	h.open++
	return nil, nil
}

// takeIdle returns an idle connection for a Batch; nil: there is none.
func (p *pool) takeIdle(key poolKey) *conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	h := p.hosts[key]
	if p.closed || h == nil || len(h.idle) == 0 {
		return nil
	}
	return p.newest(h, &p.batch)
}

// newest takes a host's newest idle connection into use.
func (p *pool) newest(h *host, use *list) *conn {
	n := len(h.idle)
	c := h.idle[n-1]
	h.idle[n-1] = nil
	h.idle = h.idle[:n-1]
	p.idle.remove(c)
	use.pushBack(c)
	return c
}

// eachBatched calls f for every connection that a Batch took and has not given
// back. f must not wait. Others are not looked at: thousands of endpoints that never
// answer have one each.
func (p *pool) eachBatched(f func(*conn)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := p.batch.front(); c != &p.batch.root; c = c.next {
		f(c)
	}
}

// add takes in a connection that was dialled for a slot. It is closed, and an
// error returned, when the pool has been closed meanwhile.
func (p *pool) add(c *conn) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		p.release(c.key)
		c.close()
		return errClosed
	}
	p.busy.pushBack(c)
	return nil
}

// cancel gives back a slot whose dial failed.
func (p *pool) cancel(key poolKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.release(key)
}

// put returns a connection after an exchange, to be kept or closed.
func (p *pool) put(c *conn, keep bool, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c.in.remove(c)
	if !keep || p.closed || p.maxIdle == 0 {
		p.release(c.key)
		c.close()
		return
	}
	c.reused, c.gate, c.idleSince = true, nil, now
	h := p.hosts[c.key]
	h.idle = append(h.idle, c)
	p.idle.pushBack(c)
	if p.idle.n > p.maxIdle {
		p.drop(p.idle.front())
	}
}

// expire closes what has been idle for too long.
func (p *pool) expire(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.idle.n > 0 && now.Sub(p.idle.front().idleSince) >= p.idleFor {
		p.drop(p.idle.front())
	}
}

// close closes idle connections and cuts those in exchanges, which then end.
func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for p.idle.n > 0 {
		p.drop(p.idle.front())
	}
	for _, l := range []*list{&p.busy, &p.batch} {
		for c := l.front(); c != &l.root; c = c.next {
			_ = c.tcp.SetDeadline(time.Unix(1, 0))
		}
	}
}

// counts are the idle connections and those in exchanges.
func (p *pool) counts() (idle, busy int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.idle.n, p.busy.n + p.batch.n
}

// drop closes an idle connection: the oldest of its host, since a host's
// connections are idle in the order in which they came.
func (p *pool) drop(c *conn) {
	h := p.hosts[c.key]
	if h.idle[0] != c {
		panic("BUG: the connection dropped is not the oldest of its host")
	}
	copy(h.idle, h.idle[1:])
	h.idle[len(h.idle)-1] = nil
	h.idle = h.idle[:len(h.idle)-1]
	p.idle.remove(c)
	p.release(c.key)
	c.close()
}

func (p *pool) release(key poolKey) {
	h := p.hosts[key]
	h.open--
	if h.open == 0 {
		delete(p.hosts, key)
	}
}

// list is a ring of connections through their own fields.
type list struct {
	root conn
	n    int
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) front() *conn { return l.root.next }

func (l *list) pushBack(c *conn) {
	last := l.root.prev
	last.next, c.prev, c.next, l.root.prev = c, last, &l.root, c
	c.in = l
	l.n++
}

func (l *list) remove(c *conn) {
	c.prev.next, c.next.prev = c.next, c.prev
	c.prev, c.next, c.in = nil, nil, nil
	l.n--
}
