package telemetry

import (
	"io"
	"sync"
	"time"
)

// maxQueuedBytes of log lines wait for the writer: about 4,000 lines of 256
// bytes, more than an outage's first seconds give.
const maxQueuedBytes = 1 << 20

// lines is an io.Writer that never waits: a goroutine of its own writes what was
// given to it. A log that nobody reads, such as a pipe whose reader hangs, must
// not hold up whoever logs, which may be the loop that delivers. What does not
// fit is dropped and counted. Each Write is one line, or several whole ones.
type lines struct {
	w     io.Writer
	limit int              // bytes that wait
	note  func(int) []byte // the line that tells of so many dropped lines

	mu      sync.Mutex
	queued  []byte // guarded by mu
	count   int    // lines in queued; guarded by mu
	missing int    // dropped, and the log does not tell of them yet; guarded by mu
	dropped int64  // in all; guarded by mu
	closed  bool   // guarded by mu

	wake chan struct{} // of one place; Write and close send, run receives
	done chan struct{} // closed when run has ended
}

// newLines begins to write; close ends it.
func newLines(w io.Writer, limit int, note func(int) []byte) *lines {
	l := &lines{w: w, limit: limit, note: note, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	return l
}

// Write queues a copy of p. It never fails: a line that is dropped is counted.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	if l.closed || len(l.queued)+len(p) > l.limit {
		l.missing++
		l.dropped++
	} else {
		l.queued = append(l.queued, p...)
		l.count++
	}
	l.mu.Unlock()
	l.signal()
	return len(p), nil
}

func (l *lines) signal() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// run writes until close, and then what is left.
func (l *lines) run() {
	defer close(l.done)
	var spare []byte // the buffer that is not in use
	for range l.wake {
		for {
			l.mu.Lock()
			text, count, missing, closed := l.queued, l.count, l.missing, l.closed
			l.queued, l.count, l.missing = spare[:0], 0, 0
			l.mu.Unlock()
			if len(text) == 0 && missing == 0 {
				spare = text
				if closed {
					return
				}
				break
			}
			if missing > 0 { // they came after what was queued
				text = append(text, l.note(missing)...)
			}
			if _, err := l.w.Write(text); err != nil {
				l.lost(count)
			}
			spare = text
		}
	}
}

// lost counts lines that could not be written: the reader has gone, the disk is
// full. Nobody can be told but by the count.
func (l *lines) lost(n int) {
	l.mu.Lock()
	l.dropped += int64(n)
	l.mu.Unlock()
}

// Dropped is how many lines were dropped so far.
func (l *lines) Dropped() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.dropped
}

// close writes what waits. It gives up, and returns false, when that takes
// longer than within: the goroutine is then held by a writer that nothing ends.
// Lines that come later are dropped. It may be called again.
func (l *lines) close(within time.Duration) bool {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.signal()
	t := time.NewTimer(within)
	defer t.Stop()
	select {
	case <-l.done:
		return true
	case <-t.C:
		return false
	}
}
