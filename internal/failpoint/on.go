//go:build failpoint

package failpoint

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// Enabled tells whether there are failpoints in this binary.
const Enabled = true

// chosen is what HOOKLINE_FAILPOINT says.
type chosen struct {
	point  Point
	nth    int
	signal syscall.Signal
	panics bool // instead
	leaks  bool // what it holds, in its panic
}

var (
	setting = sync.OnceValue(func() chosen { return parse(os.Getenv("HOOKLINE_FAILPOINT")) })
	mu      sync.Mutex
	hits    int // of the chosen point; under mu
)

func parse(text string) chosen {
	c := chosen{nth: 1, signal: syscall.SIGKILL}
	if text == "" {
		return c
	}
	name, rest, _ := strings.Cut(text, ":")
	if c.point = Point(name); !slices.Contains(Points(), c.point) {
		panic(fmt.Sprintf("HOOKLINE_FAILPOINT: no point %q", name))
	}
	for part := range strings.SplitSeq(rest, ":") {
		n, err := strconv.Atoi(part)
		switch {
		case part == "":
		case part == "stop":
			c.signal = syscall.SIGSTOP
		case part == "panic", part == "leak":
			c.panics, c.leaks = true, part == "leak"
		case err == nil && n > 0:
			c.nth = n
		default:
			panic(fmt.Sprintf("HOOKLINE_FAILPOINT: %q is none of a number, stop, panic, leak", part))
		}
	}
	return c
}

// Hit is a step between two effects.
func Hit(p Point) { Holding(p, func() string { return "" }) }

// Holding is a step at which something is at hand that must not be shown.
func Holding(p Point, text func() string) {
	c := setting()
	if p != c.point {
		return
	}
	mu.Lock()
	defer mu.Unlock()
	if hits++; hits != c.nth {
		return
	}
	if c.leaks {
		panic("failpoint " + string(p) + ": " + text())
	}
	if c.panics {
		panic("failpoint " + string(p))
	}
	if err := syscall.Kill(os.Getpid(), c.signal); err != nil {
		panic(err)
	}
	if c.signal == syscall.SIGKILL {
		select {} // it comes before anything else does
	}
}

// Halfway has p hit when half of the n bytes of r have been read.
func Halfway(p Point, r io.Reader, n int) io.Reader {
	return io.MultiReader(io.LimitReader(r, int64(n/2)), hitter(p), r)
}

// hitter is an empty reader that hits its point.
type hitter Point

// Read gives nothing.
func (h hitter) Read([]byte) (int, error) {
	Hit(Point(h))
	return 0, io.EOF
}
