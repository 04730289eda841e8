package match

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
)

// Observer hears of filters that could say neither yes nor no. The subscription
// does not get the event then. Called from Match, so it must be quick, and safe
// for as many goroutines as call Match.
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

// applyFilters takes those out of dst[from:] whose filters do not want ev.
func (x *Index) applyFilters(ev *pipeline.Event, dst []*pipeline.Subscription, from int, o Observer) []*pipeline.Subscription {
	for i := from; i < len(dst); i++ {
		if dst[i].Filter != "" {
			return evaluate(ev, dst, i, o)
		}
	}
	return dst
}

// evaluate looks at the filters in dst[from:].
func evaluate(ev *pipeline.Event, dst []*pipeline.Subscription, from int, o Observer) []*pipeline.Subscription {
	e := filter.Begin(ev)
	defer e.End()
	kept := dst[:from]
	for _, s := range dst[from:] {
		if s.Filter == "" {
			kept = append(kept, s)
			continue
		}
		r, p := filter.ResultError, program(s) // a filter that nobody compiled lets nothing through
		if p != nil {
			r = e.Eval(p)
		}
		switch {
		case r == filter.ResultTrue:
			kept = append(kept, s)
		case r.Failed() && o != nil:
			why := ""
			if p != nil {
				why = e.Why(p)
			}
			o.FilterFailed(s, ev, r, why)
		}
	}
	clear(dst[len(kept):])
	return kept
}
