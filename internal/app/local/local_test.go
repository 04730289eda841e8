package local

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func client(t *testing.T, addr string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(addr), kgo.AllowAutoTopicCreation()}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What was acknowledged is there after a restart, on the same port and cluster.
func TestBrokerKeepsItsData(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dir := t.TempDir()
	b, err := StartBroker("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	addr := b.Addr()
	c := client(t, addr)
	if err := c.Ping(ctx); err != nil {
		t.Fatal(err)
	}
	create(t, ctx, c, "t")
	if err := c.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("kept")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	c.Close()
	b.Close()
	again, err := StartBroker(addr, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	r := client(t, addr, kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	got := r.PollRecords(ctx, 1).Records()
	if len(got) != 1 || string(got[0].Value) != "kept" {
		t.Errorf("after the restart: %v", got)
	}
}

func TestBrokerPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = StartBroker(l.Addr().String(), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "--kafka-addr") || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}

func create(t *testing.T, ctx context.Context, c *kgo.Client, topic string) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	top := kmsg.NewCreateTopicsRequestTopic()
	top.Topic, top.NumPartitions, top.ReplicationFactor = topic, 1, 1
	req.Topics = append(req.Topics, top)
	if _, err := req.RequestWith(ctx, c); err != nil {
		t.Fatal(err)
	}
}

func TestASecondBrokerOnTheSameDataIsRefused(t *testing.T) {
	dir := t.TempDir()
	first, err := StartBroker("127.0.0.1:0", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := StartBroker("127.0.0.1:0", dir); err == nil || !strings.Contains(err.Error(), "in use by process") {
		t.Errorf("a second broker got %v, want to be told who has the data", err)
	}
}
