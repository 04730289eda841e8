package match

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
)

// Observer hears of filters that could say neither yes nor no. The subscription
// does not get the event then. Called from Match and IDs, so it must be quick, and
// safe for as many goroutines as call them.
type Observer interface {
	// FilterFailed is called once for each subscription and event; r is one of
	// filter.Failures, why says more of it where there is more to say.
	FilterFailed(sub *pipeline.Subscription, ev *pipeline.Event, r filter.Result, why string)
}

// program is the compiled filter of a subscription, which the registry attaches.
func program(s *pipeline.Subscription) *filter.Program {
	p, _ := s.Extra.(*filter.Program)
	return p
}

// applyFilters takes those out of list whose filters do not want ev.
func applyFilters(ev *pipeline.Event, list []*candidate, o Observer) []*candidate {
	for i := range list {
		if list[i].filtered {
			return evaluate(ev, list, i, o)
		}
	}
	return list
}

// evaluate looks at the filters in list[from:].
func evaluate(ev *pipeline.Event, list []*candidate, from int, o Observer) []*candidate {
	e := filter.Begin(ev)
	defer e.End()
	kept := list[:from]
	for _, c := range list[from:] {
		if !c.filtered {
			kept = append(kept, c)
			continue
		}
		r, p := filter.ResultError, program(c.sub) // a filter that nobody compiled lets nothing through
		if p != nil {
			r = e.Eval(p)
		}
		switch {
		case r == filter.ResultTrue:
			kept = append(kept, c)
		case r.Failed() && o != nil:
			why := ""
			if p != nil {
				why = e.Why(p)
			}
			o.FilterFailed(c.sub, ev, r, why)
		}
	}
	return kept
}
