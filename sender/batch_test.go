package sender

import (
	"flag"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// inBatches: send goes through a Batch. Every test runs in both ways.
var inBatches bool

// twice runs the tests with Send, then with a Batch.
type twice struct{ m *testing.M }

func (r twice) Run() int {
	code := r.m.Run()
	for _, name := range []string{"test.bench", "test.fuzz", "test.list"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return code
		}
	}
	if code == 0 {
		inBatches = true
		code = r.m.Run()
	}
	return code
}

// batches has the Batch of each client of a test.
var batches sync.Map // *Client -> pipeline.Batch

type waiter chan struct{}

// openBatch gives c a Batch until the test ends. It comes before c's own end.
func openBatch(t testing.TB, c *Client) {
	t.Helper()
	b, ok := c.Batch(func(ts []*pipeline.Try) {
		for _, try := range ts {
			close(try.Owner.(waiter))
		}
	})
	if !ok {
		t.Skip("no Batch on this system")
	}
	batches.Store(c, b)
	t.Cleanup(func() {
		batches.Delete(c)
		b.Close()
	})
}

// sendInBatch is Send by the client's Batch, if it has one.
func sendInBatch(c *Client, req *pipeline.Request, res *pipeline.Result) bool {
	b, ok := batches.Load(c)
	if !ok {
		return false
	}
	ended := make(waiter)
	try := &pipeline.Try{Request: *req, Result: *res, Owner: ended}
	b.(pipeline.Batch).Start([]*pipeline.Try{try})
	<-ended
	*res = try.Result
	return true
}

// variousAnswers answers as the path says; unanswered counts the requests that came
// and have no answer.
func variousAnswers(t *testing.T, unanswered *atomic.Int64) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_ = readAll(t, r.Body) // else the server does not see that we close
		switch r.URL.Path {
		case "/late":
			time.Sleep(30 * time.Millisecond)
		case "/pieces":
			w.Header().Set("Content-Length", "6")
			_, _ = w.Write([]byte("one"))
			w.(http.Flusher).Flush()
			time.Sleep(20 * time.Millisecond)
			_, _ = w.Write([]byte("two"))
			return
		case "/never":
			unanswered.Add(1)
			<-r.Context().Done()
		case "/close":
			w.Header().Set("Connection", "close")
		}
		_, _ = w.Write([]byte("done"))
	}
}

// TestBatchMakesManyTriesAtOnce: more than the drivers begin at once, to a
// receiver that answers at once, late, in pieces, not at all, or closes.
func TestBatchMakesManyTriesAtOnce(t *testing.T) {
	var unanswered atomic.Int64
	srv := httptest.NewServer(variousAnswers(t, &unanswered))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{})
	var mu sync.Mutex
	var ended []*pipeline.Try
	all := make(chan struct{})
	paths := []string{"/now", "/late", "/pieces", "/never", "/close"}
	if inBatches {
		t.Skip("it has a Batch of its own")
	}
	const rounds, each = 4, 40
	b, ok := c.Batch(func(ts []*pipeline.Try) {
		mu.Lock()
		defer mu.Unlock()
		ended = append(ended, ts...)
		if len(ended)%(each*len(paths)) == 0 {
			all <- struct{}{}
		}
	})
	if !ok {
		t.Skip("no Batch on this system")
	}
	var tries []*pipeline.Try
	for _, path := range paths {
		for range each {
			tries = append(tries, &pipeline.Try{Request: *request(srv.URL + path), Owner: path})
			tries[len(tries)-1].Request.Subscription.ID = path
			if path == "/never" { // the others have as long as a busy machine takes
				tries[len(tries)-1].Request.Subscription.Timeout = 500 * time.Millisecond
			}
		}
	}
	written := int64(0) // to who never answers
	for range rounds {
		b.Start(tries)
		<-all
		if len(ended) != len(tries) {
			t.Fatalf("%d tries came back of %d", len(ended), len(tries))
		}
		ended = nil
		for _, try := range tries {
			want, body := pipeline.OutcomeSuccess, "done"
			switch try.Owner {
			case "/never":
				want, body = pipeline.OutcomeTimeout, ""
			case "/pieces":
				body = "onetwo"
			}
			res := &try.Result
			// A busy machine may take all the time that the unanswered have to connect.
			if res.Outcome != want || string(res.ResponseBody) != body || res.Elapsed <= 0 || !res.RequestWritten && try.Owner != "/never" {
				t.Errorf("%s: %s %q, body %q, took %v", try.Owner, res.Outcome, res.Error, res.ResponseBody, res.Elapsed)
			}
			if try.Owner == "/never" && res.RequestWritten {
				written++
			}
		}
	}
	b.Close()
	if arrived := unanswered.Load(); written < arrived {
		t.Errorf("%d requests are said to have been written to who never answers, and %d arrived", written, arrived)
	}
	if _, busy := c.Connections(); busy != 0 {
		t.Errorf("%d connections are still in use", busy)
	}
}

// TestBatchMakesTheDeliveryID where the caller leaves that to it.
func TestBatchMakesTheDeliveryID(t *testing.T) {
	got := make(chan string, 1)
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got <- r.Header.Get("Webhook-Id") }))
	t.Cleanup(srv.Close)
	c := newClient(t, localConfig(), Deps{})
	req := request(srv.URL)
	req.DeliveryID = ""
	req.Envelope.Source = pipeline.Position{Cluster: "c", Topic: "t", Offset: 7}
	want := pipeline.DeliveryID(&req.Envelope.Source, req.Subscription.ID)
	if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
		t.Fatalf("%s %q", res.Outcome, res.Error)
	}
	if id := <-got; id != want {
		t.Errorf("webhook-id %q, want %q", id, want)
	}
}
