package sender

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
)

// benchPayload is about as large as a published event.
var benchPayload = []byte(fmt.Sprintf(`{"type":"COTTask","event":"create","data":{"x":"%01000d"}}`, 7))

func benchReceiver(b *testing.B) string {
	b.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	srv := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) { ctx.SetStatusCode(200) }}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(ln) }()
	b.Cleanup(func() {
		if err := srv.Shutdown(); err != nil {
			b.Error(err)
		}
		<-done
	})
	return "http://" + ln.Addr().String() + "/hook"
}

// reportCPU reports the process's CPU time for each operation, receiver included.
func reportCPU(b *testing.B, work func()) {
	b.Helper()
	before := cpu()
	work()
	b.ReportMetric(float64(cpu()-before)/float64(b.N)/1e3, "cpu-µs/op")
}

func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func BenchmarkSend(b *testing.B) {
	c := newClient(b, localConfig(), Deps{Gate: func() bool { return true }})
	req := request(benchReceiver(b))
	req.Payload = benchPayload
	b.SetParallelism(128) // with two processors 256 under way, as the dispatcher has
	b.ReportAllocs()
	b.ResetTimer()
	reportCPU(b, func() {
		b.RunParallel(func(pb *testing.PB) {
			var res pipeline.Result
			for pb.Next() {
				if c.Send(req, &res); res.Outcome != pipeline.OutcomeSuccess {
					b.Error(res.Error)
				}
			}
		})
	})
}

func BenchmarkBareHostClient(b *testing.B) {
	url := benchReceiver(b)
	hc := &fasthttp.HostClient{Addr: url[len("http://") : len(url)-len("/hook")], MaxConns: 512}
	defer hc.CloseIdleConnections()
	b.SetParallelism(128) // with two processors 256 under way, as the dispatcher has
	b.ReportAllocs()
	b.ResetTimer()
	reportCPU(b, func() {
		b.RunParallel(func(pb *testing.PB) {
			req, resp := fasthttp.AcquireRequest(), fasthttp.AcquireResponse()
			for pb.Next() {
				req.Reset()
				req.SetRequestURI(url)
				req.Header.SetMethod("POST")
				req.Header.SetContentType("application/json")
				req.Header.Set("webhook-id", "dlv_test")
				req.SetBodyRaw(benchPayload)
				if err := hc.DoTimeout(req, resp, 15*time.Second); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// BenchmarkBatch keeps 256 requests under way, as the dispatcher does.
func BenchmarkBatch(b *testing.B) {
	c := newClient(b, localConfig(), Deps{Gate: func() bool { return true }})
	url := benchReceiver(b)
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	var batch pipeline.Batch
	batch, ok := c.Batch(func(tries []*pipeline.Try) {
		for _, try := range tries {
			if try.Result.Outcome != pipeline.OutcomeSuccess {
				b.Error(try.Result.Error)
			}
			if left.Add(-1) >= 0 {
				batch.Start([]*pipeline.Try{try})
			} else {
				all.Done()
			}
		}
	})
	if !ok {
		b.Skip("no Batch on this system")
	}
	b.Cleanup(batch.Close)
	b.ReportAllocs()
	b.ResetTimer()
	reportCPU(b, func() {
		req := request(url)
		req.Payload = benchPayload
		for range min(256, b.N) {
			all.Add(1)
			left.Add(-1)
			batch.Start([]*pipeline.Try{{Request: *req}})
		}
		all.Wait()
	})
}
