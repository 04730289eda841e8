// Package filter compiles and evaluates the CEL expressions by which a
// subscription takes only some of the events of its types.
//
// A filter sees the event's payload: its top-level members by their names, and
// all of it as hookline.payload; the event's attributes as hookline.type,
// hookline.tenant and so on; and, for task events, changed.<field>. Any name is
// a member of the payload unless it is one of hookline, changed, or CEL's names
// of types, so that no schema has to be declared.
//
// A filter takes an event where it gives true. It does not where it gives false,
// and neither where it fails: a member that is not there, operands that do not
// go together, a result that is not a boolean, a payload that is not JSON, a cost
// over the limit. Failures are told apart from false (Result).
//
// Costs are bounded where a filter is compiled (length, nodes, an estimate) and
// again where it runs (MaxCost): a filter cannot hold up routing.
package filter

// Limits of a filter.
const (
	// MaxExpressionBytes is the longest text.
	MaxExpressionBytes = 4096
	// MaxNodes is the most that an expression may have after its macros are
	// expanded: names, literals, operators, calls.
	MaxNodes = 500
	// MaxDepth of parentheses, operators and calls within each other.
	MaxDepth = 60
	// MaxCost bounds the estimate of a filter's cost as well as each evaluation.
	// A unit is a step of the interpreter: a member looked up, an operator
	// applied; or 256 bytes of a string looked at.
	MaxCost = 100_000
	// MaxRegexBytes and MaxRegexInstructions bound a regular expression.
	MaxRegexBytes        = 512
	MaxRegexInstructions = 500
	// EstimatedItems and EstimatedBytes are what the estimate takes a list's or
	// object's size and a string's length for. They limit nothing: larger ones
	// are bounded when the filter runs.
	EstimatedItems = 50
	EstimatedBytes = 256
)
