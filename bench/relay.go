package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/valyala/fasthttp"
)

// relay is the least that a sender fed by Kafka can do: poll, POST each record,
// forget. No order, no retries, no log, no commits. What it prints has its start
// in it.
func relay(ctx context.Context, o *options) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(strings.Split(o.brokers, ",")...), kgo.ConsumeTopics(o.topic),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	host := strings.SplitN(strings.TrimPrefix(o.url, "http://"), "/", 2)[0]
	c := &fasthttp.HostClient{Addr: host, MaxConns: o.inflight, ReadTimeout: 15 * time.Second, WriteTimeout: 15 * time.Second}
	begun := time.Now()
	records := make(chan []*kgo.Record, o.inflight)
	var failed atomic.Int64
	var wg sync.WaitGroup
	for range o.inflight {
		wg.Go(func() {
			req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			for rs := range records {
				for _, r := range rs {
					req.Reset()
					req.SetRequestURI(o.url)
					req.Header.SetMethod(fasthttp.MethodPost)
					for _, h := range constantHeaders {
						req.Header.Set(h[0], h[1])
					}
					req.SetBodyRaw(r.Value)
					if err := c.Do(req, resp); err != nil || resp.StatusCode() != 200 {
						failed.Add(1)
					}
				}
			}
		})
	}
	for seen := 0; seen < o.count; {
		fs := cl.PollRecords(ctx, 1000)
		if err := cmp.Or(ctx.Err(), fs.Err()); err != nil {
			return err
		}
		rs := fs.Records()
		seen += len(rs)
		for len(rs) > 0 {
			n := min(8, len(rs))
			records <- rs[:n]
			rs = rs[n:]
		}
	}
	close(records)
	wg.Wait()
	if n := failed.Load(); n > 0 {
		return fmt.Errorf("%d requests failed", n)
	}
	return json.NewEncoder(os.Stdout).Encode(spent{CPU: ownCPU(), Wall: time.Since(begun)})
}
