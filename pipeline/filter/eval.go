package filter

import (
	"errors"
	"strings"
	"sync"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// Result is what a filter says of an event. Everything but ResultTrue means that
// the subscription does not get it.
type Result uint8

// The results.
const (
	ResultTrue      Result = iota
	ResultFalse            // it says no
	ResultError            // a member is missing, or operands do not go together
	ResultNotBool          // it gives something that is neither true nor false
	ResultNotJSON          // it looks into a payload that is not JSON
	ResultOverLimit        // it costs more than MaxCost
)

// Failures are the results of which people should hear.
var Failures = [...]Result{ResultError, ResultNotBool, ResultNotJSON, ResultOverLimit}

// String is the word for metrics and logs.
func (r Result) String() string {
	switch r {
	case ResultTrue:
		return "true"
	case ResultFalse:
		return "false"
	case ResultError:
		return "error"
	case ResultNotBool:
		return "not_boolean"
	case ResultNotJSON:
		return "not_json"
	case ResultOverLimit:
		return "over_limit"
	}
	return "unknown"
}

// Failed tells whether the filter could not say yes or no.
func (r Result) Failed() bool { return r > ResultFalse }

// Evaluation evaluates filters over one event. The payload is read at most once,
// and only when a filter looks into it; a program that several subscriptions
// share runs once. Not safe for concurrent use.
type Evaluation struct {
	ev      *pipeline.Event
	results map[*Program]outcome
	doc     jsonscan.Doc
	scanned bool
	broken  bool // the payload is not JSON
	notJSON bool // and the filter at hand looked into it
	// Of the filter at hand: what it costs, what is left of MaxCost, and the
	// charge for the longest string that a loop's variable has held.
	meter   meter
	left    int
	bound   int
	root    ref.Val
	changes *changes // nil: not asked for yet
	// tables find members of large objects, by the object's offset.
	tables map[int]map[string]jsonscan.Value
	sizes  map[int]int // of large objects and arrays, by offset
}

var evaluations = sync.Pool{New: func() any {
	return &Evaluation{results: map[*Program]outcome{}, tables: map[int]map[string]jsonscan.Value{}, sizes: map[int]int{}}
}}

// Begin starts on an event, which must not change until End.
func Begin(ev *pipeline.Event) *Evaluation {
	e := evaluations.Get().(*Evaluation)
	e.ev = ev
	return e
}

// End lets go of the event. The Evaluation must not be used afterwards.
func (e *Evaluation) End() {
	const keptResults = 1024 // a map that was large once stays large
	if len(e.results) > keptResults {
		e.results = map[*Program]outcome{}
	}
	clear(e.results)
	clear(e.tables)
	clear(e.sizes)
	e.doc.Reset()
	e.ev, e.root, e.changes, e.scanned, e.broken = nil, nil, nil, false, false
	evaluations.Put(e)
}

// outcome is a result with its Why.
type outcome struct {
	Result
	why string
}

// Eval gives p's result for the event. It never panics.
func (e *Evaluation) Eval(p *Program) Result { return e.outcome(p).Result }

// Why says more of p's ResultError: which member is missing, or what does not go
// together. Nothing of what is in the event is in it, only what stands in the
// filter; empty: there is no more to say.
func (e *Evaluation) Why(p *Program) string { return e.outcome(p).why }

func (e *Evaluation) outcome(p *Program) outcome {
	out, ok := e.results[p]
	if !ok {
		r, err := e.run(p)
		out.Result = r
		if r == ResultError {
			out.why = why(p, err.Error())
		}
		e.results[p] = out
	}
	return out
}

// why says in our words what the interpreter says of an error: its own may have
// values of the event.
func why(p *Program, text string) string {
	const noSuchKey = "no such key: "
	if name, ok := strings.CutPrefix(text, noSuchKey); ok && p.members[name] {
		return "the event has no member " + name
	}
	for _, known := range [...][2]string{
		{"no such key", "the event has no such member"},
		{"no such overload", "operands do not go together"},
		{"index out of", "an index is out of range"},
		{"division by zero", "division by zero"},
		{"modulus by zero", "division by zero"},
	} {
		if strings.HasPrefix(text, known[0]) {
			return known[1]
		}
	}
	return ""
}

// run evaluates p; the error is that of ResultError.
func (e *Evaluation) run(p *Program) (Result, error) {
	e.meter, e.left, e.bound, e.notJSON = p.meter, MaxCost-p.meter.weight, 0, false
	out, _, err := p.program.Eval(e)
	switch {
	case err == nil && out == types.True:
		return ResultTrue, nil
	case err == nil && out == types.False:
		return ResultFalse, nil
	case err == nil:
		return ResultNotBool, nil
	case e.notJSON:
		return ResultNotJSON, nil
	}
	if cancelled, ok := errors.AsType[interpreter.EvalCancelledError](err); ok && cancelled.Cause == interpreter.CostLimitExceeded {
		return ResultOverLimit, nil
	}
	return ResultError, err
}

// ResolveName gives the interpreter the value of a declared name.
func (e *Evaluation) ResolveName(name string) (any, bool) {
	switch name {
	case namePayload, nameHookline + ".payload":
		return e.payload(), true
	case nameChanged:
		return e.changed(), true
	case nameHookline + ".type":
		return types.String(e.ev.Type), true
	case nameHookline + ".alias":
		return types.String(e.ev.TypeAlias), true
	case nameHookline + ".tenant":
		return types.String(e.ev.Tenant), true
	case nameHookline + ".entity":
		return types.String(e.ev.Entity), true
	case nameHookline + ".id":
		return types.String(e.ev.ID), true
	case nameHookline + ".format":
		return types.String(e.ev.Format), true
	case nameHookline + ".correlation":
		return types.String(e.ev.Correlation), true
	case nameHookline + ".topic":
		return types.String(e.ev.Source.Topic), true
	case nameHookline + ".resthook":
		return types.String(e.ev.Resthook), true
	case nameHookline + ".time":
		return types.Timestamp{Time: e.ev.Time}, true
	}
	return nil, false
}

// Parent is nil: there is no scope around an event's.
func (e *Evaluation) Parent() interpreter.Activation { return nil }

// scan reads the payload, once.
func (e *Evaluation) scan() bool {
	if !e.scanned {
		e.scanned = true
		e.broken = e.doc.Scan(e.ev.Payload) != nil
	}
	e.notJSON = e.notJSON || e.broken
	return !e.broken
}

func (e *Evaluation) payload() ref.Val {
	if !e.scan() {
		return types.NewErr("the payload is not JSON")
	}
	if e.root == nil {
		e.root = e.value(e.doc.Root())
	}
	return e.root
}

// table finds the members of a large object by name. Making it is charged to the
// filter that needs it first.
func (e *Evaluation) table(v jsonscan.Value) map[string]jsonscan.Value {
	from, _ := v.Span()
	t, ok := e.tables[from]
	if !ok {
		e.charge(v.Len())
		t = make(map[string]jsonscan.Value, v.Len())
		children := v.Children()
		for m := children.Next(); m.Kind() != jsonscan.Missing; m = children.Next() {
			t[string(m.Name())] = m
		}
		e.tables[from] = t
	}
	return t
}

// length is the number of members or elements, counted once where they are many.
func (e *Evaluation) length(v jsonscan.Value) int {
	const many = 64 // bytes of JSON
	from, to := v.Span()
	if to-from < many {
		return v.Len()
	}
	n, ok := e.sizes[from]
	if !ok {
		n = v.Len()
		e.charge(n / 16)
		e.sizes[from] = n
	}
	return n
}
