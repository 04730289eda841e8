package main

import (
	"fmt"
	"net/url"
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

// bare POSTs o.count times with o.inflight requests under way: HostClient.Do on
// keep-alive connections, the response fully read, and nothing else.
func bare(o *options) error {
	u, err := url.Parse(o.url)
	if err != nil {
		return err
	}
	c := &fasthttp.HostClient{Addr: u.Host, MaxConns: o.inflight, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second}
	body := payload(o.size, 1, 0)
	var left, failed atomic.Int64
	left.Store(int64(o.count))
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
		return fmt.Errorf("%d of %d requests failed", n, o.count)
	}
	return nil
}
