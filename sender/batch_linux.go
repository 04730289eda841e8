package sender

import (
	"bytes"
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/pipeline"
)

const (
	// startsAtOnce is how many tries one driver begins before it looks for answers.
	startsAtOnce = 32
	// maxDrivers bounds a Batch's goroutines, which share one epoll instance.
	maxDrivers = 8
	// sweepEvery is how often time limits are looked at: a try of a Batch ends so
	// much late at most.
	sweepEvery = 20 * time.Millisecond
)

// batch makes tries with a few goroutines, the drivers, instead of one for each.
// A driver writes the requests that wait, asks epoll which connections have
// answers, and reads those. What is out of the ordinary goes on in a goroutine
// of its own, by the same code as Send: no kept connection, a token to be
// fetched, a payload that the socket does not take at once, an answer in pieces,
// an error.
//
// A connection with a request under way belongs to nobody until its answer is
// there: whoever moves conn.batched.stage from waiting to taken has it.
type batch struct {
	c    *Client
	done func([]*pipeline.Try)
	poll *poller
	base time.Time // time limits are counted from it: by the monotonic clock, which nobody sets

	mu    sync.Mutex
	queue []*pipeline.Try // not begun; under mu
	start int             // of queue; under mu

	n       int32          // drivers
	parked  atomic.Int32   // of them, those that wait for poll
	open    sync.WaitGroup // tries that have not come back
	tries   atomic.Int64   // the same
	dozing  atomic.Bool    // sweep waits for rouse
	rouse   chan struct{}  // one place
	stopped atomic.Bool
	drivers sync.WaitGroup
	side    sync.WaitGroup // goroutines of tries out of the ordinary, and sweep
}

// driver is what one of the goroutines has.
type driver struct {
	b     *batch
	look  *glance
	ready []int32 // connections with something to read
	tries []*pipeline.Try
	ended []*pipeline.Try
	// afterLettingGo, in a test, is called where read has just let go of a
	// connection and another driver may take it.
	afterLettingGo func()
}

// Batch begins to make tries with few goroutines; see pipeline.Batcher.
func (c *Client) Batch(done func([]*pipeline.Try)) (pipeline.Batch, bool) {
	p, err := newPoller()
	if err != nil {
		return nil, false
	}
	b := &batch{c: c, done: done, poll: p, base: c.now(), rouse: make(chan struct{}, 1)}
	// Half of the processors: the other half is for what feeds them.
	b.n = int32(min(maxDrivers, max(1, runtime.GOMAXPROCS(0)/2)))
	for range b.n {
		b.drivers.Go((&driver{b: b, look: newGlance(p)}).run)
	}
	b.side.Go(b.sweep)
	return b, true
}

func (b *batch) Start(tries []*pipeline.Try) {
	b.open.Add(len(tries))
	b.tries.Add(int64(len(tries)))
	if b.dozing.Load() && b.dozing.CompareAndSwap(true, false) {
		b.rouse <- struct{}{}
	}
	b.mu.Lock()
	b.queue = append(b.queue, tries...)
	waiting := len(b.queue) - b.start
	b.mu.Unlock()
	// A driver that does something looks here again before it parks.
	if parked := b.parked.Load(); parked == b.n || parked > 0 && waiting > startsAtOnce {
		b.poll.wake()
	}
}

func (b *batch) Close() {
	b.open.Wait()
	b.stopped.Store(true)
	if b.dozing.CompareAndSwap(true, false) {
		b.rouse <- struct{}{}
	}
	b.poll.wake()
	b.drivers.Wait()
	b.side.Wait()
	b.poll.close()
}

// take moves tries that wait to dst. more: there are others.
func (b *batch) take(dst []*pipeline.Try) (taken []*pipeline.Try, more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := min(startsAtOnce, len(b.queue)-b.start)
	dst = append(dst, b.queue[b.start:b.start+n]...)
	clear(b.queue[b.start : b.start+n])
	if b.start += n; b.start == len(b.queue) {
		b.queue, b.start = b.queue[:0], 0
	}
	return dst, len(b.queue) > 0
}

func (d *driver) run() {
	for {
		more := false
		d.tries, more = d.b.take(d.tries[:0])
		if more && d.b.parked.Load() > 0 {
			d.b.poll.wake()
		}
		for _, t := range d.tries {
			d.begin(t)
		}
		d.ready = d.look.ready(d.ready[:0])
		for _, fd := range d.ready {
			d.answers(fd)
		}
		d.giveBack()
		switch {
		case len(d.tries) > 0 || len(d.ready) > 0:
			runtime.Gosched() // the loop that feeds us may be waiting for a processor
		case d.b.stopped.Load():
			d.b.poll.wake() // the next one
			return
		default:
			d.park()
		}
	}
}

