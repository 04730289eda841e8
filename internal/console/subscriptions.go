package console

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/sink"
)

type subscriptionRow struct {
	api.Subscription
	Rate, RateClass string
	Waiting         string
	// Why is the reason of the state; LongWhy is one that needs a row of its own.
	Why, LongWhy string
}

// shortWhy is the longest reason, in bytes, that stands beside the health.
const shortWhy = 24

// Where is the URL without its scheme.
func (s *subscriptionRow) Where() string {
	u, err := url.Parse(s.URL)
	if err != nil {
		return ""
	}
	return u.Host + u.Path
}

func newRow(s api.Subscription) subscriptionRow {
	row := subscriptionRow{Subscription: s, Rate: "–", Waiting: "–", Why: s.StateReason}
	if s.Refused != "" {
		row.Why = s.Refused
	}
	if len(row.Why) > shortWhy {
		row.Why, row.LongWhy = "", row.Why
	}
	if s.Stats.Attempts > 0 {
		row.Rate, row.RateClass = percent(s.Stats.Successes, s.Stats.Attempts)
	}
	switch {
	case s.Lanes != nil:
		row.Waiting = count(s.Lanes.Queued + s.Lanes.Parked + s.Lanes.Heads)
	case s.Stats.Retrying > 0:
		row.Waiting = "≥ " + count(s.Stats.Retrying)
	}
	return row
}

type subscriptionsPage struct {
	Total               int
	Find                string
	Filtered            bool
	Orders              []choice
	Healths             []healthLink
	Rows                []subscriptionRow
	FirstHref, NextHref string
}

type healthLink struct {
	Name, Href string
	N          int
	Current    bool
}

var orders = []struct{ name, value string }{{"worst first", "worst"}, {"busiest first", "busiest"}, {"by id", "id"}}

func (c *console) subscriptions(r *http.Request) (string, *view, error) {
	v := r.URL.Query()
	after, _ := strconv.Atoi(v.Get("after")) // what is no number begins at the front
	q := api.SubscriptionQuery{
		Text: v.Get("find"), Health: api.Health(v.Get("health")), By: api.SubscriptionOrder(v.Get("order")),
		After: min(max(after, 0), 1_000_000_000), Limit: pageRows, Lanes: true,
	}
	found, err := c.Service.Subscriptions(r.Context(), api.Actor(r, "console"), q)
	if err != nil {
		return "", nil, err
	}
	p := &subscriptionsPage{Total: found.Total, Find: q.Text, Filtered: q.Text != "" || q.Health != ""}
	for _, o := range orders {
		p.Orders = append(p.Orders, choice{o.name, o.value, o.value == v.Get("order")})
	}
	link := func(name, value string) string {
		w := url.Values{}
		for _, k := range []string{"find", "order", "health"} {
			if s := v.Get(k); s != "" {
				w.Set(k, s)
			}
		}
		w.Del(name)
		if value != "" {
			w.Set(name, value)
		}
		return "/subscriptions?" + w.Encode()
	}
	all := 0
	for _, h := range api.Healths {
		n := found.ByHealth[h]
		all += n
		if n > 0 || q.Health == h {
			p.Healths = append(p.Healths, healthLink{string(h), link("health", string(h)), n, q.Health == h})
		}
	}
	p.Healths = append([]healthLink{{"all", link("health", ""), all, q.Health == ""}}, p.Healths...)
	for _, s := range found.Subscriptions {
		p.Rows = append(p.Rows, newRow(s))
	}
	if q.After > 0 {
		p.FirstHref = link("after", "")
	}
	if end := q.After + len(p.Rows); end < found.Total {
		p.NextHref = link("after", strconv.Itoa(end))
	}
	return "subscriptions", &view{Title: "Subscriptions", Nav: "subscriptions", Refresh: refreshEvery, Data: p}, nil
}

type subscriptionPage struct {
	Sub      *api.Subscription
	CanWrite bool
	Ranges   []span
	Tiles    []tile
	Attempts *chart
	List     deliveryTable
	// CatchUp is the last one in this process; nil: there was none.
	CatchUp *api.CatchUp
	// CanCatchUp: it is disabled or catching up, so that it may have missed something.
	CanCatchUp bool
}

// listRows is how many deliveries stand on a page about something else.
const listRows = 20

func (c *console) subscription(r *http.Request) (string, *view, error) {
	id := r.PathValue("id")
	s, links := chosenSpan(r)
	var sub *api.Subscription
	var ts []tally
	var list *sink.DeliveryPage
	all, ctx := errgroup.WithContext(r.Context())
	all.Go(func() (err error) {
		sub, err = c.Service.Subscription(ctx, api.Actor(r, "console"), id)
		return err
	})
	all.Go(func() (err error) {
		ts, err = c.series(ctx, id, s)
		return err
	})
	all.Go(func() (err error) {
		list, err = c.Service.Deliveries(ctx, sink.DeliveryQuery{Subscription: id, Limit: listRows})
		return err
	})
	if err := all.Wait(); err != nil {
		return "", nil, err
	}
	row := newRow(*sub)
	tiles := overviewTiles(ts, s)
	tiles[1] = tile{Name: "deliveries waiting", Value: row.Waiting}
	if sub.Lanes != nil && sub.Lanes.Blocked > 0 {
		tiles[1].Class = "is-bad"
	}
	canWrite := access.Of(r.Context()).Scope >= access.Write
	p := &subscriptionPage{
		Sub: sub, CanWrite: canWrite, Ranges: links, Tiles: tiles, Attempts: attemptsChart(ts, s.step),
		List: deliveryTable{Rows: list.Deliveries, HideSubscription: true, Empty: "No delivery yet."},
	}
	if replays, err := c.Service.Replays(); err == nil {
		p.CatchUp, _ = replays.CatchUpOf(id) // there need not be one
		p.CanCatchUp = sub.State == pipeline.StateDisabled || sub.StateReason == pipeline.ReasonCatchUp
	}
	return "subscription", &view{Title: short(id), Nav: "subscriptions", Refresh: refreshEvery, Flash: flashOf(r), Data: p}, nil
}

