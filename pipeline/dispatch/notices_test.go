package dispatch

import (
	"slices"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// notices reads the topic of notices.
func (b *bench) notices() (all []Notice) {
	b.t.Helper()
	for _, r := range b.read(b.kafka.Topics().Notices()) {
		var n Notice
		if err := json.Unmarshal(r.Value, &n, json.RejectUnknownMembers(true)); err != nil {
			b.t.Fatal(err)
		}
		if n.V != NoticeVersion || n.Subscription != string(r.Key) || time.Since(n.Time) > time.Minute || n.Node != "test" {
			b.t.Errorf("notice %s: %s", r.Key, r.Value)
		}
		all = append(all, n)
	}
	return all
}

func TestNoticesOfAnExhaustedAndADisabledSubscription(t *testing.T) {
	b := kfakeBench(t, 2, sub("bad", func(s *pipeline.Subscription) { s.Retries, s.Tenant = 0, "acme" }), sub("gone", nil))
	b.ledger.setAnswer(func(sub string, _, _ int) (pipeline.Outcome, time.Duration) {
		if sub == "gone" {
			return pipeline.OutcomeGone, 0
		}
		return pipeline.OutcomeResponseError, 0
	})
	r := b.start(nil)
	for range 20 {
		b.event("bad", "gone")
	}
	b.ledger.await(t, "all dead", func() bool { return len(b.read(b.kafka.Topics().Dead())) == 40 })
	r.stop(t)
	told := map[string][]Notice{}
	for _, n := range b.notices() {
		told[n.Subscription] = append(told[n.Subscription], n)
	}
	if n := told["gone"]; len(n) != 1 || n[0].Type != lane.NoticeDisabled || n[0].Reason != lane.ReasonGone {
		t.Errorf("of gone: %+v", n)
	}
	n := told["bad"]
	if len(n) != 2 || n[0].Type != lane.NoticeExhausted || n[0].Count != 1 || n[1].Count != 19 || n[0].Tenant != "acme" ||
		n[0].DeliveryID == "" || n[0].EventID != "e0" || n[0].Attempts != 1 {
		t.Errorf("of bad: %+v", n)
	}
}

func TestRateOfRequests(t *testing.T) {
	b := kfakeBench(t, 1, sub("limited", func(s *pipeline.Subscription) {
		s.Ordering, s.Rate = pipeline.OrderingNone, pipeline.Rate{Count: 20, Per: time.Second}
	}), sub("free", nil))
	b.start(nil)
	b.event("free")
	b.ledger.await(t, "the first", func() bool { return b.ledger.successes() == 1 })
	produced := time.Now()
	for range 45 {
		b.event("limited", "free")
	}
	b.ledger.await(t, "everything", func() bool { return b.ledger.successes() == 91 })
	tries := b.ledger.of("limited")
	slices.SortFunc(tries, func(a, b try) int { return a.begun.Compare(b.begun) })
	if len(tries) != 45 {
		t.Fatalf("%d requests, want 45: none is an attempt more", len(tries))
	}
	// A request is begun a moment after its token was taken, so between two of
	// them there may be less time, also between the first and the last; but no token
	// was taken before the events were there.
	if took := tries[44].begun.Sub(produced); took < time.Second {
		t.Errorf("45 requests within %v at 20/s after a burst of 20", took)
	}
	if last := b.ledger.of("free"); last[len(last)-1].ended.After(tries[30].begun) {
		t.Error("the free subscription waited for the limited one")
	}
}
