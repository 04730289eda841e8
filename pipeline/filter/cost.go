package filter

import (
	"fmt"
	"regexp"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// CEL's own tracker of actual costs is not used: what loops leave on its stack
// is searched again in each turn, so that its time grows with the square of the
// turns (100,000 units took more than a second), and it takes functions of values
// whose types are not known before for free. Costs are counted here instead,
// where a filter touches the payload:
//
//   - weight is what one pass through the expression costs at most, every loop
//     over the payload taken once. It is charged at the start and for each
//     member or element that a loop visits. So no more steps are made than units
//     are paid.
//   - A string is charged by its length, times what the expression may do with
//     each byte (perBlock), each time it is taken from the payload. One that a
//     loop's variable holds is used without being taken again: the longest of
//     them makes every further turn dearer (Evaluation.bound).
//   - Comparing objects and arrays, searching them, and finding members of large
//     ones is charged by element.

// What a unit of cost buys.
const (
	bytesPerUnit = 256 // of a string that is copied, counted, compared or searched
	regexPerUnit = 32  // steps of a regular expression: bytes times instructions
	searching    = 4   // times bytesPerUnit: contains, at its worst
)

// meter is what a program costs.
type meter struct {
	weight int // units for one pass
	// perBlock is the units for bytesPerUnit bytes of a string.
	perBlock int
	// holds says that a loop goes over a list that is written out with members
	// of the payload in it, so that its variable may hold any string.
	holds bool
}

// estimates tells the compiler's cost estimator what it cannot know.
type estimates struct{ items, bytes uint64 }

// EstimateSize is for what comes from the event.
func (s estimates) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	if n.Type().Kind() == types.StringKind {
		return &checker.SizeEstimate{Max: s.bytes}
	}
	return &checker.SizeEstimate{Max: s.items}
}

// EstimateCallCost is per call, its operands apart.
func (s estimates) EstimateCallCost(function, _ string, _ *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	estimate := checker.CallEstimate{CostEstimate: checker.CostEstimate{Min: 1, Max: 1}}
	if function == overloads.Matches && len(args) > 0 {
		estimate.Max += regexCost(int(s.bytes), instructionsOf(args[len(args)-1].Expr()))
	}
	return &estimate
}

// instructionsOf gives the size of a pattern; 0 for what is none.
func instructionsOf(pattern ast.Expr) int {
	if pattern.Kind() != ast.LiteralKind {
		return 0
	}
	text, ok := pattern.AsLiteral().(types.String)
	if !ok {
		return 0
	}
	_, n, err := compileRegex(string(text))
	if err != nil {
		return 0
	}
	return n
}

// measure estimates the cost and refuses what is over the limit.
func measure(env *cel.Env, tree *cel.Ast) (meter, error) {
	usual, err := env.EstimateCost(tree, estimates{EstimatedItems, EstimatedBytes})
	if err != nil {
		return meter{}, &Error{Why: "estimating the cost: " + tidy(err.Error())}
	}
	if usual.Max > MaxCost {
		return meter{}, &Error{Why: fmt.Sprintf(
			"its cost of up to %d is over the limit of %d, for lists of %d and strings of %d bytes (loops within loops multiply)",
			usual.Max, MaxCost, EstimatedItems, EstimatedBytes)}
	}
	once, err := env.EstimateCost(tree, estimates{1, 1})
	if err != nil {
		return meter{}, &Error{Why: "estimating the cost: " + tidy(err.Error())}
	}
	m := meter{weight: int(max(once.Max, 1)), perBlock: 1}
	ast.PostOrderVisit(tree.NativeRep().Expr(), ast.NewExprVisitor(m.visit))
	return m, nil
}

func (m *meter) visit(e ast.Expr) {
	if e.Kind() == ast.ComprehensionKind {
		if r := e.AsComprehension().IterRange(); !fromPayload(r) && !constant(r) {
			m.holds = true
		}
	}
	if e.Kind() != ast.CallKind {
		return
	}
	c := e.AsCall()
	switch c.FunctionName() {
	case operators.Add: // what was added is copied again by the next one
		m.perBlock++
	case overloads.Contains:
		m.perBlock += searching
	case overloads.Matches:
		m.perBlock += instructionsOf(c.Args()[len(c.Args())-1]) * bytesPerUnit / regexPerUnit
	}
}

// fromPayload tells whether a loop's range is a member of the payload or of a
// loop's variable: whatever goes over that is charged in the iterator.
func fromPayload(e ast.Expr) bool {
	for e.Kind() == ast.SelectKind {
		e = e.AsSelect().Operand()
	}
	return e.Kind() == ast.IdentKind
}

// constant tells whether a list is written out in literals.
func constant(e ast.Expr) bool {
	if e.Kind() != ast.ListKind {
		return e.Kind() == ast.LiteralKind
	}
	for _, item := range e.AsList().Elements() {
		if !constant(item) {
			return false
		}
	}
	return true
}

func regexCost(bytes, instructions int) uint64 {
	return 1 + uint64(bytes)*uint64(instructions)/regexPerUnit
}

// regexMatch refuses a text that would take too long before it begins.
func regexMatch(re *regexp.Regexp, instructions int) func(...ref.Val) ref.Val {
	return func(args ...ref.Val) ref.Val {
		if len(args) != 2 {
			return types.NoSuchOverloadErr()
		}
		s, ok := args[0].(types.String)
		if !ok {
			return types.MaybeNoSuchOverloadErr(args[0])
		}
		if regexCost(len(s), instructions) > MaxCost {
			overLimit()
		}
		return types.Bool(re.MatchString(string(s)))
	}
}

// overLimit ends the evaluation; the interpreter makes an error of it.
func overLimit() {
	panic(interpreter.EvalCancelledError{Cause: interpreter.CostLimitExceeded, Message: "the filter's cost is over its limit"})
}

// charge takes n units of what is left to the filter at hand.
func (e *Evaluation) charge(n int) {
	if e.left -= n; e.left < 0 {
		overLimit()
	}
}

// chargeText is for n bytes of the payload; held: a loop's variable holds them.
func (e *Evaluation) chargeText(n int, held bool) {
	units := n * e.meter.perBlock / bytesPerUnit
	if units == 0 {
		return
	}
	e.charge(units)
	if (held || e.meter.holds) && units > e.bound {
		e.bound = units
		e.charge(units * e.meter.weight)
	}
}

// chargeTurn is for one turn of a loop.
func (e *Evaluation) chargeTurn() { e.charge(e.meter.weight * (1 + e.bound)) }
