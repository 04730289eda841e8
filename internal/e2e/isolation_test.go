package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sys/unix"

	"github.com/hookline/hookline/internal/testkit"
)

// crowd is healthy endpoints and others, and one hookline for both.
type crowd struct {
	t      *testing.T
	ctx    context.Context
	kafka  *testkit.KafkaCluster
	cl     *kgo.Client
	vars   map[string]string
	proc   *process
	gauge  *gauge       // of proc
	got    atomic.Int64 // requests that the healthy ones have answered
	want   int64        // deliveries to them so far
	takers int64        // how many they are
	hold   string       // port at which every 127.x.y.z takes connections and says nothing
	hole   string       // port at which every 127.x.y.z drops what comes

	held atomic.Int64 // connections that hold has taken
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stageLimit)
	t.Cleanup(cancel)
	kafka := shared.Get(t)
	name := testkit.Unique(t, "iso")
	c := &crowd{t: t, ctx: ctx, kafka: kafka, cl: kafka.Client(kgo.DefaultProduceTopic(name + ".events"))}
	c.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(kafka.Addrs(), ","), "TOPIC_PREFIX": name + ".", "GROUP": name, "PARTITIONS": "8", "START": "earliest",
		"EVENTS_TOPICS": name + ".events=json:type=/kind,tenant=/tenant", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535", "LOG_FORMAT": "text",
	}
	if profiles() != "" {
		c.vars["ADMIN_PROFILE"], c.vars["ADMIN_TOKEN"] = "true", "for-this-test-alone"
	}
	if _, err := kadm.NewClient(c.cl).CreateTopic(ctx, 4, -1, nil, name+".events"); err != nil {
		t.Fatal(err)
	}
	c.hold, c.hole = c.takesAndHolds(), c.drops()
	return c
}

// takesAndHolds accepts connections at every loopback address and never answers.
func (c *crowd) takesAndHolds() (port string) {
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		c.t.Fatal(err)
	}
	var work sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn // under mu
	work.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			c.held.Add(1)
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
		}
	})
	c.t.Cleanup(func() {
		_ = ln.Close()
		work.Wait()
		for _, conn := range open {
			_ = conn.Close()
		}
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// drops is a listener at every loopback address whose backlog is full: to
// whoever connects it is a host that is gone.
func (c *crowd) drops() (port string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{}); err != nil {
		c.t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		c.t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		c.t.Fatal(err)
	}
	port = fmt.Sprint(sa.(*unix.SockaddrInet4).Port)
	for range 4 {
		if fill, err := net.DialTimeout("tcp", "127.0.0.1:"+port, 100*time.Millisecond); err == nil {
			c.t.Cleanup(func() { _ = fill.Close() })
		}
	}
	return port
}

type isolated struct {
	ID     string   `json:"id"`
	Tenant string   `json:"tenant"`
	URL    string   `json:"url"`
	Events []string `json:"events"`
}

func (c *crowd) apply(list []isolated) {
	c.t.Helper()
	text, err := json.Marshal(map[string]any{"subscriptions": list})
	if err != nil {
		c.t.Fatal(err)
	}
	if r := command(c.t, c.vars, string(text), "subs", "apply", "-f", "-"); r.code != 0 {
		c.t.Fatalf("subs apply: code %d: %s", r.code, r.stderr)
	}
}

func (c *crowd) healthy(n int) (list []isolated) {
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		c.got.Add(1)
	}))
	c.t.Cleanup(srv.Close)
	c.takers = int64(n)
	for i := range n {
		list = append(list, isolated{fmt.Sprintf("good-%d", i), "acme", srv.URL + fmt.Sprintf("/%d", i), []string{"good"}})
	}
	return list
}

// dark are endpoints, each a host of its own, that never answer: half of them
// take the connection, half do not.
func (c *crowd) dark(n int) (list []isolated) {
	for i := range n {
		port := []string{c.hold, c.hole}[i%2]
		list = append(list, isolated{fmt.Sprintf("dark-%d", i), "acme", fmt.Sprintf("http://127.1.%d.%d:%s/", i/250, 1+i%250, port), []string{"dark"}})
	}
	return list
}

// failing are endpoints that fail in every way, each a host of its own.
func (c *crowd) failing(n int) (list []isolated) {
	answers := []string{
		"HTTP/1.1 500 E\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 302 F\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 000 X\r\n\r\n", "garbage\r\n\r\n", "",
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "HTTP/1.1 429 T\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 500 E\r\n\r\n" + strings.Repeat("x", 2<<20),
	}
	ln, err := net.Listen("tcp4", "0.0.0.0:0")
	if err != nil {
		c.t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		var kind int
		_, _ = fmt.Sscanf(r.URL.Path, "/%d", &kind)
		_, _ = io.WriteString(conn, answers[kind%len(answers)])
		_ = conn.Close()
	})}
	go func() { _ = srv.Serve(ln) }() // ends with Close
	c.t.Cleanup(func() { _ = srv.Close() })
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	for i := range n {
		url := fmt.Sprintf("http://127.2.0.%d:%s/%d", 1+i%250, port, i)
		switch i % (len(answers) + 5) {
		case 0:
			url = fmt.Sprintf("http://127.2.0.%d:%s/", 1+i%250, c.hold)
		case 1:
			url = fmt.Sprintf("http://127.2.0.%d:%s/", 1+i%250, c.hole)
		case 2:
			url = fmt.Sprintf("http://127.2.0.%d:1/", 1+i%250) // nobody listens
		case 3:
			url = fmt.Sprintf("https://127.2.0.%d:%s/", 1+i%250, port) // no TLS there
		case 4:
			url = fmt.Sprintf("https://127.2.0.%d:%s/", 1+i%250, c.hold) // nor an answer
		}
		list = append(list, isolated{fmt.Sprintf("fail-%d", i), "acme", url, []string{"fail"}})
	}
	return list
}

