package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/sender/netguard"
)

// maxAddrs is how many of a name's addresses one try goes through.
const maxAddrs = 4

// attemptDelay is how long an address may be silent before the next one is tried
// beside it (RFC 8305, section 5, Connection Attempt Delay).
const attemptDelay = 250 * time.Millisecond

// slowDial is how long a connection under construction holds its slot: what
// takes longer, a host that is gone mostly, must not keep others from theirs.
const slowDial = 500 * time.Millisecond

// deadDial is the same for a host whose last connection timed out. One that is
// back answers within that nearly everywhere; and were it longer, thousands of
// dead hosts, each tried for the first time for a subscription or an entity, would
// mostly wait for a slot in vain, again and again, instead of being found dead.
const deadDial = 100 * time.Millisecond

// recheckAfter is how long a kept connection is used before its host's addresses
// are looked at again: a host that has moved gets its requests at its new place.
const recheckAfter = 30 * time.Second

// recheckWait bounds what a request waits for that.
const recheckWait = 250 * time.Millisecond

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
	dead      map[poolKey]time.Time // since they were last found so
}

const (
	// maxDead bounds the hosts that are remembered as dead.
	maxDead = 1 << 16
	// deadFor is how long they are: one that gets no requests any more would be
	// for ever.
	deadFor = 10 * time.Minute
)

// dial fills times as far as it came, also when it fails.
func (d *dialer) dial(ctx context.Context, key poolKey, u *endpoint.URL, own *tls.Config, times *dialTimes) (*conn, error) {
	release, err := d.slot(ctx, d.isDead(key))
	if err != nil {
		return nil, err
	}
	defer release()
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
	if !u.Addr.IsValid() {
		c.addr = tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		c.recheckAt = d.now().Add(recheckAfter)
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

// slot takes a slot, until release is called and for slowDial at most; for a dead
// host one of the slots of those besides, both for deadDial at most.
func (d *dialer) slot(ctx context.Context, dead bool) (release func(), err error) {
	held := slowDial
	if dead {
		held = deadDial
		if err := acquire(ctx, d.deadSlots); err != nil {
			return nil, err
		}
	}
	if err := acquire(ctx, d.slots); err != nil {
		if dead {
			<-d.deadSlots
		}
		return nil, err
	}
	var once sync.Once
	free := func() {
		once.Do(func() {
			<-d.slots
			if dead { // last, so that the dead never have more of the others
				<-d.deadSlots
			}
		})
	}
	timer := time.AfterFunc(held, free)
	return func() { timer.Stop(); free() }, nil
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
	_, dead := d.dead[key]
	return dead
}

// forget takes hosts of which it was long ago that they were found dead for
// living ones.
func (d *dialer) forget(now time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.DeleteFunc(d.dead, func(_ poolKey, at time.Time) bool { return now.Sub(at) >= deadFor })
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
	d.dead[key] = d.now()
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
	addrs = interleave(addrs)
	return addrs[:min(len(addrs), maxAddrs)], nil
}

// interleave has the families take turns, beginning with that of the first, so
// that a family that does not work costs no more than one delay.
func interleave(addrs []netip.Addr) []netip.Addr {
	var same, other []netip.Addr
	for _, a := range addrs {
		if a.Unmap().Is4() == addrs[0].Unmap().Is4() {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	out := make([]netip.Addr, 0, len(addrs))
	for i := range max(len(same), len(other)) {
		if i < len(same) {
			out = append(out, same[i])
		}
		if i < len(other) {
			out = append(out, other[i])
		}
	}
	return out
}

// recheckDue tells that moved would ask the resolver.
func (c *conn) recheckDue(now time.Time) bool {
	return c.addr.IsValid() && !now.Before(c.recheckAt)
}

// moved tells that a kept connection leads to an address that its host has no
// more. Where the resolver does not say, it has not.
func (d *dialer) moved(ctx context.Context, c *conn, now, deadline time.Time) bool {
	if !c.recheckDue(now) {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, min(recheckWait, deadline.Sub(now)))
	defer cancel()
	addrs, err := d.names.lookup(ctx, c.key.host)
	if err != nil {
		c.recheckAt = now.Add(time.Second)
		return false
	}
	c.recheckAt = now.Add(recheckAfter)
	return !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return a.Unmap() == c.addr })
}

// attempt is one address tried.
type attempt struct {
	to   netip.AddrPort
	conn *net.TCPConn
	err  error
}

// connect tries the addresses in their order, the next one as soon as those
// before have failed or been silent for attemptDelay (RFC 8305). The first
// connection is taken, and it returns when the others have ended.
func (d *dialer) connect(ctx context.Context, addrs []netip.Addr, port uint16) (*net.TCPConn, error) {
	if len(addrs) == 1 { // as most hosts have it
		a := d.connectOne(ctx, netip.AddrPortFrom(addrs[0].Unmap(), port))
		return a.conn, a.err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan attempt, len(addrs))
	timer := time.NewTimer(attemptDelay)
	defer timer.Stop()
	next, pending := 0, 0
	begin := func() {
		if next == len(addrs) || ctx.Err() != nil {
			return
		}
		to := netip.AddrPortFrom(addrs[next].Unmap(), port)
		next++
		pending++
		go func() { ended <- d.connectOne(ctx, to) }() // awaited below
		timer.Reset(attemptDelay)
	}
	var first error
	var won *net.TCPConn
	for begin(); pending > 0; {
		select {
		case <-timer.C:
			begin()
		case a := <-ended:
			pending--
			switch {
			case a.err == nil && won == nil:
				won = a.conn
				cancel()
			case a.err == nil:
				_ = a.conn.Close()
			default:
				// An address that we have no route to (IPv6 at home) says less than one
				// that answered with a refusal.
				if first == nil || isLocal(first) && !isLocal(a.err) {
					first = a.err
				}
				begin()
			}
		}
	}
	if won != nil {
		return won, nil
	}
	return nil, first
}

func (d *dialer) connectOne(ctx context.Context, to netip.AddrPort) attempt {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	c, err := d.net.DialContext(ctx, "tcp", to.String())
	if err != nil {
		if ctx.Err() != nil || isTimeout(err) {
			err = syscall.ETIMEDOUT
		}
		return attempt{to: to, err: &dialError{phaseConnect, to.String(), err}}
	}
	return attempt{to: to, conn: c.(*net.TCPConn)}
}

// handshake uses the subscription's own configuration, if there is one.
func (d *dialer) handshake(ctx context.Context, c *conn, u *endpoint.URL, own *tls.Config) error {
	if own == nil {
		own = d.tls
	}
	cfg := own.Clone()
	cfg.ServerName = u.Host
	c.wire = &probe{Conn: c.tcp, c: c}
	c.tls = tls.Client(c.wire, cfg)
	if err := c.tls.HandshakeContext(ctx); err != nil {
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return &dialError{phaseTLS, net.JoinHostPort(u.Host, strconv.Itoa(int(u.Port))), err}
	}
	return nil
}
