package sender

import (
	"slices"
	"testing"

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
	c.pool.eachBusy(func(busy *conn) { cn = busy })
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
