package api

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

// Operator carries out what operators ask for; control.Operator is one.
type Operator interface {
	Pause(ctx context.Context, who, id, reason string) (*control.Result, error)
	Resume(ctx context.Context, who, id string, opts control.ResumeOptions) (*control.Result, error)
	Skip(ctx context.Context, who string, at control.Target) (*control.Result, error)
	Retry(ctx context.Context, who string, at control.Target) (*control.Result, error)
	Test(ctx context.Context, who, id string, opts control.TestOptions) (*control.Result, error)
	Statuses(ctx context.Context, who string, ids []string, patience time.Duration) (map[string]*command.Status, error)
}

// Editor changes the subscriptions as they are configured.
type Editor interface {
	Apply(ctx context.Context, who string, source []byte, prune bool) ([]registry.Change, error)
	Delete(ctx context.Context, who, id string) (registry.Change, error)
	Get(ctx context.Context, id string) (*registry.Item, error)
}

// Health is how a subscription does: a closed enum.
type Health string

// The healths, worst first.
const (
	HealthRefused  Health = "refused"  // its last configuration is not accepted
	HealthDisabled Health = "disabled" // gets nothing
	HealthBlocked  Health = "blocked"  // lanes wait for an operator
	HealthPaused   Health = "paused"   // its deliveries wait
	HealthFailing  Health = "failing"  // nothing succeeds
	HealthRetrying Health = "retrying" // some deliveries wait for a retry
	HealthOK       Health = "ok"
	HealthIdle     Health = "idle" // no attempts in the time that was looked at
)

// Healths lists every health, worst first.
var Healths = [...]Health{HealthRefused, HealthDisabled, HealthBlocked, HealthPaused, HealthFailing, HealthRetrying, HealthOK, HealthIdle}

// Subscription is one subscription and how it does.
type Subscription struct {
	*pipeline.Subscription
	// URL without credentials; values of its query redacted.
	URL    string
	Health Health
	// Since is when the state or the failing began; zero: not known.
	Since time.Time
	// Refused says why the last configuration is not accepted; empty: it is.
	Refused string
	Stats   sink.SubscriptionStats // of the last StatsSpan
	// Lanes is what the process that owns them says; nil: it was not asked, or
	// did not answer.
	Lanes *command.Status
}

// StatsSpan is the time over which a subscription's health is told.
const StatsSpan = time.Hour

// lanesPatience is how long an owner's answer is waited for where pages can do
// without.
const lanesPatience = 1200 * time.Millisecond

// SubscriptionQuery narrows a list of subscriptions. Empty fields do not.
type SubscriptionQuery struct {
	Text   string // a part of the id, the URL, the description or the tenant; letter case does not matter
	Tenant string
	Health Health
	// By is the order: worst (health, then success rate), busiest or id.
	By    SubscriptionOrder
	After int // how many to pass over
	Limit int // 1..MaxSubscriptions
	// Lanes asks the owners of the page's subscriptions, too, and of those that can
	// be blocked; their answers are up to answersAge old.
	Lanes bool
}

// SubscriptionOrder is an order of subscriptions: a closed enum.
type SubscriptionOrder string

// The orders.
const (
	ByWorst   SubscriptionOrder = "worst"
	ByBusiest SubscriptionOrder = "busiest"
	ByID      SubscriptionOrder = "id"
)

// MaxSubscriptions is the most subscriptions of one page.
const MaxSubscriptions = 200

// SubscriptionPage is one page of subscriptions.
type SubscriptionPage struct {
	Subscriptions []Subscription
	Total         int // that match, on all pages
	ByHealth      map[Health]int
}

