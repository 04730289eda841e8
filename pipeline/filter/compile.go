package filter

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"

	"github.com/hookline/hookline/pipeline"
)

// Program is a compiled filter. Immutable and safe for concurrent use; it can be
// shared by any number of subscriptions.
type Program struct {
	text        string
	program     cel.Program
	meter       meter
	usesChanged bool
	members     map[string]bool // see members
}

// String is the expression as it was written.
func (p *Program) String() string { return p.text }

// Error says what is wrong with an expression, and where in it.
type Error struct {
	Line   int // from 1; 0: the whole expression
	Column int // in characters, from 1
	Why    string
}

// Error gives "line 1, column 6: why".
func (e *Error) Error() string {
	if e.Line == 0 {
		return e.Why
	}
	return "line " + strconv.Itoa(e.Line) + ", column " + strconv.Itoa(e.Column) + ": " + e.Why
}

func at(l common.Location, why string) *Error {
	e := &Error{Why: tidy(why)}
	if l != nil && l.Line() > 0 {
		e.Line, e.Column = l.Line(), l.Column()+1
	}
	return e
}

// tidy keeps the compiler's messages on one short line.
func tidy(why string) string {
	const most = 300 // bytes; the parser lists every token that it would have liked
	why = strings.ReplaceAll(strings.Join(strings.Fields(why), " "), namePayload+".", "")
	if i := strings.Index(why, " expecting {"); i >= 0 {
		why = why[:i]
	}
	why = strings.TrimSuffix(why, " (in container '')")
	if len(why) > most {
		why = strings.ToValidUTF8(why[:most], "") + "..."
	}
	return why
}

// Compile compiles an expression for a subscription of these formats; none: any.
// The error is an *Error. Compile never panics and its time is bounded by the
// limits of this package.
func Compile(expr string, formats []pipeline.Format) (*Program, error) {
	p, err := compile(expr)
	if err != nil {
		return nil, err
	}
	if err := p.check(formats); err != nil {
		return nil, err
	}
	return p, nil
}

// check tells whether the program makes sense for these formats.
func (p *Program) check(formats []pipeline.Format) error {
	if p.usesChanged && len(formats) > 0 && !slices.Contains(formats, pipeline.FormatTask) {
		return &Error{Why: "changed is for events of format task, which the subscription does not take"}
	}
	return nil
}

func compile(expr string) (p *Program, err error) {
	defer func() {
		if r := recover(); r != nil {
			p, err = nil, &Error{Why: "the expression cannot be compiled: " + tidy(fmt.Sprint(r))}
		}
	}()
	switch {
	case strings.TrimSpace(expr) == "":
		return nil, &Error{Why: "the expression is empty"}
	case len(expr) > MaxExpressionBytes:
		return nil, &Error{Why: fmt.Sprintf("%d bytes are over the limit of %d", len(expr), MaxExpressionBytes)}
	case !utf8.ValidString(expr) || strings.ContainsRune(expr, 0):
		return nil, &Error{Why: "it is not UTF-8 text"}
	}
	env, err := language()
	if err != nil {
		return nil, &Error{Why: "preparing the language of filters: " + err.Error()}
	}
	return build(env, expr)
}

func build(env *cel.Env, expr string) (*Program, error) {
	tree, issues := env.Parse(expr)
	if err := first(issues); err != nil {
		return nil, err
	}
	r := newRewriter(tree.NativeRep())
	r.walk(tree.NativeRep().Expr())
	if r.err != nil {
		return nil, r.err
	}
	tree, issues = env.Check(tree)
	if err := first(issues); err != nil {
		return nil, err
	}
	if t := tree.OutputType(); !t.IsExactType(types.BoolType) && t.Kind() != types.DynKind {
		return nil, &Error{Why: "it gives " + t.String() + ", not true or false"}
	}
	m, err := measure(env, tree)
	if err != nil {
		return nil, err
	}
	program, err := env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.OptimizeRegex(patterns("matches"), patterns("matches_string")))
	if err != nil {
		return nil, &Error{Why: tidy(err.Error())}
	}
	return &Program{text: expr, program: program, meter: m, usesChanged: r.usesChanged, members: members(tree.NativeRep().Expr())}, nil
}

// members gives the names of members that a filter asks for. Where it has an index that
// is not constant it gives none: what is missing then may be a value of the event.
func members(e ast.Expr) map[string]bool {
	names, open := map[string]bool{}, false
	ast.PostOrderVisit(e, ast.NewExprVisitor(func(e ast.Expr) {
		switch {
		case e.Kind() == ast.SelectKind:
			names[e.AsSelect().FieldName()] = true
		case e.Kind() == ast.CallKind && (e.AsCall().FunctionName() == operators.Index || e.AsCall().FunctionName() == operators.OptIndex):
			key := e.AsCall().Args()[1]
			if key.Kind() != ast.LiteralKind {
				open = true
			} else if name, ok := key.AsLiteral().Value().(string); ok {
				names[name] = true
			}
		}
	}))
	if open {
		return nil
	}
	return names
}

// first gives the first of the compiler's errors, in the order of the text.
func first(issues *cel.Issues) error {
	if issues.Err() == nil {
		return nil
	}
	errs := issues.Errors()
	if len(errs) == 0 {
		return &Error{Why: tidy(issues.Err().Error())}
	}
	e := slices.MinFunc(errs, func(a, b *cel.Error) int {
		if a.Location.Line() != b.Location.Line() {
			return a.Location.Line() - b.Location.Line()
		}
		return a.Location.Column() - b.Location.Column()
	})
	return at(e.Location, e.Message)
}

// patterns replaces calls of matches by such that have the expression compiled
// and look at the length of the text before they begin.
func patterns(overload string) *interpreter.RegexOptimization {
	return &interpreter.RegexOptimization{
		Function: "matches", OverloadID: overload, RegexIndex: 1,
		Factory: func(call interpreter.InterpretableCall, text string) (interpreter.InterpretableCall, error) {
			re, instructions, err := compileRegex(text)
			if err != nil {
				return nil, err
			}
			args := make([]interpreter.InterpretableV2, len(call.Args()))
			copy(args, call.Args())
			return interpreter.NewCall(call.ID(), call.Function(), call.OverloadID(), args, regexMatch(re, instructions)), nil
		},
	}
}
