package e2e

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// sample is what a process used at one moment.
type sample struct {
	at       time.Duration // since the gauge began
	rssBytes int64
	cpu      time.Duration // of all its threads, since its start
	files    int           // open descriptors
}

// gauge samples a process once a second until the test ends or stop is called.
type gauge struct {
	began time.Time
	end   chan struct{}
	once  sync.Once
	work  sync.WaitGroup

	mu      sync.Mutex
	samples []sample // under mu
}

// watchUse begins to sample p. It needs Linux's /proc; elsewhere nothing is sampled.
func watchUse(t *testing.T, p *process) *gauge {
	t.Helper()
	g := &gauge{began: time.Now(), end: make(chan struct{})}
	g.work.Go(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			if s, ok := use(p.cmd.Process.Pid); ok {
				s.at = time.Since(g.began)
				g.mu.Lock()
				g.samples = append(g.samples, s)
				g.mu.Unlock()
			}
			select {
			case <-tick.C:
			case <-g.end:
				return
			}
		}
	})
	t.Cleanup(g.stop)
	return g
}

func (g *gauge) stop() {
	g.once.Do(func() { close(g.end) })
	g.work.Wait()
}

func (g *gauge) now() time.Duration { return time.Since(g.began) }

// between gives the samples of a time.
func (g *gauge) between(from, to time.Duration) []sample {
	g.mu.Lock()
	defer g.mu.Unlock()
	var out []sample
	for _, s := range g.samples {
		if s.at >= from && s.at <= to {
			out = append(out, s)
		}
	}
	return out
}

const mib = 1 << 20

// peakRSS is the highest of a time, 0 where nothing was sampled.
func peakRSS(list []sample) int64 {
	var most int64
	for _, s := range list {
		most = max(most, s.rssBytes)
	}
	return most
}

// cores is how many cores were busy on average.
func cores(list []sample) float64 {
	if len(list) < 2 {
		return 0
	}
	a, b := list[0], list[len(list)-1]
	return float64(b.cpu-a.cpu) / float64(b.at-a.at)
}

// curve shows the memory of a time, in MiB, at n moments.
func curve(list []sample, n int) string {
	var b strings.Builder
	for i := range n {
		if len(list) == 0 {
			break
		}
		s := list[i*(len(list)-1)/max(1, n-1)]
		fmt.Fprintf(&b, "%ds:%d ", int(s.at.Seconds()), s.rssBytes/mib)
	}
	return strings.TrimSpace(b.String())
}

// use reads what a process uses from /proc.
func use(pid int) (s sample, ok bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	statm, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return s, false
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return s, false
	}
	pages, _ := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	s.rssBytes = pages * int64(os.Getpagesize())
	// The name, in brackets, may have spaces in it. utime and stime are the 14th
	// and 15th field, in hundredths of a second (USER_HZ on every Linux).
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	f := strings.Fields(string(rest))
	if len(f) < 13 {
		return s, false
	}
	utime, _ := strconv.ParseInt(f[11], 10, 64)
	stime, _ := strconv.ParseInt(f[12], 10, 64)
	s.cpu = time.Duration(utime+stime) * 10 * time.Millisecond
	if list, err := os.ReadDir(dir + "/fd"); err == nil {
		s.files = len(list)
	}
	return s, true
}

// logged counts the lines of the process's log, and by message, between two moments.
func (p *process) logged(from, to time.Time) (lines int, byMessage map[string]int) {
	p.t.Helper()
	log, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Fatal(err)
	}
	byMessage = map[string]int{}
	for line := range strings.Lines(string(log)) {
		text, rest, _ := strings.Cut(strings.TrimPrefix(line, "time="), " ")
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || at.Before(from) || at.After(to) {
			continue
		}
		lines++
		_, msg, _ := strings.Cut(rest, "msg=")
		if quoted, err := strconv.QuotedPrefix(msg); err == nil {
			msg, _ = strconv.Unquote(quoted)
		} else {
			msg, _, _ = strings.Cut(msg, " ")
		}
		byMessage[msg]++
	}
	return lines, byMessage
}

// most lists the messages by how often they came.
func most(byMessage map[string]int) string {
	type count struct {
		msg string
		n   int
	}
	var list []count
	for msg, n := range byMessage {
		list = append(list, count{msg, n})
	}
	slices.SortFunc(list, func(a, b count) int { return b.n - a.n })
	var b strings.Builder
	for _, c := range list[:min(len(list), 12)] {
		fmt.Fprintf(&b, "\n\t%4d %s", c.n, c.msg)
	}
	return b.String()
}