// Subscriptions gives one page of subscriptions.
func (s *Service) Subscriptions(ctx context.Context, who string, q SubscriptionQuery) (*SubscriptionPage, error) {
	snap := s.deps.Snapshot()
	if snap == nil {
		return nil, ErrNotReady
	}
	if q.Limit < 1 || q.Limit > MaxSubscriptions || q.After < 0 {
		return nil, fmt.Errorf("listing subscriptions: a page of %d after %d, want 1 to %d", q.Limit, q.After, MaxSubscriptions)
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	stats, err := s.deps.Log.SubscriptionStats(ctx, nil, s.Now().Add(-StatsSpan))
	if err != nil {
		return nil, err
	}
	all := s.known(snap)
	for i := range all {
		all[i].Stats = stats[all[i].ID]
		all[i].Health = all[i].health()
	}
	all = slices.DeleteFunc(all, func(sub Subscription) bool { return !q.matches(&sub) })
	slices.SortFunc(all, q.compare)
	heard := false
	if q.Lanes {
		heard = s.addLanes(ctx, who, append(q.page(all), canBeBlocked(all)...), true)
		slices.SortFunc(all, q.compare)
	}
	page := &SubscriptionPage{ByHealth: make(map[Health]int)}
	for i := range all {
		page.ByHealth[all[i].Health]++
	}
	if q.Health != "" {
		all = slices.DeleteFunc(all, func(sub Subscription) bool { return sub.Health != q.Health })
	}
	page.Total = len(all)
	all = all[min(q.After, len(all)):]
	page.Subscriptions = all[:min(q.Limit, len(all))]
	var shown []*Subscription
	for i := range page.Subscriptions {
		sub := &page.Subscriptions[i]
		sub.URL = redacted(sub.Subscription.URL)
		shown = append(shown, sub)
	}
	if heard {
		// All were asked, but for the few that came onto a later page, or one of a
		// single health, because others turned out to be blocked.
		s.addLanes(ctx, who, shown, true)
	}
	return page, nil
}

// page gives the page of sorted subscriptions by what is known without their
// owners.
func (q *SubscriptionQuery) page(all []Subscription) []*Subscription {
	var page []*Subscription
	passed := 0
	for i := range all {
		switch {
		case q.Health != "" && all[i].Health != q.Health:
		case passed < q.After:
			passed++
		case len(page) < q.Limit:
			page = append(page, &all[i])
		}
	}
	return page
}

// maxBlockedAsked is of how many subscriptions at most a list asks whether they
// are blocked; with a page they fit one question (control.MaxStatuses).
const maxBlockedAsked = 200

// canBeBlocked gives those that can be blocked, of which nothing but their owner
// tells: a health must be known before it is counted and sorted by. At most
// maxBlockedAsked, the likeliest first, whatever the order of the list: pages and
// orders count alike.
func canBeBlocked(all []Subscription) []*Subscription {
	var out []*Subscription
	for i := range all {
		sub := &all[i]
		if sub.OnExhausted == pipeline.OnExhaustedBlock && sub.Health != HealthRefused && sub.Health != HealthDisabled {
			out = append(out, sub)
		}
	}
	slices.SortFunc(out, func(a, b *Subscription) int {
		return cmp.Or(cmp.Compare(a.unlikelyBlocked(), b.unlikelyBlocked()), strings.Compare(a.ID, b.ID))
	})
	return out[:min(len(out), maxBlockedAsked)]
}

// unlikelyBlocked is greater the less likely a subscription is blocked: one whose
// lanes all are makes no attempts, or none that succeeds; some lanes may be where
// others' deliveries succeed.
func (s *Subscription) unlikelyBlocked() int {
	switch {
	case s.Stats.Successes == 0:
		return 0
	case s.Stats.Successes < s.Stats.Attempts:
		return 1
	}
	return 2
}

// known gives every subscription of a snapshot, refused ones too.
func (s *Service) known(snap Registry) []Subscription {
	var all []Subscription
	refused := map[string]string{}
	for id, err := range snap.Refused() {
		refused[id] = err.Error()
		if snap.Get(id) == nil {
			all = append(all, Subscription{Subscription: &pipeline.Subscription{ID: id, State: pipeline.StateDisabled}, Refused: err.Error()})
		}
	}
	for sub := range snap.All() {
		all = append(all, newSubscription(snap, sub, refused[sub.ID]))
	}
	return all
}

func newSubscription(snap Registry, sub *pipeline.Subscription, refused string) Subscription {
	out := Subscription{Subscription: sub, Refused: refused}
	st := snap.State(sub.ID)
	switch {
	case st != nil && st.Revision == sub.Revision && sub.State == st.State && sub.State != pipeline.StateActive:
		out.Since = st.Since
	case !sub.FailingSince.IsZero():
		out.Since = sub.FailingSince
	}
	return out
}

// redacted is a URL as the log has it: without credentials and the values of its
// query, which may be secrets.
func redacted(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "[not shown: it cannot be read]"
	}
	u.User, u.Fragment = nil, ""
	if u.RawQuery != "" {
		var pairs []string
		for pair := range strings.SplitSeq(u.RawQuery, "&") {
			if name, _, named := strings.Cut(pair, "="); named {
				pairs = append(pairs, name+"=[redacted]")
			} else {
				pairs = append(pairs, "[redacted]")
			}
		}
		u.RawQuery = strings.Join(pairs, "&")
	}
	return u.String()
}