// do carries out what a button of a page stands for, and shows the page again
// with what came of it.
func (c *console) do(w http.ResponseWriter, r *http.Request) {
	if access.Of(r.Context()).Scope < access.Write {
		c.fail(w, r, errMayNot)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	id, who := r.PathValue("id"), api.Actor(r, "console")
	// A command for a subscription that is not there would be waited for in vain.
	if _, err := c.Service.Known(id); err != nil {
		c.fail(w, r, err)
		return
	}
	op, at := c.Service.Operator(), control.Target{Subscription: id, Delivery: r.PostFormValue("delivery")}
	var res *control.Result
	var err error
	switch action := r.PostFormValue("action"); action {
	case "pause":
		res, err = op.Pause(r.Context(), who, id, "")
	case "resume":
		res, err = op.Resume(r.Context(), who, id, control.ResumeOptions{})
	case "resume-replay":
		res, err = c.catchUp(r.Context(), who, id)
	case "retry":
		res, err = op.Retry(r.Context(), who, at)
	case "skip":
		res, err = op.Skip(r.Context(), who, at)
	case "test":
		res, err = op.Test(r.Context(), who, id, control.TestOptions{})
	default:
		err = badRequest{fmt.Errorf("%.40q is no action", action)}
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	back := url.URL{Path: "/subscriptions/" + id}
	if at.Delivery != "" && r.PostFormValue("page") == "delivery" {
		back.Path = "/deliveries/" + at.Delivery
	}
	back.RawQuery = url.Values{"did": {string(res.Action)}, "outcome": {string(res.Outcome)}, "lanes": {strconv.Itoa(res.Lanes)}, "said": {said(res)}}.Encode()
	http.Redirect(w, r, back.RequestURI(), http.StatusSeeOther)
}

// catchUp begins a resumption with what was missed; it goes on when the page is
// shown again, which tells how far it is.
func (c *console) catchUp(ctx context.Context, who, id string) (*control.Result, error) {
	replays, err := c.Service.Replays()
	if err != nil {
		return nil, err
	}
	begun, err := replays.CatchUp(ctx, who, id)
	switch {
	case err != nil:
		return nil, err
	case begun.Result != nil:
		return begun.Result, nil
	}
	return &control.Result{Action: audit.ActionResume, Subscription: id, Outcome: control.Done, Detail: "what it missed goes first"}, nil
}

// said is a result's own sentence.
func said(res *control.Result) string {
	if t := res.Test; t != nil {
		text := fmt.Sprintf("%s in %s", t.Outcome, took(time.Duration(t.ElapsedUS)*time.Microsecond))
		if t.StatusCode > 0 {
			text = fmt.Sprintf("HTTP %d, %s", t.StatusCode, text)
		}
		return text
	}
	return res.Detail
}

// flashOf tells what came of the button before. It is words of a fixed list and a
// sentence, which is shown as what it is: text in the address.
func flashOf(r *http.Request) *flash {
	v := r.URL.Query()
	action, outcome := v.Get("did"), control.Outcome(v.Get("outcome"))
	if action == "" || len(action) > 20 || len(v.Get("said")) > 300 {
		return nil
	}
	f := &flash{Kind: "warn"}
	switch outcome {
	case control.Done:
		f.Kind, f.Text = "ok", action+": done"
	case control.Nothing:
		f.Text = action + ": there was nothing it applies to"
	case control.Refused, control.Expired, control.Failed:
		f.Kind, f.Text = "bad", action+": "+string(outcome)
	case control.Unanswered:
		f.Text = action + ": no process has answered yet"
	default:
		return nil
	}
	if n, err := strconv.Atoi(v.Get("lanes")); err == nil && n > 0 && (action == "retry" || action == "skip") {
		f.Text += fmt.Sprintf(" for %d lane(s)", n)
	}
	if s := v.Get("said"); s != "" {
		f.Text += " (" + text(s) + ")"
	}
	return f
}

type searchPage struct {
	Query, Subscription string
	List                deliveryTable
}

func (c *console) search(w http.ResponseWriter, r *http.Request) {
	c.page(func(r *http.Request) (string, *view, error) {
		q := r.URL.Query().Get("q")
		found, err := c.Service.Search(r.Context(), q)
		if err != nil {
			return "", nil, err
		}
		p := &searchPage{Query: q, Subscription: found.Subscription, List: deliveryTable{
			Rows: found.Deliveries, Empty: "No event, delivery or correlation has this id. Ids are looked for as a whole.",
		}}
		// What can only be one thing is shown at once.
		if found.Subscription != "" && len(found.Deliveries) == 0 {
			http.Redirect(w, r, "/subscriptions/"+url.PathEscape(found.Subscription), http.StatusSeeOther)
			return "", nil, errAnswered
		}
		if found.Subscription == "" && len(found.Deliveries) == 1 {
			http.Redirect(w, r, "/deliveries/"+url.PathEscape(found.Deliveries[0].DeliveryID), http.StatusSeeOther)
			return "", nil, errAnswered
		}
		return "search", &view{Title: "Search", Query: q, Data: p}, nil
	}).ServeHTTP(w, r)
}
