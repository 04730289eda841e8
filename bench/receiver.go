package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// Paths of the receiver.
const (
	pathOK    = "ok"
	pathFail  = "fail"
	pathSpare = "spare" // takes what another scenario's failing endpoints do not
)

// seen is what the receiver knows. Latency is measured from the time that
// stands in the payload to the arrival of the first attempt.
type seen struct {
	requests atomic.Int64
	failed   atomic.Int64
	spare    atomic.Int64
	mu       sync.Mutex
	late     []int64 // microseconds, of every sixteenth first attempt; under mu
}

// counts is the answer to GET /count; it also begins a new measurement.
type counts struct {
	Requests, Failed, Spare int64
	P50us, P99us, Samples   int64
}

// receive answers POSTs: /ok and /spare at once or after o.delay, /fail with 500.
func receive(ctx context.Context, o *options) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	var s seen
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
	if string(c.Path()) == "/count" {
		b, _ := json.Marshal(s.take(c.QueryArgs().Has("reset")))
		c.SetBody(b)
		return
	}
	n := s.requests.Add(1)
	if delay > 0 {
		time.Sleep(delay)
	}
	switch string(c.Path()) {
	case "/" + pathFail:
		s.failed.Add(1)
		c.SetStatusCode(500)
		return
	case "/" + pathSpare:
		s.spare.Add(1)
	}
	if n%16 == 0 {
		s.sample(c.Request.Body())
	}
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

func (s *seen) take(reset bool) counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := counts{Requests: s.requests.Load(), Failed: s.failed.Load(), Spare: s.spare.Load(), Samples: int64(len(s.late))}
	if len(s.late) > 0 {
		sort.Slice(s.late, func(i, j int) bool { return s.late[i] < s.late[j] })
		c.P50us, c.P99us = s.late[len(s.late)/2], s.late[len(s.late)*99/100]
	}
	if reset {
		s.late = nil
		s.requests.Store(0)
		s.failed.Store(0)
		s.spare.Store(0)
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
