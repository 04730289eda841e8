package router

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// syncBuffer is a log that two goroutines may write.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func TestBrokerOutage(t *testing.T) {
	port, dir := testkit.FreePort(t), t.TempDir()
	b := newBench(t, spec, kfake.Ports(port), kfake.DataDir(dir))
	b.topic("ev", 1)
	var log syncBuffer
	b.deps.Log = slog.New(slog.NewTextHandler(&log, nil))
	b.produce(event("ev", 0, `{"t":"a","id":"before"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 1)
	b.broker.Close()
	began := time.Now()
	sleep(b.ctx(), 2*time.Second) // the outage
	again, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.Ports(port), kfake.DataDir(dir), kfake.GroupMinSessionTimeout(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Close)
	b.broker = again
	b.produce(event("ev", 0, `{"t":"a","id":"after"}`))
	b.read("hookline.deliveries", 2)
	outage := time.Since(began)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.ids(b.all("hookline.deliveries")); got != "[before after]" {
		t.Errorf("routed %s", got)
	}
	if lines := strings.Count(log.String(), "\n"); float64(lines) > 20+3*outage.Seconds() {
		t.Errorf("%d log lines in %v:\n%s", lines, outage, log.String())
	}
}

func TestStopDuringAnOutage(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 1)
	b.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: "hookline.deliveries", Err: kerr.NotEnoughReplicas, Count: 1 << 30})
	b.produce(event("ev", 0, `{"t":"a"}`))
	if err := stop(); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestFencedByAnotherHolder(t *testing.T) {
	b := newBench(t, spec)
	b.kafka.InstanceID = "pod-0"
	b.topic("ev", 1)
	b.produce(event("ev", 0, `{"t":"a","id":"n0"}`))
	r, stop := b.start()
	b.read("hookline.deliveries", 1)
	b.eventually("the router is idle", r.idle.Load)
	base, err := b.kafka.ClientOpts(nil)
	if err != nil {
		t.Fatal(err)
	}
	other, err := kgo.NewClient(append(base, kgo.TransactionalID(r.txnID))...)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if _, _, err := other.ProducerID(b.ctx()); err != nil { // takes the id away
		t.Fatal(err)
	}
	b.produce(event("ev", 0, `{"t":"a","id":"n1"}`))
	b.read("hookline.deliveries", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.ids(b.all("hookline.deliveries")); got != "[n0 n1]" {
		t.Errorf("routed %s", got)
	}
}

// A batch that decompresses to more than is allowed is one dead letter, and what
// stands before and after it is routed once.
func TestDecompressionBomb(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	b.deps.Opts = []kgo.Opt{kgo.MaxDecompressBatchBytes(1 << 20)}
	big, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers...), kgo.ProducerBatchCompression(kgo.ZstdCompression()),
		kgo.ProducerBatchMaxBytes(8<<20), kgo.MaxProduceRequestsInflightPerBroker(1))
	if err != nil {
		t.Fatal(err)
	}
	defer big.Close()
	b.produce(event("ev", 0, `{"t":"a","id":"n0"}`))
	if err := big.ProduceSync(b.ctx(), event("ev", 0, strings.Repeat("z", 4<<20))).FirstErr(); err != nil {
		t.Skipf("the broker does not take it: %v", err)
	}
	b.produce(event("ev", 0, `{"t":"a","id":"n2"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.ids(b.all("hookline.deliveries")); got != "[n0 n2]" {
		t.Errorf("routed %s", got)
	}
	dead := b.all("hookline.events.dead")
	if len(dead) != 1 || header(dead[0], "hookline-source") != "ev/0/1" || !strings.Contains(header(dead[0], "hookline-error"), "offsets 1 to 1") {
		t.Errorf("%d letters: %v", len(dead), dead)
	}
	got, err := kafkax.NewFetcher(b.cl).StableOffsets(b.ctx(), b.kafka.RouterGroup(), map[string][]int32{"ev": {0}})
	if err != nil || got["ev"][0].Offset != 3 {
		t.Errorf("committed %+v, %v", got, err)
	}
}

// A crash between the offsets' commit and the transaction's end: the next holder
// of the transactional id ends it, and everything is routed once.
func TestCrashAfterTheOffsetsWereCommitted(t *testing.T) {
	b := newBench(t, spec)
	b.kafka.InstanceID = "pod-0"
	b.topic("ev", 1)
	for i := range 50 {
		b.produce(event("ev", 0, fmt.Sprintf(`{"t":"a","id":"n%d"}`, i)))
	}
	cut := errors.New("cut")
	hits := make(chan struct{}, 100)
	var cutting atomic.Bool
	cutting.Store(true)
	b.broker.ControlKey(int16(kmsg.EndTxn), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.broker.KeepControl()
		if !cutting.Load() {
			return nil, nil, false
		}
		hits <- struct{}{}
		return nil, cut, true
	})
	ctx, kill := context.WithCancel(b.ctx())
	r, err := New(b.cfg, b.deps)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	<-hits // the offsets are part of a transaction that nobody ends
	kill()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	cutting.Store(false)
	began := time.Now()
	_, stop := b.start()
	b.read("hookline.deliveries", 50)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the next router waited %v for the transaction to time out", took)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.all("hookline.deliveries"); len(got) != 50 {
		t.Errorf("%d records for 50 events", len(got))
	}
}

// An error that makes kgo give a partition up is answered by a new session.
func TestFetchErrorsAreSurvived(t *testing.T) {
	b := newBench(t, spec)
	b.topic("ev", 1)
	h := b.broker.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "ev", Err: kerr.TopicAuthorizationFailed, Count: 3})
	b.produce(event("ev", 0, `{"t":"a","id":"n0"}`))
	_, stop := b.start()
	b.read("hookline.deliveries", 1)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	if got := b.ids(b.all("hookline.deliveries")); got != "[n0]" || h.Hits() != 3 {
		t.Errorf("routed %s after %d errors", got, h.Hits())
	}
}
