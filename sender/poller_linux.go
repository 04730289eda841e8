package sender

import (
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eventsAtOnce is how many answers one driver takes before others get theirs.
const eventsAtOnce = 64

// errNothingYet is what reading says where there is nothing to read. TLS takes
// an error of this kind for a passing one.
var errNothingYet = os.ErrDeadlineExceeded

// The stages of a connection in a Batch.
const (
	stageTaken    uint32 = iota // somebody's: a driver's, a goroutine's, the pool's
	stageWriting                // a driver's, which writes the request
	stageAnswered               // the same, and there is something to read
	stageWaiting                // nobody's: the answer is waited for
)

// batched is what a connection has of the Batch that uses it.
type batched struct {
	fd     int32
	poll   *poller // it is registered with; nil: none
	direct bool    // reading and writing never wait
	stage  atomic.Uint32
	until  atomic.Int64 // nanoseconds since batch.base: the time limit of the request under way
	x      *exchange    // under way
	rest   []byte       // what the socket did not take of the request
	peeked [1]byte
}

// poller is one epoll instance, with the connections that were ever used by its
// Batch and are still open. Edge-triggered: each arrival is told once, to one
// driver. epoll's own descriptor is waited for through Go's netpoller, so that
// no thread is blocked by it.
type poller struct {
	file  *os.File
	rc    syscall.RawConn
	fd    int
	event int // an eventfd that wakes a driver

	mu    sync.RWMutex // a leaf; taken under the pool's
	conns map[int32]*conn
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	p := &poller{fd: fd, conns: map[int32]*conn{}}
	if err = unix.SetNonblock(fd, true); err == nil {
		p.event, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	}
	if err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	p.file = os.NewFile(uintptr(fd), "epoll")
	p.rc, err = p.file.SyscallConn()
	if err == nil {
		err = p.add(int32(p.event))
	}
	if err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *poller) add(fd int32) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP | unix.EPOLLET, Fd: fd}
	return unix.EpollCtl(p.fd, unix.EPOLL_CTL_ADD, int(fd), &e)
}

func (p *poller) close() {
	_ = p.file.Close()
	_ = unix.Close(p.event)
}

// wake ends a wait.
func (p *poller) wake() {
	one := [8]byte{1}
	_, _ = unix.Write(p.event, one[:]) // it fails only where it has been woken 2^64 times
}

// register has the poller tell of what arrives on cn; false: it cannot.
func (p *poller) register(cn *conn) bool {
	s := &cn.batched
	if s.poll == p {
		return true
	}
	if err := cn.rc.Control(func(fd uintptr) { s.fd = int32(fd) }); err != nil {
		return false
	}
	p.mu.Lock()
	p.conns[s.fd] = cn // before add: a driver may be told at once
	p.mu.Unlock()
	if p.add(s.fd) != nil {
		p.mu.Lock()
		delete(p.conns, s.fd)
		p.mu.Unlock()
		return false
	}
	s.poll = p
	return true
}

func (p *poller) conn(fd int32) *conn {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.conns[fd]
}

// glance is one driver's look at a poller.
type glance struct {
	p      *poller
	events [eventsAtOnce]unix.EpollEvent
	n      int
	look   func(fd uintptr) bool // made once: a closure for each wait would be garbage
}

func newGlance(p *poller) *glance {
	g := &glance{p: p}
	g.look = func(fd uintptr) bool {
		var err error
		g.n, err = unix.EpollWait(int(fd), g.events[:], 0)
		if err != nil { // EINTR
			g.n = 0
		}
		return g.n > 0
	}
	return g
}

// ready appends the descriptors on which something arrived; it does not wait.
func (g *glance) ready(dst []int32) []int32 {
	g.look(uintptr(g.p.fd))
	return g.taken(dst)
}

// wait is ready once there is something, or wake was called.
func (g *glance) wait(dst []int32) []int32 {
	g.n = 0
	if g.p.rc.Read(g.look) != nil { // closed
		return dst
	}
	return g.taken(dst)
}

func (g *glance) taken(dst []int32) []int32 {
	for i := range g.n {
		if g.events[i].Fd != int32(g.p.event) {
			dst = append(dst, g.events[i].Fd)
		}
	}
	return dst
}

// forget is called before cn is closed, which ends its registration.
func (s *batched) forget(cn *conn) {
	if s.poll == nil {
		return
	}
	s.poll.mu.Lock()
	defer s.poll.mu.Unlock()
	if s.poll.conns[s.fd] == cn {
		delete(s.poll.conns, s.fd)
	}
}

// isStale tells whether the idle connection has anything to read: bytes that
// nobody asked for, its end, or an error.
func (s *batched) isStale(*conn) bool {
	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(&s.peeked[0])), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)
	return errno != syscall.EAGAIN
}

// readable tells whether a read would not wait.
func (s *batched) readable() bool { return s.isStale(nil) }

func (s *batched) read(p []byte) (int, error) {
	for {
		switch n, err := syscall.Read(int(s.fd), p); {
		case err == nil && n == 0 && len(p) > 0:
			return 0, io.EOF
		case err == nil:
			return n, nil
		case err == syscall.EAGAIN:
			return 0, errNothingYet
		case err != syscall.EINTR:
			return 0, err
		}
	}
}

// write takes all of p: what the socket does not take at once is kept in rest.
func (s *batched) write(p []byte) (int, error) {
	n := 0
	for len(s.rest) == 0 && n < len(p) {
		m, err := syscall.Write(int(s.fd), p[n:])
		switch err {
		case nil:
			n += m
			continue
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
		default:
			return n, err
		}
		break
	}
	s.rest = append(s.rest, p[n:]...)
	return len(p), nil
}
