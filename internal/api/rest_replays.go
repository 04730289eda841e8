package api

import (
	"net/http"
	"time"

	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/replay"
)

// selected is the body by which a replay is asked for.
type selected struct {
	Subscription string    `json:"subscription"`
	Event        string    `json:"event"`
	Delivery     string    `json:"delivery"`
	Since        time.Time `json:"since"`
	Until        time.Time `json:"until"`
	Failed       bool      `json:"failed"`
	Missed       bool      `json:"missed"`
	DryRun       bool      `json:"dry_run"`
	Rate         int       `json:"rate"`
}

// MaxRate bounds what a replay enqueues in a second, in events.
const MaxRate = 100_000

func (b *selected) selection() (replay.Selection, error) {
	sel := replay.Selection{
		Subscription: b.Subscription, Event: b.Event, Delivery: b.Delivery, Since: b.Since.UTC(), Until: b.Until.UTC(), Failed: b.Failed, Missed: b.Missed,
	}
	if len(b.Event) > 1024 || len(b.Delivery) > 128 {
		return sel, newProblem(http.StatusUnprocessableEntity, "event or delivery is too long")
	}
	for _, at := range []time.Time{sel.Since, sel.Until} {
		if !at.IsZero() && (at.Year() < firstYear || at.Year() > lastYear) {
			return sel, newProblem(http.StatusUnprocessableEntity, "since or until is not a time such as 2026-01-31T08:00:00Z")
		}
	}
	if b.Rate < 0 || b.Rate > MaxRate {
		return sel, newProblem(http.StatusUnprocessableEntity, "rate is not a number of events per second from 1 to 100000")
	}
	return sel, nil
}

// replays gives what plans and runs them; an error where this process cannot.
func (a *rest) replays() (*Replays, error) { return a.s.Replays() }

func (a *rest) beginReplay(r *http.Request) (any, error) {
	var body selected
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	sel, err := body.selection()
	if err != nil {
		return nil, err
	}
	if sel.Subscription != "" {
		if _, err := a.s.Known(sel.Subscription); err != nil {
			return nil, err
		}
	}
	rs, err := a.replays()
	if err != nil {
		return nil, err
	}
	if body.DryRun {
		plan, err := rs.Count(r.Context(), Actor(r, "api"), sel)
		if err != nil {
			return nil, err
		}
		return struct {
			Plan *wirePlan `json:"plan"`
		}{planToWire(plan)}, nil
	}
	begun, err := rs.Begin(r.Context(), Actor(r, "api"), sel, body.Rate)
	if err != nil {
		return nil, err
	}
	return accepted{replayToWire(begun)}, nil
}

func (a *rest) listReplays(r *http.Request) (any, error) {
	p := query(r, "limit")
	limit := p.number("limit", 1, MaxSubscriptions, 50)
	if p.err != nil {
		return nil, p.err
	}
	rs, err := a.replays()
	if err != nil {
		return nil, err
	}
	all, err := rs.List(r.Context(), limit)
	if err != nil {
		return nil, err
	}
	out := page[wireReplay]{Items: []wireReplay{}}
	for i := range all {
		out.Items = append(out.Items, replayToWire(&all[i]))
	}
	return out, nil
}

func (a *rest) getReplay(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	rs, err := a.replays()
	if err != nil {
		return nil, err
	}
	rep, err := rs.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return replayToWire(rep), nil
}

// accepted is an answer that says 202: what it tells of goes on.
type accepted struct{ body any }

type wireSelection struct {
	Subscription string     `json:"subscription"`
	Event        string     `json:"event"`
	Delivery     string     `json:"delivery"`
	Since        *time.Time `json:"since"`
	Until        *time.Time `json:"until"`
	Failed       bool       `json:"failed"`
	Missed       bool       `json:"missed"`
}

func selectionToWire(s *replay.Selection) wireSelection {
	return wireSelection{s.Subscription, s.Event, s.Delivery, stamp(s.Since), stamp(s.Until), s.Failed, s.Missed}
}

type wirePlan struct {
	Selection  wireSelection `json:"selection"`
	Events     int           `json:"events"`
	Continued  bool          `json:"continued"`
	Before     int           `json:"before"`
	Unmatched  int           `json:"unmatched"`
	Gone       int           `json:"gone"`
	Archived   int           `json:"archived"`
	Incomplete string        `json:"incomplete"`
	First      *time.Time    `json:"first"`
	Last       *time.Time    `json:"last"`
}

func planToWire(p *replay.Plan) *wirePlan {
	if p == nil {
		return nil
	}
	return &wirePlan{
		Selection: selectionToWire(&p.Selection), Events: p.Events, Continued: p.Continued, Before: p.Before, Unmatched: p.Unmatched, Gone: p.Gone,
		Archived: p.Archived, Incomplete: p.Incomplete, First: stamp(p.First), Last: stamp(p.Last),
	}
}

type wireReplay struct {
	ID        string        `json:"id"`
	State     string        `json:"state"`
	Here      bool          `json:"here"`
	Error     string        `json:"error"`
	Actor     string        `json:"actor"`
	Selection wireSelection `json:"selection"`
	BegunAt   time.Time     `json:"begun_at"`
	UpdatedAt *time.Time    `json:"updated_at"`
	Total     int           `json:"total"`
	Events    int           `json:"events"`
	Enqueued  int           `json:"enqueued"`
	Passed    int           `json:"passed"`
	Waiting   int           `json:"waiting"`
	Silent    bool          `json:"silent"`
	Plan      *wirePlan     `json:"plan"`
}

func replayToWire(r *Replay) wireReplay {
	return wireReplay{
		ID: r.ID, State: string(r.State), Here: r.Here, Error: r.Error, Actor: r.Actor, Selection: selectionToWire(&r.Selection),
		BegunAt: r.BegunAt.UTC(), UpdatedAt: stamp(r.UpdatedAt), Total: r.Total, Events: r.Events, Enqueued: r.Enqueued, Passed: r.Passed,
		Waiting: r.Waiting.Deliveries, Silent: r.Waiting.Silent, Plan: planToWire(r.Plan),
	}
}

type wireCatchUp struct {
	Subscription string          `json:"subscription"`
	State        string          `json:"state"` // running, done or interrupted
	Error        string          `json:"error"`
	Actor        string          `json:"actor"`
	BegunAt      time.Time       `json:"begun_at"`
	EndedAt      *time.Time      `json:"ended_at"`
	Enqueued     int             `json:"enqueued"`
	Waiting      int             `json:"waiting"`
	Silent       bool            `json:"silent"`
	Result       *control.Result `json:"result"`
}

func catchUpToWire(c *CatchUp) wireCatchUp {
	state := "running"
	switch {
	case c.Error != "":
		state = "interrupted"
	case !c.EndedAt.IsZero():
		state = "done"
	}
	return wireCatchUp{
		Subscription: c.Subscription, State: state, Error: c.Error, Actor: c.Actor, BegunAt: c.BegunAt, EndedAt: stamp(c.EndedAt),
		Enqueued: c.Enqueued, Waiting: c.Waiting.Deliveries, Silent: c.Waiting.Silent, Result: c.Result,
	}
}