func (c *crowd) produce(kind string, n int) {
	c.t.Helper()
	for range n {
		c.cl.Produce(c.ctx, &kgo.Record{Value: fmt.Appendf(nil, `{"kind":%q,"tenant":"acme","pad":%q}`, kind, strings.Repeat("x", 200))}, func(_ *kgo.Record, err error) {
			if err != nil {
				c.t.Error(err)
			}
		})
	}
}

// fetch reads from the process's admin address.
func (c *crowd) fetch(path string) (string, error) {
	code, body, err := getAs(c.ctx, "http://"+c.proc.admin+path, c.vars["ADMIN_TOKEN"])
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("%s: status %d: %s", path, code, body)
	}
	return body, err
}

func (c *crowd) metrics() string {
	c.t.Helper()
	body, err := c.fetch("/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	return body
}

func (c *crowd) only(list []isolated) []byte {
	text, err := json.Marshal(map[string]any{"subscriptions": list})
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// beginDark has each of those that never answer get two events: one is tried, one
// waits behind it. The first one counts once the router knows the subscriptions.
func (c *crowd) beginDark() {
	c.t.Helper()
	for begun := false; !begun; {
		c.produce("dark", 1)
		for range 30 { // gauges are set every two seconds
			c.trickle()
			if begun = !strings.Contains(c.metrics(), noneInFlight); begun {
				break
			}
		}
	}
	c.produce("dark", 1)
}

// trickle waits a while, in which the healthy ones get something, as they would.
func (c *crowd) trickle() {
	c.t.Helper()
	c.produce("good", 1)
	c.want += c.takers
	time.Sleep(100 * time.Millisecond)
}

const noneInFlight = "\nhookline_in_flight 0\n"

// keepOnly deletes all other subscriptions, and waits until few requests are under way.
func (c *crowd) keepOnly(list []isolated) {
	c.t.Helper()
	if r := command(c.t, c.vars, string(c.only(list)), "subs", "apply", "--prune", "-f", "-"); r.code != 0 {
		c.t.Fatalf("subs apply --prune: code %d: %s", r.code, r.stderr)
	}
	for !strings.Contains(c.metrics(), noneInFlight) {
		c.trickle()
	}
}

// isolationSize is how large the test is.
type isolationSize struct {
	healthy, dark, failing int
	events                 int // to each healthy endpoint in each round
	alone, beside          int // rounds in each cycle, without the others and with each kind of them
	cycles                 int
	paced                  time.Duration // of a round at half of the pace
}

// TestIsolation: endpoints that never answer, and endpoints that fail in every
// way, beside healthy ones, which keep their throughput. Rounds without the
// others and rounds with them take turns, so that a machine that gets slower or
// faster meanwhile says nothing: what is kept is told cycle by cycle, against the
// rounds just before and just after. HOOKLINE_E2E_FULL=1 has 10,000 that never
// answer beside 100 healthy ones, and their retries after 10 s instead of 30, so
// that these are measured too.
func TestIsolation(t *testing.T) {
	size := isolationSize{healthy: 20, dark: 1000, failing: 40, events: 300, alone: 1, beside: 1, cycles: 1}
	least := 0.0 // on a machine that others use a short round says little about speed: that it ends is what is tested
	if full() {
		size = isolationSize{healthy: 100, dark: 10_000, failing: 100, events: 1500, alone: 1, beside: 2, cycles: 3, paced: 3 * time.Second}
		least = 0.9
	}
	c := newCrowd(t)
	if full() {
		c.vars["RETRY_DELAYS"] = "10s,10s,10s"
	}
	good := c.healthy(size.healthy)
	others := slices.Concat(c.dark(size.dark), c.failing(size.failing))
	c.apply(good)
	c.proc = launch(t, plain, "process", c.vars, "--roles", "router,dispatcher")
	c.proc.ready()
	c.gauge = watchUse(t, c.proc)
	m := &isolation{crowd: c, size: size}
	m.phase("warming up", "", 2)
	aloneBefore := m.phase("alone", "", size.alone)
	for range size.cycles {
		c.apply(slices.Concat(good, others))
		c.beginDark()
		dark := m.phase(fmt.Sprintf("beside %d that never answer", size.dark), "dark", size.alone)
		fail := m.phase(fmt.Sprintf("beside these and %d that fail in every way", size.failing), "fail", size.beside)
		c.keepOnly(good)
		alone := m.phase("alone", "", size.alone)
		m.kept(aloneBefore, dark, fail, alone)
		aloneBefore = alone
	}
	m.judge(least)
	if c.held.Load() < int64(size.dark)/20 {
		t.Errorf("only %d connections were held: nothing was tested", c.held.Load())
	}
	t.Logf("peak memory %d MiB", peakRSS(c.gauge.between(0, c.gauge.now()))/mib)
	if took, code := c.proc.terminate(40 * time.Second); code != 0 {
		t.Errorf("ended with code %d after %s", code, took)
	}
}
