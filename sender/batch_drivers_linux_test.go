package sender

import (
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/hookline/hookline/pipeline"
)

// byHand is a Batch whose drivers the test plays, one step after the other.
func byHand(t *testing.T, c *Client) *batch {
	t.Helper()
	if inBatches {
		t.Skip("one Batch may be open at a time")
	}
	p, err := newPoller()
	if err != nil {
		t.Fatal(err)
	}
	b := &batch{c: c, poll: p, rouse: make(chan struct{}, 1)}
	t.Cleanup(func() {
		b.side.Wait()
		p.close()
	})
	return b
}

// waiting has a request answered, then another one wait on the connection that was
// kept, and takes that as a driver or the sweep would. ended is closed when the try
// has ended.
func (b *batch) waiting(t *testing.T, url string) (d *driver, try *pipeline.Try, cn *conn, ended waiter) {
	t.Helper()
	if res := send(b.c, request(url)); res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("%s %q", res.Outcome, res.Error)
	}
	ended = make(waiter)
	b.done = func([]*pipeline.Try) { close(ended) }
	d = &driver{b: b, look: newGlance(b.poll)}
	try = &pipeline.Try{Request: *request(url)}
	b.open.Add(1)
	b.tries.Add(1)
	d.begin(try)
	b.c.pool.eachBatched(func(busy *conn) { cn = busy })
	if cn == nil || !cn.batched.takeLate(0, true) {
		t.Fatal("the request does not wait on the kept connection")
	}
	return d, try, cn, ended
}

// TestDriverGoesOnWithTheTryThatWaitsNow: a driver lets go of a connection and
// loses the processor; another one reads the answer that came and writes the
// next try's request to the same connection. The first, when it goes on, finds
// that one's answer.
func TestDriverGoesOnWithTheTryThatWaitsNow(t *testing.T) {
	reply := make(chan string)
	srv := serveRaw(t, func(p *peer) {
		for p.request() {
			select {
			case text := <-reply:
				p.say("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + text)
			case <-p.srv.stop:
				return
			}
		}
	})
	c := newClient(t, localConfig(), Deps{})
	b := byHand(t, c)
	warmed := make(chan *pipeline.Result)
	go func() { warmed <- send(c, request(srv.url())) }()
	reply <- "warmed"
	if res := <-warmed; res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("%s %q", res.Outcome, res.Error)
	}
	late, quick := &driver{b: b, look: newGlance(b.poll)}, &driver{b: b, look: newGlance(b.poll)}
	first, second := &pipeline.Try{Request: *request(srv.url())}, &pipeline.Try{Request: *request(srv.url())}
	quick.begin(first)
	var cn *conn
	c.pool.eachBatched(func(busy *conn) { cn = busy })
	if cn == nil || cn.batched.stage.Load() != stageWaiting {
		t.Fatal("the first request does not wait on the kept connection")
	}
	fd := cn.batched.fd
	arrives := func(text string) {
		reply <- text
		if got := quick.look.wait(nil); !slices.Equal(got, []int32{fd}) {
			t.Fatalf("something arrives on %v, want %d", got, fd)
		}
	}
	late.afterLettingGo = func() {
		late.afterLettingGo = nil
		arrives("first ")
		quick.answers(fd)
		_ = c.exchanges.Get() // the first one's: another request has it meanwhile
		quick.begin(second)
		arrives("second")
	}
	late.answers(fd) // an event of before
	if !slices.Equal(quick.ended, []*pipeline.Try{first}) || !slices.Equal(late.ended, []*pipeline.Try{second}) {
		t.Fatalf("ended: %d tries by the quick driver, %d by the late one, want the first and the second", len(quick.ended), len(late.ended))
	}
	for try, want := range map[*pipeline.Try]string{first: "first ", second: "second"} {
		if got := string(try.Result.ResponseBody); got != want || try.Result.Outcome != pipeline.OutcomeSuccess {
			t.Errorf("%s, body %q, want %q", try.Result.Outcome, got, want)
		}
	}
}

// setClock is at as a clock that was set by so much tells it: in whole seconds,
// and the monotonic reading as it was.
func setClock(t *testing.T, at time.Time, by time.Duration) time.Time {
	set := at
	// A Time with a monotonic reading has its wall clock's seconds above 30 bits
	// of nanoseconds.
	*(*uint64)(unsafe.Pointer(&set)) += uint64(by/time.Second) << 30
	if set.Sub(at) != 0 || set.Round(0).Sub(at.Round(0)) != by {
		t.Errorf("%v is not %v set by %v", set, at, by)
	}
	return set
}

