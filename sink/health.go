package sink

import (
	"log/slog"
	"sync"
	"time"
)

const (
	// logEvery is the least time between two lines about one kind of trouble.
	logEvery = 10 * time.Second
	// calm is how long Kafka must have given no error before it is said to be back:
	// where it refuses one topic, records of another come all the time.
	calm = 5 * time.Second
)

// health is what the sink knows of ClickHouse, and when it spoke of it.
type health struct {
	log *slog.Logger
	now func() time.Time

	mu        sync.Mutex // guards what follows
	reached   bool       // once
	trouble   error
	since     time.Time // of trouble
	spoke     time.Time // of trouble with ClickHouse
	spokeMeta time.Time // of trouble with Kafka
	unread    time.Time // since when Kafka cannot be read; zero: it can
	unreadAt  time.Time // of the last such error
}

// ok notes that ClickHouse did what it was asked.
func (h *health) ok() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble != nil {
		h.log.Info("ClickHouse is back: the sink catches up", "away", h.now().Sub(h.since).Round(time.Millisecond))
	}
	h.reached, h.trouble = true, nil
}

func (h *health) failed(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if h.trouble == nil {
		h.since = now
	}
	h.trouble = err
	if now.Sub(h.spoke) >= logEvery {
		h.spoke = now
		h.log.Warn("storing the delivery log: ClickHouse refuses or is away: trying again", "error", err, "since", h.since)
	}
}

// unreadable notes that Kafka could not be read.
func (h *health) unreadable(err error) {
	h.mu.Lock()
	if h.unreadAt = h.now(); h.unread.IsZero() {
		h.unread = h.unreadAt
	}
	h.mu.Unlock()
	h.kafka(err)
}

// read notes that records came.
func (h *health) read() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); !h.unread.IsZero() && now.Sub(h.unreadAt) >= calm {
		h.log.Info("Kafka is back: the sink goes on", "away", h.unreadAt.Sub(h.unread).Round(time.Millisecond))
		h.unread = time.Time{}
	}
}

// kafka notes trouble with Kafka, which kgo retries by itself.
func (h *health) kafka(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now := h.now(); now.Sub(h.spokeMeta) >= logEvery {
		h.spokeMeta = now
		h.log.Warn("storing the delivery log: Kafka: trying again", "error", err)
	}
}

func (h *health) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.reached
}

func (h *health) err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.trouble
}
