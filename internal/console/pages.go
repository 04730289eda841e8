package console

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/sink"
)

// refreshEvery is how often a page that somebody looks at is made anew; seconds.
const refreshEvery = 5

// span is a time that charts show.
type span struct {
	name       string
	long, step time.Duration
	Name, Href string
	Current    bool
}

var spans = []span{
	{name: "1h", long: time.Hour, step: time.Minute},
	{name: "6h", long: 6 * time.Hour, step: 5 * time.Minute},
	{name: "24h", long: 24 * time.Hour, step: 15 * time.Minute},
	{name: "7d", long: 7 * 24 * time.Hour, step: 2 * time.Hour},
}

// chosenSpan is what the address asks for, and all that could be, as links.
func chosenSpan(r *http.Request) (span, []span) {
	links := make([]span, len(spans))
	chosen := spans[0]
	for i, s := range spans {
		s.Name, s.Href = s.name, r.URL.Path+"?range="+s.name
		if s.Current = r.URL.Query().Get("range") == s.name || i == 0 && r.URL.Query().Get("range") == ""; s.Current {
			chosen = s
		}
		links[i] = s
	}
	return chosen, links
}

func (c *console) series(ctx context.Context, subscription string, s span) ([]tally, error) {
	now := c.Service.Now()
	// Whole steps, the last one under way.
	until := now.Truncate(s.step).Add(s.step)
	points, err := c.Service.Series(ctx, sink.SeriesQuery{Subscription: subscription, Since: until.Add(-s.long), Until: until, Step: s.step})
	if err != nil {
		return nil, err
	}
	return tallies(points), nil
}

type tile struct{ Name, Value, Class string }

type deliveryTable struct {
	Rows             []sink.DeliveryRow
	HideSubscription bool
	Empty            string
}

type overviewPage struct {
	Ranges            []span
	Trouble           string
	Tiles             []tile
	Attempts, Latency *chart
	Table             []tally
	Failing           deliveryTable
}

func (c *console) overview(r *http.Request) (string, *view, error) {
	s, links := chosenSpan(r)
	var ts []tally
	var failing *sink.DeliveryPage
	all, ctx := errgroup.WithContext(r.Context())
	all.Go(func() (err error) {
		ts, err = c.series(ctx, "", s)
		return err
	})
	all.Go(func() (err error) {
		failing, err = c.Service.Deliveries(ctx, sink.DeliveryQuery{State: sink.DeliveryFailed, Since: c.Service.Now().Add(-s.long), Limit: 10})
		return err
	})
	if err := all.Wait(); err != nil {
		return "", nil, err
	}
	return "overview", &view{Nav: "overview", Refresh: refreshEvery, Data: &overviewPage{
		Ranges: links, Tiles: overviewTiles(ts, s), Attempts: attemptsChart(ts, s.step), Latency: latencyChart(ts, s.step), Table: ts,
		Failing: deliveryTable{Rows: failing.Deliveries, Empty: "Nothing was given up in this time."},
	}}, nil
}

func overviewTiles(ts []tally, s span) []tile {
	var sum tally
	for i := range ts {
		t := &ts[i]
		sum.OK, sum.Answer, sum.Unreach, sum.Own = sum.OK+t.OK, sum.Answer+t.Answer, sum.Unreach+t.Unreach, sum.Own+t.Own
		sum.Lag = max(sum.Lag, t.Lag)
	}
	tried := sum.OK + sum.Answer + sum.Unreach
	rate := tile{Name: "of attempts succeeded", Value: "–"}
	if tried > 0 {
		rate.Value, rate.Class = percent(sum.OK, tried)
	}
	attempts := tile{Name: "attempts in " + s.name, Value: count(tried)}
	if sum.Own > 0 { // which are no attempts in the list of subscriptions, either
		attempts.Name += ", " + count(sum.Own) + " not sent"
	}
	return []tile{
		attempts,
		{Name: "per second", Value: perSecond(tried, s.long)},
		rate,
		{Name: "attempts failed", Value: count(sum.Answer + sum.Unreach)},
		{Name: "longest wait for a first attempt", Value: took(sum.Lag)},
	}
}

