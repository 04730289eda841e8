package replay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/twmb/franz-go/pkg/kgo"
)

// progressVersion of the JSON in the topic replays.
const progressVersion = 1

// State is where a replay stands: a closed enum.
type State string

// The states.
const (
	StateRunning State = "running" // or killed, or stopped: it goes on when it is run again
	StateDone    State = "done"    // all is enqueued
)

// Progress is how far a replay has come. It is the value of a record of the topic
// replays, whose key is ID.
type Progress struct {
	V           int       `json:"v"`
	ID          string    `json:"id"`
	Fingerprint string    `json:"fingerprint"`
	Selection   Selection `json:"selection"`
	Actor       string    `json:"actor"`
	State       State     `json:"state"`
	BegunAt     time.Time `json:"begun_at"`
	UpdatedAt   time.Time `json:"updated_at"`
	// Total events that the plan had; Enqueued deliveries; Passed over: events that
	// do not match any more, or of which nothing is left to send.
	Total    int `json:"total"`
	Events   int `json:"events"` // of Total, how many are through
	Enqueued int `json:"enqueued"`
	Passed   int `json:"passed"`
	// Ends are where each source partition ended when the plan was made; Next is
	// the first offset that is not through yet. By "topic/partition".
	Ends map[string]int64 `json:"ends,omitzero"`
	Next map[string]int64 `json:"next,omitzero"`
}

func sourceKey(topic string, partition int32) string { return fmt.Sprintf("%s/%d", topic, partition) }

func (p *Progress) encode() []byte {
	b, err := json.Marshal(p, json.Deterministic(true))
	if err != nil {
		panic("BUG: encoding a replay's progress: " + err.Error())
	}
	return b
}

func parseProgress(b []byte) (*Progress, error) {
	p := new(Progress)
	if err := json.Unmarshal(b, p); err != nil {
		return nil, fmt.Errorf("parsing a replay's progress: %w", err)
	}
	switch {
	case p.V != progressVersion:
		return nil, fmt.Errorf("parsing a replay's progress: version %d: this hookline reads %d", p.V, progressVersion)
	case p.ID == "":
		return nil, errors.New("parsing a replay's progress: it has no id")
	}
	return p, nil
}

// List gives all replays of which Kafka still knows, in no order. Ones that this
// version cannot read are left out.
func (r *Replayer) List(ctx context.Context) ([]Progress, error) {
	topic := r.topics.Replays()
	end, err := r.fetcher.EndOffset(ctx, topic, 0)
	if err != nil {
		return nil, fmt.Errorf("reading the replays: %w", err)
	}
	byID := map[string]*Progress{}
	err = r.fetcher.Scan(ctx, topic, 0, 0, end, func(rec *kgo.Record) error {
		if p, err := parseProgress(rec.Value); err == nil {
			byID[p.ID] = p
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the replays: %w", err)
	}
	out := make([]Progress, 0, len(byID))
	for _, p := range byID {
		out = append(out, *p)
	}
	return out, nil
}

// unfinished finds the newest replay of the same selection, if it has not come to
// its end. An older one that has not was given up when a newer one was begun.
func unfinished(all []Progress, sel *Selection) *Progress {
	var newest *Progress
	for i := range all {
		p := &all[i]
		if p.Fingerprint == sel.fingerprint() && (newest == nil || p.BegunAt.After(newest.BegunAt)) {
			newest = p
		}
	}
	if newest == nil || newest.State != StateRunning {
		return nil
	}
	return newest
}

// progressRecord is p's record.
func (r *Replayer) progressRecord(p *Progress) *kgo.Record {
	return &kgo.Record{Topic: r.topics.Replays(), Key: []byte(p.ID), Value: p.encode()}
}