// park waits until there is something to do.
func (d *driver) park() {
	b := d.b
	b.parked.Add(1)
	defer b.parked.Add(-1)
	b.mu.Lock()
	idle := len(b.queue) == 0
	b.mu.Unlock()
	if idle && !b.stopped.Load() {
		d.ready = d.look.wait(d.ready[:0])
		for _, fd := range d.ready {
			d.answers(fd)
		}
		d.giveBack()
	}
}

// giveBack tells the caller of what has ended.
func (d *driver) giveBack() {
	if len(d.ended) == 0 {
		return
	}
	d.b.done(d.ended)
	d.b.tries.Add(-int64(len(d.ended)))
	d.b.open.Add(-len(d.ended))
	clear(d.ended)
	d.ended = d.ended[:0]
}

// begin makes the request of a try and writes it to a kept connection.
func (d *driver) begin(t *pipeline.Try) {
	c, req, res := d.b.c, &t.Request, &t.Result
	x := c.open(req, res)
	if x == nil {
		d.ended = append(d.ended, t)
		return
	}
	cr := c.credentials(x.to)
	if cr.err != nil || cr.oauth != nil || len(x.content.Body) > joinBytes {
		d.b.aside(t, x, func() { c.sendAuthorized(x, req, res) })
		return
	}
	x.try, x.cr, x.authorization = t, cr, cr.authorization
	if err := x.build(c, x.to, cr, req, res); err != nil {
		v := unavailable(err)
		res.Outcome, res.Error = v.outcome, v.text
		d.end(t, x)
		return
	}
	key := c.key(x.to, cr.identity)
	for {
		cn := c.pool.takeIdle(key)
		if cn == nil || cn.recheckDue(res.StartedAt) || !d.b.poll.register(cn) {
			if cn != nil {
				c.pool.put(cn, true, res.StartedAt)
			}
			d.b.aside(t, x, func() { c.try(x, cr, res) })
			return
		}
		if d.write(x, cn) {
			return
		}
	}
}

// write sends the request over cn, which afterwards is no longer the driver's.
// false: cn was no longer usable, and nothing was written.
func (d *driver) write(x *exchange, cn *conn) bool {
	c, t := d.b.c, x.try
	err := x.begin(cn, c)
	if err == nil {
		s := &cn.batched
		s.x, s.direct = x, true
		s.until.Store(int64(x.deadline.Sub(d.b.base)))
		s.stage.Store(stageWriting)
		_, err = cn.Write(x.wire)
		if err == nil && len(s.rest) == 0 {
			t.Result.RequestWritten = true
			if !s.stage.CompareAndSwap(stageWriting, stageWaiting) { // the answer is there already
				s.stage.Store(stageTaken)
				d.read(cn)
			}
			return true
		}
		s.stage.Store(stageTaken)
		s.direct = false
	}
	switch {
	case errors.Is(err, errStale):
		c.release(x, cn, err)
		return false
	case errors.Is(err, errNotFresh) || errors.Is(err, errClosed):
		c.release(x, cn, err)
		c.conclude(x, x.cr, &t.Result, phaseWrite, err)
		d.end(t, x)
	default:
		d.b.goOn(x, cn, err)
	}
	return true
}

// answers reads what has come on the connection with the descriptor fd, if it is
// the answer to a request.
func (d *driver) answers(fd int32) {
	cn := d.b.poll.conn(fd)
	if cn == nil {
		return
	}
	s := &cn.batched
	for {
		switch stage := s.stage.Load(); {
		case stage == stageWaiting && s.stage.CompareAndSwap(stageWaiting, stageTaken):
			d.read(cn)
			return
		case stage == stageWriting && s.stage.CompareAndSwap(stageWriting, stageAnswered):
			return // whoever writes reads it
		case stage != stageWaiting && stage != stageWriting:
			return
		}
	}
}

// read reads the answer from a connection that is ours. Where it turns out that
// there is none yet, the connection is nobody's again.
func (d *driver) read(cn *conn) {
	s := &cn.batched
	x := s.x
	for {
		_, err := x.reader.Peek(1)
		if err == nil {
			break
		}
		if !errors.Is(err, errNothingYet) {
			d.b.failed(x, cn, phaseRead, err)
			return
		}
		s.stage.Store(stageWaiting)
		if d.afterLettingGo != nil {
			d.afterLettingGo()
		}
		// Had it come before that, nobody would tell us any more.
		if !s.readable() || !s.stage.CompareAndSwap(stageWaiting, stageTaken) {
			return
		}
		// Since stageWaiting another driver may have read that answer and written
		// the next try's request: what waits now need not be what waited then.
		x = s.x
	}
	c, res := d.b.c, &x.try.Result
	if head, _ := x.reader.Peek(x.reader.Buffered()); !whole(head) {
		d.b.goOn(x, cn, nil)
		return
	}
	at, err := x.answer(cn, c, res, nil)
	if err != nil {
		d.b.failed(x, cn, at, err)
		return
	}
	s.x, s.direct = nil, false
	c.release(x, cn, nil)
	c.judge(x, res)
	d.end(x.try, x)
}