// health judges by what is known; lanes count where their owner was asked.
func (s *Subscription) health() Health {
	switch {
	case s.Refused != "":
		return HealthRefused
	case s.State == pipeline.StateDisabled:
		return HealthDisabled
	case s.Lanes != nil && s.Lanes.Blocked > 0:
		return HealthBlocked
	case s.State == pipeline.StatePaused:
		return HealthPaused
	case s.Stats.Attempts > 0 && s.Stats.Successes == 0:
		return HealthFailing
	case s.Stats.Retrying > 0:
		return HealthRetrying
	case s.Stats.Attempts == 0:
		return HealthIdle
	}
	return HealthOK
}

func (q *SubscriptionQuery) matches(s *Subscription) bool {
	if q.Tenant != "" && s.Tenant != q.Tenant {
		return false
	}
	if q.Text == "" {
		return true
	}
	text := strings.ToLower(q.Text)
	shown, _, _ := strings.Cut(s.Subscription.URL, "?")
	return slices.ContainsFunc([]string{s.ID, shown, s.Description, s.Tenant}, func(v string) bool { return strings.Contains(strings.ToLower(v), text) })
}

func (q *SubscriptionQuery) compare(a, b Subscription) int {
	byID := strings.Compare(a.ID, b.ID)
	switch q.By {
	case ByBusiest:
		return cmp.Or(cmp.Compare(b.Stats.Attempts, a.Stats.Attempts), byID)
	case ByID:
		return byID
	case ByWorst:
	}
	return cmp.Or(cmp.Compare(rank(a.Health), rank(b.Health)), cmp.Compare(a.rate(), b.rate()), cmp.Compare(b.Stats.Attempts, a.Stats.Attempts), byID)
}

func rank(h Health) int { return slices.Index(Healths[:], h) }

// rate of success; 1 where there was no attempt.
func (s *Subscription) rate() float64 {
	if s.Stats.Attempts == 0 {
		return 1
	}
	return float64(s.Stats.Successes) / float64(s.Stats.Attempts)
}

// addLanes asks the owners, in one question; with remembered, only after those of
// which nothing was heard within answersAge. Who does not answer in time is left
// out, as where Kafka does not: the rest is worth showing. It gives false where the
// question could not be asked.
func (s *Service) addLanes(ctx context.Context, who string, subs []*Subscription, remembered bool) bool {
	if s.deps.Operator == nil {
		return false
	}
	ids := make([]string, 0, len(subs))
	asked := make(map[string]bool, len(subs))
	for _, sub := range subs {
		if sub.Revision < 1 || sub.Lanes != nil || asked[sub.ID] {
			continue
		}
		if st, known := s.answers.get(sub.ID, s.Now()); known && remembered {
			sub.tell(st)
			continue
		}
		ids, asked[sub.ID] = append(ids, sub.ID), true
	}
	if len(ids) == 0 {
		return true
	}
	told, err := s.deps.Operator.Statuses(ctx, who, ids, lanesPatience)
	if err != nil {
		s.deps.Logger.Warn("asking what waits", "error", err)
		return false
	}
	s.answers.put(ids, told, s.Now())
	for _, sub := range subs {
		if asked[sub.ID] {
			sub.tell(told[sub.ID])
		}
	}
	return true
}

// tell adds what the owner said; nil: nothing.
func (s *Subscription) tell(st *command.Status) {
	if st != nil {
		s.Lanes = st
		s.Health = s.health()
	}
}

// Subscription gives one subscription, with its lanes; ErrNotFound where there
// is none.
func (s *Service) Subscription(ctx context.Context, who, id string) (*Subscription, error) {
	snap := s.deps.Snapshot()
	if snap == nil {
		return nil, ErrNotReady
	}
	refused := ""
	for other, err := range snap.Refused() {
		if other == id {
			refused = err.Error()
		}
	}
	sub := snap.Get(id)
	if sub == nil && refused == "" {
		return nil, fmt.Errorf("looking for subscription %.140q: %w", id, ErrNotFound)
	}
	if sub == nil {
		sub = &pipeline.Subscription{ID: id, State: pipeline.StateDisabled}
	}
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	stats, err := s.deps.Log.SubscriptionStats(ctx, []string{id}, s.Now().Add(-StatsSpan))
	if err != nil {
		return nil, err
	}
	out := newSubscription(snap, sub, refused)
	out.URL, out.Stats = redacted(sub.URL), stats[id]
	out.Health = out.health()
	s.addLanes(ctx, who, []*Subscription{&out}, false) // who acts looks here for what came of it
	return &out, nil
}

// Known gives a subscription as it is in force; ErrNotFound where there is none.
func (s *Service) Known(id string) (*pipeline.Subscription, error) {
	snap := s.deps.Snapshot()
	if snap == nil {
		return nil, ErrNotReady
	}
	sub := snap.Get(id)
	if sub == nil {
		return nil, fmt.Errorf("looking for subscription %.140q: %w", id, ErrNotFound)
	}
	return sub, nil
}
