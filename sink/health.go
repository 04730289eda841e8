package sink

import (
	"log/slog"
	"sync"
	"time"
)

// logEvery is the least time between two lines about one kind of trouble.
const logEvery = 10 * time.Second

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
