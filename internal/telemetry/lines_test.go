package telemetry

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Nobody reads the pipe: who logs goes on, and the end comes too. When somebody
// reads, what was queued is there, in order, and a line says how many are not.
func TestLogThatNobodyReads(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	log := NewLogger(&Config{LogLevel: "info", LogFormat: "text"}, w)
	const written = 40_000 // of 100 bytes: beyond the pipe's 64 KiB and two queues
	for i := range written {
		log.Info("delivered", "number", i, "text", strings.Repeat("x", 40))
	}
	log.Close(time.Millisecond)
	dropped := log.Dropped()
	if dropped == 0 || dropped > written*9/10 {
		t.Fatalf("%d of %d lines dropped", dropped, written)
	}
	read := make(chan string)
	go func() {
		var b bytes.Buffer
		_, _ = b.ReadFrom(r)
		read <- b.String()
	}()
	log.Close(time.Minute)
	log.Info("too late")
	w.Close()
	text := <-read
	if got := int64(strings.Count(text, "msg=delivered")); got != written-dropped {
		t.Errorf("%d lines written and %d dropped of %d", got, dropped, written)
	}
	if want := fmt.Sprintf(`level=WARN msg="log lines were dropped: what reads them does not keep up" lines=%d`+"\n", dropped); !strings.HasSuffix(text, want) {
		t.Errorf("it ends with %q, want %q", text[max(0, len(text)-300):], want)
	}
	if strings.Contains(text, "too late") || log.Dropped() != dropped+1 {
		t.Error("a line after the end is neither left out nor counted")
	}
	last := -1
	for line := range strings.Lines(text) {
		n := 0
		if _, after, ok := strings.Cut(line, "number="); !ok {
			continue
		} else if _, err := fmt.Sscan(after, &n); err != nil || n <= last {
			t.Fatalf("%q after number %d: %v", line, last, err)
		}
		last = n
	}
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, errors.New("gone") }

// A reader that has gone is counted, since it cannot be told.
func TestLogWhoseReaderHasGone(t *testing.T) {
	log := NewLogger(&Config{LogLevel: "info", LogFormat: "json"}, broken{})
	for range 3 {
		log.Info("hello")
	}
	log.Close(time.Minute)
	if n := log.Dropped(); n != 3 {
		t.Errorf("%d lines dropped, want 3", n)
	}
}
