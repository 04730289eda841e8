package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Paths of the receiver.
const (
	pathOK    = "ok"
	pathMixed = "mixed"
	pathFail  = "fail"
)

// seen is what the receiver knows. Latency is measured from the time that
// stands in the payload to the arrival of the first attempt.
type seen struct {
	requests atomic.Int64
	failed   atomic.Int64
	every    atomic.Int64 // of how many requests one is measured
	mu       sync.Mutex
	late     []int64 // microseconds; under mu
}

// counts is the answer to GET /count. With reset=1 it begins a new measurement, of
// every every-th request's latency; with latency=1 it has the latencies, which
// take a while to sort.
type counts struct {
	Requests, Failed      int64
	P50us, P99us, Samples int64
}

// sampled is of how many requests one is measured where nobody asks for all.
const sampled = 16

// receive answers POSTs: /ok at once or after o.delay, /mixed at once, after 20 ms
// (three of twenty) or 200 (one of twenty), /fail with 500.
func receive(ctx context.Context, o *options) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var s seen
	s.every.Store(sampled)
	srv := &fasthttp.Server{
		NoDefaultServerHeader: true, NoDefaultDate: true, MaxRequestBodySize: 64 << 20,
		Handler: func(c *fasthttp.RequestCtx) { s.handle(c, o.delay) },
	}
	fmt.Println("http://" + ln.Addr().String())
	go func() { // a parent that is gone closes our standard input
		var b [1]byte
		_, _ = os.Stdin.Read(b[:])
		_ = srv.Shutdown()
	}()
	go func() { <-ctx.Done(); _ = srv.Shutdown() }()
	return srv.Serve(ln)
}

func (s *seen) handle(c *fasthttp.RequestCtx, delay time.Duration) {
	path := string(c.Path())
	if path == "/count" {
		b, _ := json.Marshal(s.take(c.QueryArgs()))
		c.SetBody(b)
		return
	}
	n := s.requests.Add(1)
	if path == "/"+pathFail {
		s.failed.Add(1)
		c.SetStatusCode(500)
		return
	}
	if n%s.every.Load() == 0 && string(c.Request.Header.Peek("X-Hookline-Attempt")) == "1" {
		s.sample(c.Request.Body())
	}
	if path == "/"+pathMixed {
		delay = mixedDelay(n)
	}
	if delay > 0 {
		time.Sleep(delay)
	}
}

// mixedDelay is how long the n-th request to /mixed takes.
func mixedDelay(n int64) time.Duration {
	switch n % 20 {
	case 0:
		return 200 * time.Millisecond
	case 5, 10, 15:
		return 20 * time.Millisecond
	}
	return 0
}

func (s *seen) sample(body []byte) {
	at, ok := sentAt(body)
	if !ok {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.late) < 1<<20 {
		s.late = append(s.late, time.Since(at).Microseconds())
	}
}

func (s *seen) take(q *fasthttp.Args) counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := counts{Requests: s.requests.Load(), Failed: s.failed.Load(), Samples: int64(len(s.late))}
	if q.Has("latency") && len(s.late) > 0 {
		slices.Sort(s.late)
		c.P50us, c.P99us = s.late[len(s.late)/2], s.late[len(s.late)*99/100]
	}
	if q.Has("reset") {
		s.late = nil
		s.requests.Store(0)
		s.failed.Store(0)
		s.every.Store(max(1, int64(q.GetUintOrZero("every"))))
	}
	return c
}

// payload makes JSON of about size bytes that compresses badly, with the time
// at which it was made in a fixed place.
func payload(size int, seed uint64, group int) []byte {
	b := make([]byte, 0, size+64)
	b = append(b, `{"at":"`...)
	b = append(b, fmt.Sprintf("%020d", time.Now().UnixNano())...)
	b = append(b, `","type":"bench.`...)
	b = strconv.AppendInt(b, int64(group), 10)
	b = append(b, `","id":"`...)
	b = strconv.AppendUint(b, seed, 10)
	b = append(b, `","data":"`...)
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	var s [32]byte
	binary.LittleEndian.PutUint64(s[:], seed+1)
	rnd := rand.NewChaCha8(s)
	for len(b) < size-2 {
		v := rnd.Uint64()
		for range min(10, size-2-len(b)) {
			b = append(b, alphabet[v&63])
			v >>= 6
		}
	}
	return append(b, `"}`...)
}

// sentAt reads the time of a payload.
func sentAt(b []byte) (time.Time, bool) {
	if len(b) < 27 {
		return time.Time{}, false
	}
	ns, err := strconv.ParseInt(string(b[7:27]), 10, 64)
	return time.Unix(0, ns), err == nil
}
