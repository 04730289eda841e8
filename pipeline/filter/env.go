package filter

import (
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
)

// Names that are not members of the payload.
const (
	nameHookline = "hookline"
	nameChanged  = "changed"
	// namePayload stands for the payload. Nobody can write it: names have no @.
	namePayload = "@payload"
)

// attributes are the fields of hookline, and their types.
var attributes = map[string]*cel.Type{
	"type": cel.StringType, "alias": cel.StringType, "tenant": cel.StringType, "entity": cel.StringType, "id": cel.StringType,
	"format": cel.StringType, "correlation": cel.StringType, "topic": cel.StringType, "resthook": cel.StringType,
	"time": cel.TimestampType, "payload": cel.DynType,
}

// typeNames are CEL's names of types; they are not members of the payload.
// "type" is missing on purpose: real events have a member of that name.
var typeNames = map[string]bool{
	"bool": true, "int": true, "uint": true, "double": true, "string": true, "list": true, "map": true, "null_type": true,
}

// functions are what filters may call: no function that reads anything but its
// arguments (time zones are files), and none that makes bytes.
func functions() []*env.Function {
	var fs []*env.Function
	for _, name := range []string{
		operators.Conditional, operators.LogicalAnd, operators.LogicalOr, operators.LogicalNot, operators.NotStrictlyFalse,
		operators.Equals, operators.NotEquals, operators.Less, operators.LessEquals, operators.Greater, operators.GreaterEquals,
		operators.Add, operators.Subtract, operators.Multiply, operators.Divide, operators.Modulo, operators.Negate,
		operators.Index, operators.In,
		overloads.Size, overloads.Contains, overloads.StartsWith, overloads.EndsWith, overloads.Matches,
		overloads.TypeConvertInt, overloads.TypeConvertUint, overloads.TypeConvertDouble, overloads.TypeConvertBool,
		overloads.TypeConvertString, overloads.TypeConvertTimestamp, overloads.TypeConvertDuration,
		overloads.TypeConvertType, overloads.TypeConvertDyn,
	} {
		fs = append(fs, &env.Function{Name: name})
	}
	for name, ids := range map[string][]string{
		overloads.TimeGetFullYear:     {overloads.TimestampToYear},
		overloads.TimeGetMonth:        {overloads.TimestampToMonth},
		overloads.TimeGetDayOfYear:    {overloads.TimestampToDayOfYear},
		overloads.TimeGetDate:         {overloads.TimestampToDayOfMonthOneBased},
		overloads.TimeGetDayOfMonth:   {overloads.TimestampToDayOfMonthZeroBased},
		overloads.TimeGetDayOfWeek:    {overloads.TimestampToDayOfWeek},
		overloads.TimeGetHours:        {overloads.TimestampToHours, overloads.DurationToHours},
		overloads.TimeGetMinutes:      {overloads.TimestampToMinutes, overloads.DurationToMinutes},
		overloads.TimeGetSeconds:      {overloads.TimestampToSeconds, overloads.DurationToSeconds},
		overloads.TimeGetMilliseconds: {overloads.TimestampToMilliseconds, overloads.DurationToMilliseconds},
	} {
		f := &env.Function{Name: name}
		for _, id := range ids {
			f.Overloads = append(f.Overloads, &env.Overload{ID: id})
		}
		fs = append(fs, f)
	}
	return fs
}

// language is the environment of every filter: made once, never changed. One for
// all, since an environment takes far more memory than a program.
var language = sync.OnceValues(func() (*cel.Env, error) {
	subset := &env.LibrarySubset{
		IncludeFunctions: functions(),
		// What visits elements without making new lists.
		IncludeMacros: []string{operators.Has, operators.All, operators.Exists, operators.ExistsOne},
	}
	opts := []cel.EnvOption{
		cel.StdLib(cel.StdLibSubset(subset)),
		cel.Variable(namePayload, cel.DynType),
		cel.Variable(nameChanged, cel.MapType(cel.StringType, cel.BoolType)),
		cel.ParserExpressionSizeLimit(MaxExpressionBytes),
		cel.ParserRecursionLimit(MaxDepth),
		cel.ParserErrorRecoveryLimit(4),
		cel.ExpressionNodeLimit(MaxNodes),
		cel.CrossTypeNumericComparisons(true),
		cel.EnableIdentifierEscapeSyntax(),
		cel.DefaultUTCTimeZone(true),
		cel.EnableHiddenAccumulatorName(true),
	}
	for name, t := range attributes {
		opts = append(opts, cel.Variable(nameHookline+"."+name, t))
	}
	return cel.NewCustomEnv(opts...)
})
