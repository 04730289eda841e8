package filter

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"
)

// What a unit of cost buys.
const (
	bytesPerUnit        = 256 // of a string that is copied, counted, compared or searched
	regexPerUnit        = 32  // steps of a regular expression: bytes times instructions
	regexFunctionPrefix = "matches/"
)

// estimates tells the compiler's cost estimator what it cannot know.
type estimates struct{}

// EstimateSize is for what comes from the event.
func (estimates) EstimateSize(n checker.AstNode) *checker.SizeEstimate {
	if n.Type().Kind() == types.StringKind {
		return &checker.SizeEstimate{Max: EstimatedBytes}
	}
	return &checker.SizeEstimate{Max: EstimatedItems}
}

// EstimateCallCost agrees with costs.CallCost.
func (estimates) EstimateCallCost(function, _ string, _ *checker.AstNode, args []checker.AstNode) *checker.CallEstimate {
	estimate := checker.CallEstimate{CostEstimate: checker.CostEstimate{Min: 1, Max: 2}}
	if function != overloads.Matches || len(args) == 0 {
		return &estimate
	}
	if pattern := args[len(args)-1].Expr(); pattern.Kind() == ast.LiteralKind {
		if text, ok := pattern.AsLiteral().(types.String); ok {
			if _, instructions, err := compileRegex(string(text)); err == nil {
				estimate.Max = regexCost(EstimatedBytes, instructions)
			}
		}
	}
	return &estimate
}

func checkCost(env *cel.Env, tree *cel.Ast) error {
	estimate, err := env.EstimateCost(tree, estimates{})
	if err != nil {
		return &Error{Why: "estimating the cost: " + tidy(err.Error())}
	}
	if estimate.Max > MaxCost {
		return &Error{Why: fmt.Sprintf(
			"its cost of up to %d is over the limit of %d, for lists of %d and strings of %d bytes (loops within loops multiply)",
			estimate.Max, MaxCost, EstimatedItems, EstimatedBytes)}
	}
	return nil
}

// costs charges each call while a filter runs. CEL's own table knows functions by
// their typed overloads, which are not known for values from JSON.
type costs struct{}

// CallCost is called after each call.
func (costs) CallCost(function, _ string, args []ref.Val, _ ref.Val) *uint64 {
	cost := uint64(1)
	bytes := 0
	for _, arg := range args {
		if s, ok := arg.(types.String); ok {
			bytes += len(s)
		}
	}
	if n, ok := strings.CutPrefix(function, regexFunctionPrefix); ok {
		instructions, _ := strconv.Atoi(n)
		cost = regexCost(bytes, instructions)
	}
	cost += uint64(bytes) / bytesPerUnit
	return &cost
}

func regexCost(bytes, instructions int) uint64 {
	return 1 + uint64(bytes)*uint64(instructions)/regexPerUnit
}

// regexFunction names a call of matches so that CallCost knows its expression.
func regexFunction(instructions int) string {
	return regexFunctionPrefix + strconv.Itoa(instructions)
}

// regexMatch refuses a text that would take too long before it begins: what is
// charged afterwards stops no call.
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
