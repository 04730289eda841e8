package proof

import (
	"fmt"
	"io"
)

// Held is what processes held under load, before anything was broken, and when
// all was mended and delivered: of each figure the most of any process.
type Held struct {
	Loaded, Healed Sample
	Samples        int
}

const (
	// heldShare and heldMore are what a process may hold in the end beyond what
	// any held under load: its share of the partitions, and with it of connections
	// and goroutines, is seldom the same.
	heldShare = 1.1
	heldMore  = 16
	// healedRSSBytes is what no process may hold in the end, when it has nothing
	// to do: the bounds of its buffers, twice for the garbage collector's sake.
	healedRSSBytes = 512 << 20
)

// Add takes a sample in.
func (h *Held) Add(s *Sample) {
	h.Samples++
	most := &h.Loaded
	if s.Healed {
		most = &h.Healed
	}
	most.Files = max(most.Files, s.Files)
	most.Goroutines = max(most.Goroutines, s.Goroutines)
	most.RSSBytes = max(most.RSSBytes, s.RSSBytes)
}

// held: what the faults made the processes take, they give back.
func (c *checker) held() {
	h := &c.v.Held
	for i := range c.l.Samples {
		h.Add(&c.l.Samples[i])
	}
	for i := range c.l.Samples {
		s := &c.l.Samples[i]
		if !s.Healed {
			continue
		}
		if limit := heldLimit(h.Loaded.Files); s.Files > limit {
			c.say("I8 bounds", pair{}, "%s holds %d files when all is over, %d under load at the beginning", c.l.lifeName(s.Life), s.Files, h.Loaded.Files)
		}
		if limit := heldLimit(h.Loaded.Goroutines); s.Goroutines > limit {
			c.say("I8 bounds", pair{}, "%s has %d goroutines when all is over, %d under load at the beginning", c.l.lifeName(s.Life), s.Goroutines, h.Loaded.Goroutines)
		}
		if s.RSSBytes > healedRSSBytes {
			c.say("I8 bounds", pair{}, "%s holds %d MiB when all is over", c.l.lifeName(s.Life), s.RSSBytes>>20)
		}
	}
}

func heldLimit(loaded int) int { return int(heldShare*float64(loaded)) + heldMore }

// OverLimit tells whether a process holds more files or goroutines than what is
// allowed in the end, by what was held under load: it may give some back yet.
func (h *Held) OverLimit(s Sample) bool {
	return s.Files > heldLimit(h.Loaded.Files) || s.Goroutines > heldLimit(h.Loaded.Goroutines)
}

func (h *Held) report(w io.Writer) {
	if h.Samples == 0 {
		return
	}
	fmt.Fprintf(w, "a process held at most, under load before the faults: %d files, %d goroutines, %d MiB; when all was over: %d files, %d goroutines, %d MiB\n",
		h.Loaded.Files, h.Loaded.Goroutines, h.Loaded.RSSBytes>>20, h.Healed.Files, h.Healed.Goroutines, h.Healed.RSSBytes>>20)
}
