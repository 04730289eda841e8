package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
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
	t     *testing.T
	ctx   context.Context
	cl    *kgo.Client
	vars  map[string]string
	proc  *process
	gauge *gauge       // of proc
	got   atomic.Int64 // requests that the healthy ones have answered
	want  int64        // deliveries to them so far
	hold  string       // port at which every 127.x.y.z takes connections and says nothing
	hole  string       // port at which every 127.x.y.z drops what comes

	held atomic.Int64 // connections that hold has taken
}

// isolationSize is how large the test is.
type isolationSize struct {
	healthy, dark, failing int
	events                 int // to each healthy endpoint in each round
	rounds                 int
}

func newCrowd(t *testing.T) *crowd {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stageLimit)
	t.Cleanup(cancel)
	kafka := shared.Get(t)
	name := testkit.Unique(t, "iso")
	c := &crowd{t: t, ctx: ctx, cl: kafka.Client(kgo.DefaultProduceTopic(name + ".events"))}
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

// round has every healthy endpoint get so many events, and tells how many
// deliveries a second that were.
func (c *crowd) round(size isolationSize, beside string) float64 {
	c.t.Helper()
	began := time.Now()
	for n := range 10 {
		if beside == "fail" && n%3 == 0 {
			c.produce(beside, 1)
		}
		c.produce("good", size.events/10)
	}
	c.want += int64(size.events/10*10) * int64(size.healthy)
	for c.got.Load() < c.want {
		if c.ctx.Err() != nil {
			c.t.Fatalf("the healthy endpoints have %d of %d deliveries", c.got.Load(), c.want)
		}
		time.Sleep(5 * time.Millisecond) // another process: no signal to wait for
	}
	return float64(size.events/10*10*size.healthy) / time.Since(began).Seconds()
}

// profiles is a directory for profiles of what was measured; empty: none are made.
func profiles() string { return os.Getenv("HOOKLINE_E2E_PROFILE") }

// watch tells, when the function that it returns is called, how much of a core the process has used meanwhile, and
// writes a profile of the first seconds.
func (c *crowd) watch(name string) (end func()) {
	began := c.gauge.now()
	var work sync.WaitGroup
	if profiles() != "" {
		work.Go(func() {
			body, err := c.fetch("/debug/pprof/profile?seconds=15")
			if err == nil {
				err = os.WriteFile(filepath.Join(profiles(), strings.ReplaceAll(name, " ", "-")+".pprof"), []byte(body), 0o600)
			}
			if err != nil {
				c.t.Errorf("profile: %v", err)
			}
		})
	}
	return func() {
		c.t.Logf("%s: %.2f cores", name, cores(c.gauge.between(began, c.gauge.now())))
		work.Wait()
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

func (c *crowd) rounds(size isolationSize, name, beside string) float64 {
	c.t.Helper()
	var list []float64
	if beside == "dark" {
		c.produce(beside, 2) // one is tried, one waits behind it
	}
	defer c.watch(name)()
	for range size.rounds {
		list = append(list, c.round(size, beside))
	}
	c.t.Logf("%s: %.0f deliveries a second to the healthy ones; %d connections held", name, list, c.held.Load())
	slices.Sort(list)
	return list[len(list)/2]
}

// TestIsolation: endpoints that never answer, and endpoints that fail in every
// way, beside healthy ones, which keep their throughput. The rounds without the
// others are before and after those with them. HOOKLINE_E2E_FULL=1 has 10,000
// that never answer beside 100 healthy ones.
func TestIsolation(t *testing.T) {
	size := isolationSize{healthy: 20, dark: 1000, failing: 40, events: 300, rounds: 1}
	least := 0.0 // on a machine that others use a short round says little about speed: that it ends is what is tested
	if full() {
		size = isolationSize{healthy: 100, dark: 10_000, failing: 100, events: 3000, rounds: 3}
		least = 0.9
	}
	c := newCrowd(t)
	good := c.healthy(size.healthy)
	c.apply(slices.Concat(good, c.dark(size.dark), c.failing(size.failing)))
	c.proc = launch(t, plain, "process", c.vars, "--roles", "router,dispatcher")
	c.proc.ready()
	c.gauge = watchUse(t, c.proc)
	c.rounds(size, "warming up", "")
	before := c.rounds(size, "alone", "")
	dark := c.rounds(size, fmt.Sprintf("beside %d that never answer", size.dark), "dark")
	c.apply(good) // the others stay: what waits for them goes on
	fail := c.rounds(size, fmt.Sprintf("beside these and %d that fail in every way", size.failing), "fail")
	if r := command(t, c.vars, string(c.only(good)), "subs", "apply", "--prune", "-f", "-"); r.code != 0 {
		t.Fatalf("subs apply --prune: code %d: %s", r.code, r.stderr)
	}
	c.calm()
	after := c.rounds(size, "alone again", "")
	alone := (before + after) / 2
	t.Logf("of %.0f deliveries a second alone the healthy ones keep %.0f %% beside %d that never answer, and %.0f %% beside %d that fail besides; peak memory %d MiB",
		alone, 100*dark/alone, size.dark, 100*fail/alone, size.failing, peakRSS(c.gauge.between(0, c.gauge.now()))/mib)
	if dark < least*alone || fail < least*alone {
		t.Errorf("less than %.0f %%", 100*least)
	}
	if c.held.Load() < int64(size.dark)/20 {
		t.Errorf("only %d connections were held: nothing was tested", c.held.Load())
	}
	if took, code := c.proc.terminate(40 * time.Second); code != 0 {
		t.Errorf("ended with code %d after %s", code, took)
	}
}

func (c *crowd) only(list []isolated) []byte {
	text, err := json.Marshal(map[string]any{"subscriptions": list})
	if err != nil {
		c.t.Fatal(err)
	}
	return text
}

// calm waits until few requests are under way.
func (c *crowd) calm() {
	c.t.Helper()
	for {
		body, err := c.fetch("/metrics")
		if err != nil {
			c.t.Fatal(err)
		}
		if strings.Contains(body, "\nhookline_in_flight 0\n") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
}
