package console

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/pipeline/replay"
)

// replayForm is the page on which a replay is chosen, counted and begun.
type replayForm struct {
	Subscription, Delivery string
	Since, Until           string // as they were written
	Failed                 bool
	Problem                string // with what was written
	Plan                   *replay.Plan
	// Counted is what the button begins: the times that Plan was made of, so that
	// what is delivered is what was counted.
	Counted url.Values
}

// N is how many events the button delivers again.
func (f *replayForm) N() int { return f.Plan.Events - f.Plan.Before }

// errMayNot is told to who may look and not act.
var errMayNot = errors.New("this needs a token with the scope write: log in")

func (c *console) replayForm(r *http.Request) (string, *view, error) {
	if access.Of(r.Context()).Scope < access.Write {
		return "", nil, errMayNot
	}
	id := r.PathValue("id")
	if _, err := c.Service.Known(id); err != nil {
		return "", nil, err
	}
	if _, err := c.Service.Replays(); err != nil {
		return "", nil, err
	}
	return "replay", &view{Title: "Replay", Nav: "subscriptions", Data: &replayForm{Subscription: id, Since: "1h"}}, nil
}

// beginReplay counts what a form selects and shows it, or begins what was
// counted.
func (c *console) beginReplay(w http.ResponseWriter, r *http.Request) {
	if access.Of(r.Context()).Scope < access.Write {
		c.fail(w, r, errMayNot)
		return
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	f := &replayForm{
		Subscription: r.PostFormValue("subscription"), Delivery: r.PostFormValue("delivery"), Since: r.PostFormValue("since"),
		Until: r.PostFormValue("until"), Failed: r.PostFormValue("failed") != "",
	}
	rs, err := c.Service.Replays()
	if err == nil {
		_, err = c.Service.Known(f.Subscription)
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	sel, err := f.selection(c.Service.Now())
	who := api.Actor(r, "console")
	switch action := r.PostFormValue("action"); {
	case err != nil:
	case action == "count":
		if f.Plan, err = rs.Count(r.Context(), who, sel); err == nil {
			f.Counted = counted(&sel)
		}
	case action == "begin":
		var begun *api.Replay
		if begun, err = rs.Begin(r.Context(), who, sel, 0); err == nil {
			http.Redirect(w, r, "/replays/"+url.PathEscape(begun.ID), http.StatusSeeOther)
			return
		}
	default:
		err = badRequest{fmt.Errorf("%.40q is no action", action)}
	}
	if bad, ok := errors.AsType[badRequest](err); ok && f.Delivery != "" {
		c.fail(w, r, bad)
		return
	}
	status := http.StatusOK
	if err != nil {
		f.Problem, status = err.Error(), http.StatusUnprocessableEntity
	}
	c.render(w, r, status, "replay", &view{Title: "Replay", Nav: "subscriptions", Data: f})
}

// selection is what the form selects. A time that has no end ends now: what is
// counted is what will be delivered.
func (f *replayForm) selection(now time.Time) (replay.Selection, error) {
	sel := replay.Selection{Subscription: f.Subscription, Delivery: f.Delivery}
	if f.Delivery != "" {
		if len(f.Delivery) > api.MaxSearch {
			return sel, badRequest{errors.New("the delivery's id is too long")}
		}
		return sel, nil
	}
	sel.Failed = f.Failed
	var err error
	if sel.Since, err = moment("since", f.Since, now); err != nil {
		return sel, err
	}
	sel.Until = now.UTC().Truncate(time.Millisecond)
	if f.Until != "" {
		sel.Until, err = moment("until", f.Until, now)
	}
	return sel, err
}

// moment reads a time, or how long ago it was.
func moment(name, s string, now time.Time) (time.Time, error) {
	s = strings.TrimSpace(s)
	if at, err := time.Parse(time.RFC3339, s); err == nil && at.Year() >= 1970 && at.Year() < 2200 {
		return at.UTC(), nil
	}
	text := s
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n > 0 && n < 3650 {
			text = strconv.Itoa(24*n) + "h"
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago > 0 {
		return now.Add(-ago).UTC().Truncate(time.Millisecond), nil
	}
	return time.Time{}, badRequest{fmt.Errorf("%s: %.40q is neither a time such as 1h or 7d nor a moment such as 2026-01-31T08:00:00Z", name, s)}
}

// counted are a form's fields that select just that.
func counted(sel *replay.Selection) url.Values {
	v := url.Values{"subscription": {sel.Subscription}}
	if sel.Delivery != "" {
		v.Set("delivery", sel.Delivery)
		return v
	}
	v.Set("since", sel.Since.Format(time.RFC3339Nano))
	v.Set("until", sel.Until.Format(time.RFC3339Nano))
	if sel.Failed {
		v.Set("failed", "on")
	}
	return v
}

// continueReplay goes on with a replay that was interrupted.
func (c *console) continueReplay(w http.ResponseWriter, r *http.Request) {
	if access.Of(r.Context()).Scope < access.Write {
		c.fail(w, r, errMayNot)
		return
	}
	rs, err := c.Service.Replays()
	if err != nil {
		c.fail(w, r, err)
		return
	}
	rep, err := rs.Get(r.Context(), r.PathValue("id"))
	if err == nil && !canContinue(rep) {
		err = badRequest{errors.New("this replay is under way or through, or belongs to a resume: there is nothing to go on with")}
	}
	if err == nil {
		rep, err = rs.Begin(r.Context(), api.Actor(r, "console"), rep.Selection, 0)
	}
	if err != nil {
		c.fail(w, r, err)
		return
	}
	http.Redirect(w, r, "/replays/"+url.PathEscape(rep.ID), http.StatusSeeOther)
}

// canContinue tells whether a replay is not through, and no other process is
// known to run it. Where one does, it loses the replay to this one, and nothing
// is enqueued twice.
func canContinue(rep *api.Replay) bool {
	return rep.State == replay.StateRunning && !rep.Here && !rep.Selection.CatchUp
}

// replayRow is one replay on a page.
type replayRow struct {
	api.Replay
	State, Class string
	CanContinue  bool
}

func newReplayRow(rep *api.Replay) replayRow {
	row := replayRow{Replay: *rep, State: string(rep.State)}
	switch {
	case rep.Error != "":
		row.State, row.Class = "interrupted", "bad"
	case rep.State == replay.StateDone:
		row.Class = "ok"
	case rep.Waiting.Deliveries > 0 || rep.Waiting.Silent:
		row.State, row.Class = "waiting", "warn"
	}
	return row
}

// What says what a replay selects.
func (r *replayRow) What() string {
	s, text := &r.Selection, ""
	switch {
	case s.Delivery != "":
		return "delivery " + s.Delivery
	case s.Event != "":
		return "event " + s.Event
	case s.CatchUp:
		return "what was missed, before live deliveries"
	case s.Missed:
		text = "what was missed"
	case s.Failed:
		text = "what failed"
	default:
		text = "all"
	}
	if !s.Since.IsZero() {
		text += " since " + s.Since.UTC().Format("2006-01-02 15:04:05")
	}
	if !s.Until.IsZero() {
		text += " until " + s.Until.UTC().Format("2006-01-02 15:04:05")
	}
	return text
}

type replaysPage struct{ Rows []replayRow }

func (c *console) replays(r *http.Request) (string, *view, error) {
	rs, err := c.Service.Replays()
	if err != nil {
		return "", nil, err
	}
	all, err := rs.List(r.Context(), pageRows)
	if err != nil {
		return "", nil, err
	}
	p := &replaysPage{}
	for i := range all {
		p.Rows = append(p.Rows, newReplayRow(&all[i]))
	}
	return "replays", &view{Title: "Replays", Nav: "replays", Refresh: refreshEvery, Data: p}, nil
}

func (c *console) replay(r *http.Request) (string, *view, error) {
	rs, err := c.Service.Replays()
	if err != nil {
		return "", nil, err
	}
	rep, err := rs.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return "", nil, err
	}
	row := newReplayRow(rep)
	row.CanContinue = access.Of(r.Context()).Scope >= access.Write && canContinue(rep)
	refresh := 0
	if rep.State == replay.StateRunning && rep.Error == "" {
		refresh = 2
	}
	return "replayed", &view{Title: "Replay " + short(rep.ID), Nav: "replays", Refresh: refresh, Data: &row}, nil
}
