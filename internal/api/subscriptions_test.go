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
	if got, want := fmt.Sprint(m.asked), "[[f0 f1 f2 z]]"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	page, err = s.Subscriptions(t.Context(), "me", SubscriptionQuery{Health: HealthBlocked, Limit: 3, Lanes: true})
	if err != nil || page.Total != 1 || page.Subscriptions[0].ID != "z" {
		t.Errorf("blocked are %+v, %v", page, err)
	}
}

// herd is subscriptions of any kind; their owner tells that z is blocked.
type herd struct {
	fakeRegistry
	fakeLog
	fakeOperator
	subs  []pipeline.Subscription
	stats map[string]sink.SubscriptionStats
	asked [][]string // ids, one list a question
	mute  bool       // the owner does not answer
}

func (h *herd) All() iter.Seq[*pipeline.Subscription] {
	return func(yield func(*pipeline.Subscription) bool) {
		for i := range h.subs {
			if !yield(&h.subs[i]) {
				return
			}
		}
	}
}

func (h *herd) Get(id string) *pipeline.Subscription {
	for i := range h.subs {
		if h.subs[i].ID == id {
			return &h.subs[i]
		}
	}
	return nil
}

func (h *herd) Refused() iter.Seq2[string, error] { return func(func(string, error) bool) {} }

func (h *herd) SubscriptionStats(context.Context, []string, time.Time) (map[string]sink.SubscriptionStats, error) {
	return h.stats, nil
}

func (h *herd) Statuses(_ context.Context, _ string, ids []string, _ time.Duration) (map[string]*command.Status, error) {
	h.asked = append(h.asked, ids)
	out := map[string]*command.Status{}
	for _, id := range ids {
		if !h.mute {
			out[id] = &command.Status{Known: true}
		}
		if id == "z" && !h.mute {
			out[id].Blocked = 1
		}
	}
	return out, nil
}

// newHerd is n subscriptions of a state that can be blocked, all of whose attempts
// succeed, and z, that is blocked and has made none in the last hour.
func newHerd(n int, state pipeline.State) *herd {
	h := &herd{stats: map[string]sink.SubscriptionStats{}}
	for i := range n {
		id := fmt.Sprintf("a%03d", i)
		h.subs = append(h.subs, pipeline.Subscription{ID: id, Revision: 1, State: state, OnExhausted: pipeline.OnExhaustedBlock})
		if state == pipeline.StateActive {
			h.stats[id] = sink.SubscriptionStats{ID: id, Attempts: 5, Successes: 5}
		}
	}
	h.subs = append(h.subs, pipeline.Subscription{ID: "z", Revision: 1, State: pipeline.StateActive, OnExhausted: pipeline.OnExhaustedBlock})
	return h
}

func (h *herd) service(now *time.Time) *Service {
	return NewService(Deps{Log: h, Snapshot: func() Registry { return h }, Operator: h, Now: func() time.Time { return *now }})
}

// One that is blocked and idle is found behind many that can be, but do well or get
// nothing, in every order and on every page; and all in one question.
func TestBlockedAndIdleIsFound(t *testing.T) {
	for _, state := range []pipeline.State{pipeline.StateActive, pipeline.StateDisabled} {
		for _, q := range []SubscriptionQuery{{By: ByWorst}, {By: ByID}, {By: ByBusiest}, {By: ByID, After: 100}, {Health: HealthBlocked}} {
			now := testNow
			h := newHerd(2*maxBlockedAsked, state)
			q.Limit, q.Lanes = 50, true
			page, err := h.service(&now).Subscriptions(t.Context(), "me", q)
			if err != nil {
				t.Fatal(err)
			}
			if page.ByHealth[HealthBlocked] != 1 || len(h.asked) != 1 {
				t.Errorf("%s, %+v: counted %v with %d questions", state, q, page.ByHealth, len(h.asked))
			}
			if q.Health == HealthBlocked && page.Total != 1 {
				t.Errorf("%s: %d blocked", state, page.Total)
			}
		}
	}
}

// Who looks soon afterwards has the same answers, silence too; after answersAge the
// owners are asked again. One subscription's page always asks, and lists have what
// it heard.
func TestAnswersAreRemembered(t *testing.T) {
	now := testNow
	h := newHerd(3, pipeline.StateActive)
	s := h.service(&now)
	look := func(want int, questions int) {
		t.Helper()
		page, err := s.Subscriptions(t.Context(), "me", SubscriptionQuery{By: ByWorst, Limit: 50, Lanes: true})
		if err != nil {
			t.Fatal(err)
		}
		if page.ByHealth[HealthBlocked] != want || len(h.asked) != questions {
			t.Errorf("%d blocked with %d questions, want %d with %d", page.ByHealth[HealthBlocked], len(h.asked), want, questions)
		}
	}
	look(1, 1)
	now = now.Add(answersAge - 1)
	look(1, 1)
	now, h.mute = now.Add(1), true
	look(0, 2)
	now = now.Add(answersAge - 1)
	look(0, 2)
	h.mute = false
	if sub, err := s.Subscription(t.Context(), "me", "z"); err != nil || sub.Health != HealthBlocked {
		t.Errorf("asked for, %+v, %v", sub, err)
	}
	look(1, 3)
}

// What is remembered is bounded.
func TestAnswersAreBounded(t *testing.T) {
	var a answers
	for i := range 2 * maxAnswers {
		a.put([]string{fmt.Sprint(i)}, nil, testNow)
	}
	if _, known := a.get(fmt.Sprint(2*maxAnswers-1), testNow); !known || len(a.told) > maxAnswers {
		t.Errorf("%d are remembered, the last one: %v", len(a.told), known)
	}
}
