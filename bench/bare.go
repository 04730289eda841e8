package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
)

// The headers of a request of hookline's, with constant values: what a bare
// sender that signs would send.
var constantHeaders = [][2]string{
	{"Content-Type", "application/json"},
	{"User-Agent", "hookline/bench"},
	{"Webhook-Id", "dlv_mwmirthowm7sxkbjti2ajknkeu"},
	{"Webhook-Timestamp", "1700000000"},
	{"Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="},
	{"X-Hookline-Event-Type", "bench.0"},
	{"X-Hookline-Attempt", "1"},
	{"X-Hookline-Subscription", "62685990d918fb5557f9f992"},
}

// bareWarm is how many requests the bare loop makes before it is measured, so that
// its connections are there.
const bareWarm = 10_000

// bare POSTs o.count times with o.inflight requests under way: HostClient.Do on
// keep-alive connections, the response fully read, and nothing else. It prints what
// that took after bareWarm others.
func bare(o *options) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	c := &fasthttp.HostClient{Addr: u.Host, MaxConns: o.inflight, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second}
	body := payload(o.size, 1, 0)
	if err := post(c, o, bareWarm, body); err != nil {
		return err
	}
	before, begun := ownCPU(), time.Now()
	if err := post(c, o, o.count, body); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(spent{CPU: ownCPU() - before, Wall: time.Since(begun)})
}

func post(c *fasthttp.HostClient, o *options, count int, body []byte) error {
	var left, failed atomic.Int64
	left.Store(int64(count))
	var wg sync.WaitGroup
	for range o.inflight {
		wg.Go(func() {
			req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			for left.Add(-1) >= 0 {
				req.Reset()
				req.SetRequestURI(o.url)
				req.Header.SetMethod(fasthttp.MethodPost)
				for _, h := range constantHeaders {
					req.Header.Set(h[0], h[1])
				}
				req.SetBodyRaw(body)
				if err := c.Do(req, resp); err != nil || resp.StatusCode() != 200 || len(resp.Body()) > 1<<20 {
					failed.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d of %d requests failed", n, count)
	}
	return nil
}
