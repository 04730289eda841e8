package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/sender/netguard"
)

// maxAddrs is how many of a name's addresses one try goes through.
const maxAddrs = 4

// maxDialWait is how long a try waits for a dial slot before it gives up as
// local_error.
const maxDialWait = time.Second

var errDialSlots = errors.New("no dial slot free within 1s (see HOOKLINE_MAX_DIALS)")

// phase is where in a try an error came up.
type phase string

const (
	phaseDNS     phase = "getaddrinfo"
	phaseConnect phase = "connect"
	phaseTLS     phase = "tls"
	phaseWrite   phase = "write"
	phaseRead    phase = "read"
)

// dialError is an error on the way to a connection.
type dialError struct {
	phase phase
	where string // the host, or address:port
	err   error
}

func (e *dialError) Error() string { return string(e.phase) + " " + e.where + ": " + e.err.Error() }

func (e *dialError) Unwrap() error { return e.err }

// dialTimes is how long each phase of a dial took.
type dialTimes struct{ dns, connect, tls time.Duration }

// dialer makes connections: resolve, guard, connect, handshake, all within one
// deadline.
type dialer struct {
	names   *names
	guard   *netguard.Guard
	net     net.Dialer
	tls     *tls.Config // template; ServerName is set for each
	timeout time.Duration
	now     func() time.Time
	slots   chan struct{} // one for each connection under construction

	// Hosts whose last connection timed out share a quarter of the slots, so
	// that a thousand dead hosts do not keep the living from being dialled.
	deadSlots chan struct{}
	mu        sync.Mutex
	dead      map[poolKey]bool
}

// maxDead bounds the hosts that are remembered as dead.
const maxDead = 1 << 16

// dial fills times as far as it came, also when it fails.
func (d *dialer) dial(ctx context.Context, key poolKey, u *endpoint.URL, own *tls.Config, times *dialTimes) (*conn, error) {
	if d.isDead(key) {
		if err := acquire(ctx, d.deadSlots); err != nil {
			return nil, err
		}
		defer func() { <-d.deadSlots }()
	}
	if err := acquire(ctx, d.slots); err != nil {
		return nil, err
	}
	defer func() { <-d.slots }()
	c, err := d.construct(ctx, key, u, own, times)
	d.setDead(key, err != nil && (isTimeout(err) || errors.Is(err, syscall.ETIMEDOUT)))
	return c, err
}

func (d *dialer) construct(ctx context.Context, key poolKey, u *endpoint.URL, own *tls.Config, times *dialTimes) (*conn, error) {
	start := d.now()
	addrs, err := d.resolve(ctx, u)
	times.dns = d.now().Sub(start)
	if err != nil {
		return nil, err
	}
	start = d.now()
	tcp, err := d.connect(ctx, addrs, u.Port)
	times.connect = d.now().Sub(start)
	if err != nil {
		return nil, err
	}
	c, err := newConn(key, tcp)
	if err != nil {
		_ = tcp.Close()
		return nil, &dialError{phaseConnect, u.Authority, err}
	}
	if !u.TLS() {
		return c, nil
	}
	start = d.now()
	err = d.handshake(ctx, c, u, own)
	times.tls = d.now().Sub(start)
	if err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

// acquire waits for a slot, for maxDialWait at most.
func acquire(ctx context.Context, slots chan struct{}) error {
	select {
	case slots <- struct{}{}:
		return nil
	default:
	}
	timer := time.NewTimer(maxDialWait)
	defer timer.Stop()
	select {
	case slots <- struct{}{}:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return errDialSlots
}

func (d *dialer) isDead(key poolKey) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.dead[key]
}

func (d *dialer) setDead(key poolKey, dead bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !dead {
		delete(d.dead, key)
		return
	}
	if len(d.dead) >= maxDead {
		clear(d.dead) // they will be found out again
	}
	d.dead[key] = true
}

// resolve returns addresses of which every one is allowed: one bad answer among
// good ones means that somebody is trying something.
func (d *dialer) resolve(ctx context.Context, u *endpoint.URL) ([]netip.Addr, error) {
	addrs := []netip.Addr{u.Addr}
	if !u.Addr.IsValid() {
		var err error
		if addrs, err = d.names.lookup(ctx, u.Host); err != nil {
			return nil, &dialError{phaseDNS, u.Host, err}
		}
	}
	for _, addr := range addrs {
		if err := d.guard.Check(addr); err != nil {
			return nil, &dialError{phaseDNS, u.Host, err}
		}
	}
	return addrs[:min(len(addrs), maxAddrs)], nil
}

// connect tries the addresses in turn; each gets its share of the time left.
func (d *dialer) connect(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	var first error
	for i, addr := range addrs {
		to := netip.AddrPortFrom(addr.Unmap(), port)
		c, err := d.connectOne(ctx, to, len(addrs)-i)
		if err == nil {
			return c, nil
		}
		// An address that we have no route to (IPv6 at home) says less than one
		// that answered with a refusal.
		if first == nil || isLocal(first) && !isLocal(err) {
			first = &dialError{phaseConnect, to.String(), err}
		}
		if ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

func (d *dialer) connectOne(ctx context.Context, to netip.AddrPort, left int) (*net.TCPConn, error) {
	limit := d.timeout
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, time.Until(deadline)/time.Duration(left))
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := d.net.DialContext(ctx, "tcp", to.String())
	if err != nil {
		if ctx.Err() != nil || isTimeout(err) {
			err = syscall.ETIMEDOUT
		}
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// handshake uses the subscription's own configuration, if there is one.
func (d *dialer) handshake(ctx context.Context, c *conn, u *endpoint.URL, own *tls.Config) error {
	if own == nil {
		own = d.tls
	}
	cfg := own.Clone()
	cfg.ServerName = u.Host
	c.wire = &probe{Conn: c.tcp}
	c.tls = tls.Client(c.wire, cfg)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &dialError{phaseTLS, net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))), err}
	}
	return nil
}