// TestTimeLimitWhenTheClockIsSet: setting the machine's clock, as NTP does,
// makes the time limit of a request under way neither shorter nor longer.
func TestTimeLimitWhenTheClockIsSet(t *testing.T) {
	if inBatches {
		t.Skip("one Batch may be open at a time")
	}
	for name, by := range map[string]time.Duration{"back": -time.Hour, "ahead": time.Hour} {
		t.Run(name, func(t *testing.T) {
			unanswered := make(chan struct{})
			srv := serveRaw(t, func(p *peer) {
				if p.request() {
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
				if p.request() {
					close(unanswered)
					p.hold()
				}
			})
			cfg := localConfig()
			cfg.RequestTimeout = 200 * time.Millisecond
			var set atomic.Int64
			c := newClient(t, cfg, Deps{Now: func() time.Time { return setClock(t, time.Now(), time.Duration(set.Load())) }})
			if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeSuccess {
				t.Fatalf("%s %q", res.Outcome, res.Error)
			}
			openBatch(t, c)
			ended := make(waiter)
			try := &pipeline.Try{Request: *request(srv.url()), Owner: ended}
			b, _ := batches.Load(c)
			b.(pipeline.Batch).Start([]*pipeline.Try{try})
			<-unanswered
			set.Store(int64(by))
			select {
			case <-ended:
			case <-time.After(5 * time.Second): // as long as for ever
				set.Store(0)
				<-ended
				t.Fatal("the request did not end at its time limit")
			}
			if try.Result.Outcome != pipeline.OutcomeTimeout || try.Result.Elapsed < cfg.RequestTimeout {
				t.Errorf("%s after %v, want a timeout after %v", try.Result.Outcome, try.Result.Elapsed, cfg.RequestTimeout)
			}
		})
	}
}

// TestAnswerAfterWritingFailed: the answer of a receiver that refuses a request
// while it is written is read, whatever time limit the kept connection had before.
func TestAnswerAfterWritingFailed(t *testing.T) {
	refuse := make(chan struct{})
	srv := serveRaw(t, func(p *peer) {
		if p.request() {
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		if p.request() {
			<-refuse
			p.say("HTTP/1.1 413 Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\ntoo large")
		}
	})
	c := newClient(t, localConfig(), Deps{})
	b := byHand(t, c)
	_, try, cn, ended := b.waiting(t, srv.url())
	if err := cn.tcp.SetDeadline(time.Unix(1, 0)); err != nil { // as a request of before has left it
		t.Fatal(err)
	}
	close(refuse)
	b.goOn(cn.batched.x, cn, syscall.EPIPE)
	<-ended
	if r := &try.Result; r.Outcome != pipeline.OutcomeResponseError || r.StatusCode != 413 || string(r.ResponseBody) != "too large" {
		t.Errorf("got %s %q, status %d %q", r.Outcome, r.Error, r.StatusCode, r.ResponseBody)
	}
}

// TestAnswerThatCameWhileFrozen: the process was frozen, and its time limits have
// passed when it wakes. What was answered meanwhile is an answer, what was not is
// late.
func TestAnswerThatCameWhileFrozen(t *testing.T) {
	for name, tt := range map[string]struct {
		answer string
		want   pipeline.Outcome
	}{
		"whole":   {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", pipeline.OutcomeSuccess},
		"refused": {"HTTP/1.1 503 No\r\nContent-Length: 2\r\n\r\nno", pipeline.OutcomeResponseError},
		"chunked": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", pipeline.OutcomeSuccess},
		"begun":   {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no", pipeline.OutcomeTimeout},
		"none":    {"", pipeline.OutcomeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			frozen := make(chan struct{})
			srv := serveRaw(t, func(p *peer) {
				if p.request() {
					p.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
				}
				if p.request() {
					<-frozen
					p.say(tt.answer)
					p.hold()
				}
			})
			c := newClient(t, localConfig(), Deps{})
			b := byHand(t, c)
			d, try, cn, ended := b.waiting(t, srv.url())
			close(frozen)
			if tt.answer != "" {
				d.look.wait(nil)
			}
			cn.batched.x.deadline = time.Unix(1, 0)
			b.expire(cn, false)
			<-ended
			if r := &try.Result; r.Outcome != tt.want {
				t.Errorf("got %s %q, status %d, want %s", r.Outcome, r.Error, r.StatusCode, tt.want)
			}
		})
	}
}

// TestPollerForgetsWhatItCannotWatch: a connection that epoll refuses is not
// kept by the poller.
func TestPollerForgetsWhatItCannotWatch(t *testing.T) {
	srv := serveRaw(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	c := newClient(t, localConfig(), Deps{})
	b := byHand(t, c)
	if res := send(c, request(srv.url())); res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("%s %q", res.Outcome, res.Error)
	}
	var cn *conn
	c.pool.mu.Lock()
	cn = c.pool.idle.front()
	c.pool.mu.Unlock()
	// A descriptor is refused where it is watched already.
	if !b.poll.register(cn) {
		t.Fatal("not registered")
	}
	cn.batched.forget(cn)
	cn.batched.poll = nil
	if b.poll.register(cn) {
		t.Fatal("registered twice")
	}
	if got := b.poll.conn(cn.batched.fd); got != nil {
		t.Error("the poller keeps the connection that it cannot watch")
	}
}

// TestTimeLimitIsOfTheRequestThatWaits: a connection that has been idle for longer
// than a time limit has that of a request before until the next one is begun. The
// sweep may look at it in between.
func TestTimeLimitIsOfTheRequestThatWaits(t *testing.T) {
	if inBatches {
		t.Skip("it has no client")
	}
	const past, now, ahead, rounds = 1, 2, 3, 300_000
	var pool sync.Mutex // as the pool's, which a connection passes between two requests
	var s batched
	stop := make(chan struct{})
	var sweep sync.WaitGroup
	sweep.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			pool.Lock()
			if s.takeLate(now, false) {
				t.Error("a request that has just begun is taken for late")
			}
			pool.Unlock()
		}
	})
	for range rounds {
		pool.Lock()
		s.stage.Store(stageTaken)
		s.until.Store(past)
		pool.Unlock()
		s.until.Store(ahead)
		s.stage.Store(stageWriting)
		s.stage.CompareAndSwap(stageWriting, stageWaiting)
		if t.Failed() {
			break
		}
	}
	close(stop)
	sweep.Wait()
}
