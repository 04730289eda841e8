package api

import (
	"context"
	"fmt"
	"iter"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/sink"
)

// manyFailing are subscriptions f0, f1, ... that fail throughout, and z, whose
// lanes are blocked, as only their owner tells.
type manyFailing struct {
	fakeRegistry
	fakeLog
	fakeOperator
	asked [][]string // ids, one list a question
}

const failingCount = 5

func (m *manyFailing) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) {
		for i := range failingCount {
			if !yield(&pipeline.Subscription{ID: fmt.Sprint("f", i), Revision: 1, State: pipeline.StateActive, OnExhausted: pipeline.OnExhaustedContinue}) {
				return
			}
		}
		yield(&pipeline.Subscription{ID: "z", Revision: 1, State: pipeline.StateActive, OnExhausted: pipeline.OnExhaustedBlock})
	}
}

func (m *manyFailing) Refused() iter.Seq2[string, error] { return func(func(string, error) bool) {} }

func (m *manyFailing) SubscriptionStats(context.Context, []string, time.Time) (map[string]sink.SubscriptionStats, error) {
	out := map[string]sink.SubscriptionStats{"z": {ID: "z", Attempts: 4}}
	for i := range failingCount {
		id := fmt.Sprint("f", i)
		out[id] = sink.SubscriptionStats{ID: id, Attempts: 9}
	}
	return out, nil
}

func (m *manyFailing) Statuses(_ context.Context, _ string, ids []string, _ time.Duration) (map[string]*command.Status, error) {
	m.asked = append(m.asked, ids)
	out := map[string]*command.Status{}
	for _, id := range ids {
		out[id] = &command.Status{Known: true}
		if id == "z" {
			out[id].Blocked = 1
		}
	}
	return out, nil
}

// A blocked subscription is counted as one, stands before those that fail, and is
// found by its health, though only its owner tells; nobody is asked twice.
func TestBlockedIsCountedAndComesFirst(t *testing.T) {
	m := &manyFailing{}
	s := NewService(Deps{Log: m, Snapshot: func() Registry { return m }, Operator: m, Now: func() time.Time { return testNow }})
	page, err := s.Subscriptions(t.Context(), "me", SubscriptionQuery{By: ByWorst, Limit: 3, Lanes: true})
	if err != nil {
		t.Fatal(err)
	}
	if first := page.Subscriptions[0]; first.ID != "z" || first.Health != HealthBlocked || first.Lanes == nil {
		t.Errorf("the first is %s, %s", first.ID, first.Health)
	}
	if page.ByHealth[HealthBlocked] != 1 || page.ByHealth[HealthFailing] != failingCount {
		t.Errorf("counted %v", page.ByHealth)
	}
	if got, want := fmt.Sprint(m.asked), "[[z] [f0 f1]]"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	page, err = s.Subscriptions(t.Context(), "me", SubscriptionQuery{Health: HealthBlocked, Limit: 3, Lanes: true})
	if err != nil || page.Total != 1 || page.Subscriptions[0].ID != "z" {
		t.Errorf("blocked are %+v, %v", page, err)
	}
}
