package sender

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// errStale: a kept connection was closed or spoken on while idle. Nothing
	// was written, so another connection may be taken for the same request.
	errStale = errors.New("kept connection is no longer usable")
	// errNotFresh: the gate was shut at the moment of writing. Nothing was written.
	errNotFresh = errors.New("session not fresh")
)

// conn is one connection to a receiver. It belongs to one exchange at a time,
// or to the pool; the list fields are the pool's and guarded by its lock.
type conn struct {
	key  poolKey
	tcp  *net.TCPConn
	rc   syscall.RawConn
	tls  *tls.Conn // nil for plain http
	wire *probe    // below tls

	reused  bool // it has carried an exchange before
	checked bool // the first write of the current exchange is behind it
	written bool // a byte of the current exchange's request went out
	gotByte bool // a byte of the current exchange's answer came
	gate    func() bool
	overdue int // bytes of the current exchange's answer that were read after its time limit

	peek    [1]byte
	poll    [1]unix.PollFd
	stale   bool          // answer of inspect
	inspect func(uintptr) // made once: a closure for each request would be garbage

	addr      netip.Addr // of a host that has a name; else not valid
	recheckAt time.Time  // when that name's addresses are looked at again

	batched batched // of a Batch

	prev, next *conn
	in         *list // that it is in; nil: in none
	idleSince  time.Time
}

func newConn(key poolKey, tcp *net.TCPConn) (*conn, error) {
	rc, err := tcp.SyscallConn()
	if err != nil {
		return nil, err
	}
	c := &conn{key: key, tcp: tcp, rc: rc}
	c.inspect = func(fd uintptr) {
		// Idle and open is the only state in which there is nothing to report: a
		// FIN and bytes that nobody asked for are both readable, a reset is an
		// error. One call that never waits.
		c.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		n, err := unix.Poll(c.poll[:], 0)
		c.stale = n != 0 || err != nil
	}
	return c, nil
}

// begin readies the connection for one exchange.
func (c *conn) begin(gate func() bool) {
	c.checked, c.written, c.gotByte, c.gate, c.overdue = false, false, false, gate, 0
}

// Write refuses the first write of an exchange with errStale when the kept
// connection is not idle and open any more, and with errNotFresh when the gate
// is shut; then nothing was written.
func (c *conn) Write(p []byte) (int, error) {
	if !c.checked {
		if c.reused && c.isStale() {
			return 0, errStale
		}
		if c.gate != nil && !c.gate() {
			return 0, errNotFresh
		}
		c.checked = true
	}
	if c.tls != nil {
		// What TLS has put on the wire by the time it fails is not known.
		c.written = true
		return c.tls.Write(p)
	}
	n, err := c.writeWire(p)
	c.written = c.written || n > 0
	return n, err
}

// Read notes that an answer has begun.
func (c *conn) Read(p []byte) (n int, err error) {
	if c.tls != nil {
		n, err = c.tls.Read(p)
	} else {
		n, err = c.readWire(p)
	}
	c.gotByte = c.gotByte || n > 0
	return n, err
}

// drained tells whether TLS holds no decrypted or whole record beyond the
// answer that was read: the next exchange would take it for its own answer.
func (c *conn) drained() bool {
	if c.tls == nil {
		return true
	}
	c.wire.probing = true
	n, err := c.tls.Read(c.peek[:])
	c.wire.probing = false
	return n == 0 && errors.Is(err, os.ErrDeadlineExceeded)
}

func (c *conn) isStale() bool {
	if c.batched.direct {
		return c.batched.isStale(c)
	}
	c.stale = true
	if err := c.rc.Control(c.inspect); err != nil {
		return true
	}
	return c.stale
}

// close ends the connection without TLS's farewell: tls.Conn.Close may wait
// seconds for a peer that does not read, and the pool closes under its lock.
func (c *conn) close() {
	c.batched.forget(c)
	_ = c.tcp.Close()
}

// readWire reads what is below TLS, if there is any.
func (c *conn) readWire(p []byte) (int, error) {
	if c.batched.direct {
		return c.batched.read(p)
	}
	n, err := c.tcp.Read(p)
	if n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		if n = c.readOverdue(p); n > 0 {
			err = nil
		}
	}
	return n, err
}

// overdueBytes is how much of an answer is read once its time limit has run out.
const overdueBytes = 64 << 10

// readOverdue reads what is there although the time limit has run out: the process may
// have been frozen since before it came, and a receiver that said 200 in time must not
// get the request again. It waits for nothing. Go itself says that time is up without a
// look at what has come.
func (c *conn) readOverdue(p []byte) (n int) {
	p = p[:min(len(p), overdueBytes-c.overdue)]
	if len(p) == 0 {
		return 0
	}
	if err := c.rc.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), p) }); err != nil {
		return 0
	}
	n = max(n, 0)
	c.overdue += n
	return n
}

func (c *conn) writeWire(p []byte) (int, error) {
	if c.batched.direct {
		return c.batched.write(p)
	}
	return c.tcp.Write(p)
}

// probe lies between TLS and TCP. While probing, reads end at once with an
// error that TLS takes for a passing one.
type probe struct {
	net.Conn
	c       *conn
	probing bool
}

func (p *probe) Read(b []byte) (int, error) {
	if p.probing {
		return 0, os.ErrDeadlineExceeded
	}
	return p.c.readWire(b)
}

func (p *probe) Write(b []byte) (int, error) { return p.c.writeWire(b) }
