package sink

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// That Kafka is back is said once it has been so for a while, not between two errors.
func TestKafkaIsBackIsSaid(t *testing.T) {
	var log bytes.Buffer
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	h := health{log: slog.New(slog.NewTextHandler(&log, nil)), now: func() time.Time { return now }}
	lines := func(want int, has string) {
		t.Helper()
		if got := log.String(); strings.Count(got, "\n") != want || !strings.Contains(got, has) {
			t.Errorf("want %d lines with %q:\n%s", want, has, got)
		}
	}
	h.read()
	lines(0, "")
	h.unreadable(fetchError("", 0, errors.New("unable to join group session")))
	lines(1, "keeping up the group membership: unable to join group session")
	for range 5 { // one topic is refused, records of another come
		now = now.Add(2 * time.Second)
		h.unreadable(fetchError("t", 1, errors.New("refused")))
		h.read()
	}
	lines(2, "fetching t/1: refused")
	now = now.Add(calm)
	h.read()
	h.read()
	lines(3, `msg="Kafka is back: the sink goes on" away=10s`)
}
