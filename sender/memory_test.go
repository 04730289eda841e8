package sender

import (
	"fmt"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

const (
	// hostileAtOnce is how many memory-hostile receivers are met at once, and
	// hostileMiB by how much the process's memory may grow.
	hostileAtOnce = 100
	hostileMiB    = 32
)

// gluttons are receivers that would have us keep what they say: its bytes, and
// what is said again and again after it.
func gluttons() map[string][2]string {
	const chunked, zip = "Transfer-Encoding: chunked\r\n", "Content-Encoding: gzip\r\n"
	ok := func(head, body string) string { return "HTTP/1.1 200 OK\r\n" + head + "\r\n" + body }
	bomb := zipped(make([]byte, 64<<20))
	return map[string][2]string{
		"endless headers":         {"HTTP/1.1 200 OK\r\n", strings.Repeat("X-A: 1\r\n", 1000)},
		"endless header":          {"HTTP/1.1 200 OK\r\nX-A: ", strings.Repeat("a", 8000)},
		"endless status line":     {"HTTP/1.1 200 ", strings.Repeat("a", 8000)},
		"endless interim answers": {"", strings.Repeat("HTTP/1.1 102 Processing\r\nX-A: "+strings.Repeat("a", 4000)+"\r\n\r\n", 2)},
		"10 GB":                   {ok("Content-Length: 10000000000\r\n", ""), strings.Repeat("a", 8000)},
		"endless body":            {ok("", ""), strings.Repeat("a", 8000)},
		"endless chunks":          {ok(chunked, ""), strings.Repeat("1\r\na\r\n", 1000)},
		"one endless chunk":       {ok(chunked, "7fffffffffffffff\r\n"), strings.Repeat("a", 8000)},
		"endless chunk extension": {ok(chunked, "1;"), strings.Repeat("a", 8000)},
		"endless trailer":         {ok(chunked, "0\r\n"), strings.Repeat("X-T: 1\r\n", 1000)},
		"gzip bomb":               {ok(zip+fmt.Sprintf("Content-Length: %d\r\n", len(bomb)), bomb), ""},
		"endless gzip bomb":       {ok(zip+chunked, fmt.Sprintf("%x\r\n%s\r\n", len(bomb), bomb)), fmt.Sprintf("%x\r\n%s\r\n", len(bomb[:8000]), bomb[:8000])},
		"large answer, held":      {ok("Content-Length: 20000\r\nX-A: "+strings.Repeat("a", 30_000)+"\r\n", strings.Repeat("a", 19_999)), ""},
	}
}

// TestHostileReceiversTakeLittleMemory meets a hundred of each kind at once.
func TestHostileReceiversTakeLittleMemory(t *testing.T) {
	for name, says := range gluttons() {
		t.Run(name, func(t *testing.T) {
			first, again := []byte(says[0]), []byte(says[1]) // the receivers' own memory is not what is measured
			met := make(chan struct{}, hostileAtOnce)
			release := make(chan struct{})
			srv := serveRaw(t, func(p *peer) {
				p.request()
				met <- struct{}{}
				<-release // all of them begin to answer at once
				_, err := p.Write(first)
				for err == nil && len(again) > 0 {
					_, err = p.Write(again)
				}
				p.hold()
			})
			c := newClient(t, localConfig(), Deps{})
			req := request(srv.url())
			req.Subscription.Timeout = time.Second
			results := make([]pipeline.Result, hostileAtOnce)
			debug.FreeOSMemory()
			before := mapped()
			var tries sync.WaitGroup
			for i := range results {
				tries.Go(func() { sendWith(c, req, &results[i]) })
			}
			for range hostileAtOnce {
				<-met
			}
			peak := peakWhile(func() {
				close(release)
				tries.Wait()
			})
			t.Logf("%.1f MiB over the baseline of %.1f MiB; %s", float64(peak-before)/(1<<20), float64(before)/(1<<20), results[0].Outcome)
			if peak > before+hostileMiB<<20 {
				t.Errorf("%d at once take %d MiB over the baseline, more than %d", hostileAtOnce, (peak-before)>>20, hostileMiB)
			}
			if i := slices.IndexFunc(results, func(r pipeline.Result) bool {
				return len(r.ResponseBody) > c.cfg.ResponseBodyBytes || len(r.ResponseHeaders) > c.cfg.ResponseHeaderBytes
			}); i >= 0 {
				t.Errorf("%d bytes of a body and %d of headers are kept", len(results[i].ResponseBody), len(results[i].ResponseHeaders))
			}
		})
	}
}

// mapped is the memory that Go holds of the system; the race detector's own is
// not in it.
func mapped() uint64 {
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	return s[0].Value.Uint64() - s[1].Value.Uint64()
}

// peakWhile is the highest mapped while do runs.
func peakWhile(do func()) uint64 {
	var watch sync.WaitGroup
	done := make(chan struct{})
	peak := mapped()
	watch.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				peak = max(peak, mapped())
			}
		}
	})
	do()
	close(done)
	watch.Wait()
	return max(peak, mapped())
}