func perSecond(n uint64, d time.Duration) string {
	v := float64(n) / d.Seconds()
	if v >= 100 {
		return count(uint64(v))
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// percent is a share, and how bad it is.
func percent(n, of uint64) (text, class string) {
	share := float64(n) / float64(of) * 100
	switch {
	case share < 90:
		class = "is-bad"
	case share < 99:
		class = "is-warn"
	}
	if n < of && share > 99.99 {
		share = 99.99 // 100 % is only said of all
	}
	return strings.TrimSuffix(strings.TrimSuffix(fmt.Sprintf("%.2f", share), "0"), ".0") + " %", class
}

type deliveriesPage struct {
	State, Subscription string
	States              []sink.DeliveryState
	Sinces              []choice
	List                deliveryTable
	First               bool
	FirstHref, NextHref string
}

type choice struct {
	Name, Value string
	Current     bool
}

var sinces = []struct {
	name, value string
	long        time.Duration
}{{"the last hour", "1h", time.Hour}, {"24 hours", "24h", 24 * time.Hour}, {"7 days", "7d", 7 * 24 * time.Hour}, {"the beginning", "all", 0}}

// pageRows is how many deliveries a list shows.
const pageRows = 50

func (c *console) deliveries(r *http.Request) (string, *view, error) {
	v := r.URL.Query()
	q := sink.DeliveryQuery{State: sink.DeliveryState(v.Get("state")), Subscription: v.Get("subscription"), Limit: pageRows}
	var err error
	if q.After, err = sink.ParseDeliveryCursor(v.Get("after")); err != nil {
		return "", nil, badRequest{err}
	}
	p := &deliveriesPage{State: v.Get("state"), Subscription: q.Subscription, States: sink.DeliveryStates[:], First: q.After.IsZero()}
	since, known := cmp.Or(v.Get("since"), "24h"), false
	for _, s := range sinces {
		known = known || s.value == since
		if s.value == since && s.long > 0 {
			q.Since = c.Service.Now().Add(-s.long)
		}
		p.Sinces = append(p.Sinces, choice{s.name, s.value, s.value == since})
	}
	if !known {
		return "", nil, badRequest{fmt.Errorf("since: %.40q is none of 1h, 24h, 7d, all", since)}
	}
	page, err := c.Service.Deliveries(r.Context(), q)
	if err != nil {
		return "", nil, err
	}
	p.List = deliveryTable{Rows: page.Deliveries, Empty: "No such delivery in this time."}
	v.Del("after")
	p.FirstHref = "/deliveries?" + v.Encode()
	if !page.Next.IsZero() {
		p.List.Empty = "None among the newest: there may be older ones."
		v.Set("after", page.Next.String())
		p.NextHref = "/deliveries?" + v.Encode()
	}
	refresh := 0
	if p.First {
		refresh = refreshEvery
	}
	return "deliveries", &view{Title: "Deliveries", Nav: "deliveries", Refresh: refresh, Data: p}, nil
}

type deliveryPage struct {
	Delivery *api.Delivery
	Attempts []attemptView
	Event    *sink.StoredEvent
	// CanAct: it can be retried or skipped; CanReplay: it has ended, and can be
	// delivered again.
	CanAct, CanReplay bool
}

// PhasesLabel says in words what the bar of an attempt's phases shows.
func (*deliveryPage) PhasesLabel(ps []phase) string {
	said := make([]string, len(ps))
	for i, p := range ps {
		said[i] = p.Name + " " + p.Text
	}
	return strings.Join(said, ", ")
}

type attemptView struct {
	Row    *sink.AttemptRow
	Index  int
	Gap    string // since the end of the one before
	Phases []phase
	Open   bool
}

func (c *console) delivery(r *http.Request) (string, *view, error) {
	d, err := c.Service.Delivery(r.Context(), r.PathValue("id"))
	if err != nil {
		return "", nil, err
	}
	p := &deliveryPage{Delivery: d, Event: d.Event}
	if access.Of(r.Context()).Scope >= access.Write {
		p.CanAct = d.State == sink.DeliveryRetrying || d.State == sink.DeliveryWaiting
		p.CanReplay = !p.CanAct
	}
	for i, row := range d.Attempts {
		v := attemptView{Row: row, Index: i, Phases: phases(&row.Attempt), Open: i == len(d.Attempts)-1}
		if i > 0 {
			before := d.Attempts[i-1]
			v.Gap = took(row.StartedAt.Sub(before.StartedAt.Add(before.Elapsed)))
		}
		p.Attempts = append(p.Attempts, v)
	}
	refresh := 0
	if d.State != sink.DeliveryDelivered {
		refresh = refreshEvery
	}
	return "delivery", &view{Title: short(d.ID), Nav: "deliveries", Refresh: refresh, Flash: flashOf(r), Data: p}, nil
}

type messagePage struct{ Title, Text string }

type loginPage struct {
	Next, Problem string
	HasTokens     bool
}

// localPath keeps a redirection on this site.
func localPath(s string) string {
	u, err := url.Parse(s)
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(u.Path, "/") || strings.HasPrefix(s, "//") || strings.ContainsAny(s, "\\\r\n\t") {
		return "/"
	}
	return s
}