// end ends a try; it goes back with others.
func (d *driver) end(t *pipeline.Try, x *exchange) {
	x.try, x.cr = nil, nil
	d.b.c.end(x, &t.Result)
	d.ended = append(d.ended, t)
}

// aside lets what may block end a try in a goroutine of its own.
func (b *batch) aside(t *pipeline.Try, x *exchange, work func()) {
	b.side.Go(func() {
		work()
		x.try, x.cr = nil, nil
		b.c.end(x, &t.Result)
		b.done([]*pipeline.Try{t})
		b.tries.Add(-1)
		b.open.Done()
	})
}

// goOn goes on with a request that was not written whole, or an answer that is
// not there whole, as Send does.
func (b *batch) goOn(x *exchange, cn *conn, err error) {
	t := x.try
	s := &cn.batched
	s.x, s.direct = nil, false
	b.aside(t, x, func() {
		rest := s.rest
		s.rest = nil
		// Also where writing failed: the receiver may have answered before it closed,
		// and the time limit that the connection has is one of a request before.
		late := cn.tcp.SetDeadline(x.deadline)
		at, err := phaseWrite, err
		if err == nil {
			err = late
		}
		if b.c.closing.Load() {
			err = errClosed
		}
		if err == nil && len(rest) > 0 {
			_, err = cn.tcp.Write(rest)
		}
		at, err = x.answer(cn, b.c, &t.Result, err)
		b.c.release(x, cn, err)
		b.c.conclude(x, x.cr, &t.Result, at, err)
	})
}

// failed ends a run with err. It may be that the request is sent again.
func (b *batch) failed(x *exchange, cn *conn, at phase, err error) {
	t := x.try
	cn.batched.x, cn.batched.direct = nil, false
	b.c.release(x, cn, err)
	b.aside(t, x, func() { b.c.conclude(x, x.cr, &t.Result, at, err) })
}

// sweep ends tries whose time limit has run out, and all when the client closes.
func (b *batch) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	var late []*conn
	for !b.stopped.Load() {
		if b.tries.Load() == 0 {
			b.doze(tick)
			continue
		}
		<-tick.C
		now, closing := int64(b.c.now().Sub(b.base)), b.c.closing.Load()
		late = late[:0]
		b.c.pool.eachBatched(func(cn *conn) {
			if cn.batched.takeLate(now, closing) {
				late = append(late, cn)
			}
		})
		for _, cn := range late {
			b.expire(cn, closing)
		}
		clear(late)
	}
}

// expire ends the try of a connection that is ours, whose time limit has run out.
// What is there of an answer counts all the same (see conn.readOverdue).
func (b *batch) expire(cn *conn, closing bool) {
	if closing {
		b.failed(cn.batched.x, cn, phaseRead, errClosed)
		return
	}
	b.goOn(cn.batched.x, cn, nil) // it waits for nothing more
}

// takeLate takes the connection if a request waits on it whose time limit has run
// out at now, or with any. The pool's lock is held: no connection goes through it to
// another request, so what until says after the stage is of the request that waits.
// Before, it may be of the one before.
func (s *batched) takeLate(now int64, whatever bool) bool {
	return s.stage.Load() == stageWaiting && (whatever || now >= s.until.Load()) && s.stage.CompareAndSwap(stageWaiting, stageTaken)
}

// doze waits for the next try, or the end.
func (b *batch) doze(tick *time.Ticker) {
	tick.Stop()
	defer tick.Reset(sweepEvery)
	b.dozing.Store(true)
	// Whoever came before that has not seen it.
	if (b.tries.Load() > 0 || b.stopped.Load()) && b.dozing.CompareAndSwap(true, false) {
		return
	}
	<-b.rouse
}

// whole tells whether buf holds an answer to its end. It says no when in doubt:
// answers in chunks, without a length, or with a status before the final one.
func whole(buf []byte) bool {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < statusLineBytes || buf[9] < '2' {
		return false
	}
	length := -1
	if buf[9] == '2' && string(buf[9:12]) == "204" || string(buf[9:12]) == "304" {
		length = 0
	}
	for line := range bytes.Lines(buf[:end+2]) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case len(name) == len("content-length") && bytes.EqualFold(name, []byte("content-length")):
			n, value := 0, bytes.TrimSpace(value)
			if len(value) == 0 {
				return false // fasthttp takes it for none, and reads until the end
			}
			for _, c := range value {
				if !isDigit(c) || n > len(buf) {
					return false
				}
				n = 10*n + int(c-'0')
			}
			length = max(length, n)
		case len(name) == len("transfer-encoding") && bytes.EqualFold(name, []byte("transfer-encoding")):
			return false
		}
	}
	return length >= 0 && end+4+length <= len(buf)
}
