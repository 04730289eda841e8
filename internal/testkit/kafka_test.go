package testkit_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
)

var shared = testkit.SharedKafka{Brokers: 1}

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.Close()
		os.Exit(code)
	}))
}

func TestKafkaThreeNodesOutliveAKill(t *testing.T) {
	c := testkit.Kafka(t, 3)
	if n := len(c.Addrs()); n != 3 {
		t.Fatalf("got %d addresses, want 3", n)
	}
	topic := testkit.Unique(t, "t")
	cl := c.Client(kgo.DefaultProduceTopic(topic), kgo.ConsumeTopics(topic))
	testkit.CreateTopics(t, cl, 1, 3, topic)
	produce(t, cl, "before")
	c.Kill9(2)
	produce(t, cl, "two nodes left")
	c.Start(2)
	c.Stop(3)
	produce(t, cl, "other two nodes")
	c.Start(3)
	consume(t, cl, "before", "two nodes left", "other two nodes")
}

func TestKafkaKeepsDataOverKill(t *testing.T) {
	c := testkit.Kafka(t, 1)
	topic := testkit.Unique(t, "t")
	cl := c.Client(kgo.DefaultProduceTopic(topic), kgo.ConsumeTopics(topic))
	testkit.CreateTopics(t, cl, 1, 1, topic)
	produce(t, cl, "kept")
	c.Kill9(1)
	c.Start(1)
	consume(t, cl, "kept")
}

func TestSharedKafkaIsOne(t *testing.T) {
	a, b := shared.Get(t), shared.Get(t)
	if a.Addrs()[0] != b.Addrs()[0] {
		t.Fatalf("got two clusters, %s and %s", a.Addrs()[0], b.Addrs()[0])
	}
	topic := testkit.Unique(t, "t")
	testkit.CreateTopics(t, a.Client(), 1, 1, topic)
	produce(t, b.Client(kgo.DefaultProduceTopic(topic)), "x")
}

// A test binary that is killed runs no clean-up; no Kafka must stay.
func TestKafkaEndsWithItsParent(t *testing.T) {
	shared.Get(t) // skips where there is no Kafka
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command("sleep", "300")
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "kafka")
	up := exec.CommandContext(limited(t), filepath.Join(root, "scripts", "kafka.sh"), "up", "--data", dir,
		"--ports", strconv.Itoa(testkit.FreePort(t))+","+strconv.Itoa(testkit.FreePort(t)), "--parent", strconv.Itoa(parent.Process.Pid))
	out, err := up.CombinedOutput()
	_ = parent.Process.Kill()
	_ = parent.Wait()
	if err != nil {
		t.Fatalf("starting Kafka: %v: %s", err, out)
	}
	for ctx := limited(t); ctx.Err() == nil; time.Sleep(50 * time.Millisecond) { // another process: no signal to wait for
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			return
		}
	}
	t.Fatalf("%s is still there: the cluster outlives its parent", dir)
}

func TestKFake(t *testing.T) {
	c := testkit.KFake(t, kfake.SeedTopics(2, "seeded"))
	cl, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.DefaultProduceTopic("seeded"), kgo.ConsumeTopics("seeded"))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	produce(t, cl, "x")
	consume(t, cl, "x")
}

func produce(t *testing.T, cl *kgo.Client, value string) {
	t.Helper()
	if err := cl.ProduceSync(limited(t), kgo.StringRecord(value)).FirstErr(); err != nil {
		t.Fatalf("producing %q: %v", value, err)
	}
}

func consume(t *testing.T, cl *kgo.Client, want ...string) {
	t.Helper()
	ctx := limited(t)
	for len(want) > 0 {
		fetches := cl.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("consuming, %q still to come: %v", want, err)
		}
		for r := range fetches.RecordsAll() {
			if len(want) == 0 || string(r.Value) != want[0] {
				t.Fatalf("got record %q, want next %q", r.Value, want)
			}
			want = want[1:]
		}
	}
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}
