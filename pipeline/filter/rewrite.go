package filter

import (
	"fmt"
	"maps"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/overloads"
	"cel.dev/cel-go/common/types"
)

// rewriter turns the payload's members, which are names in the text, into
// selections from the payload, so that one environment serves every filter. On
// its way it refuses what filters do not have.
type rewriter struct {
	info        *ast.SourceInfo
	make        ast.ExprFactory
	id          int64          // the last one used
	bound       map[string]int // variables of the macros around the place
	usesChanged bool
	err         *Error // the first one
}

func newRewriter(tree *ast.AST) *rewriter {
	return &rewriter{info: tree.SourceInfo(), make: ast.NewExprFactory(), id: ast.MaxID(tree), bound: map[string]int{}}
}

func (r *rewriter) fail(id int64, why string, args ...any) {
	if r.err == nil {
		r.err = at(r.info.GetStartLocation(id), fmt.Sprintf(why, args...))
	}
}

func (r *rewriter) walk(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind:
		r.ident(e)
	case ast.SelectKind:
		s := e.AsSelect()
		if s.Operand().Kind() == ast.IdentKind && s.Operand().AsIdent() == nameHookline && r.bound[nameHookline] == 0 {
			r.attribute(s)
			return
		}
		r.walk(s.Operand())
	case ast.CallKind:
		r.call(e.AsCall())
	case ast.ListKind:
		for _, item := range e.AsList().Elements() {
			r.walk(item)
		}
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.walk(entry.AsMapEntry().Key())
			r.walk(entry.AsMapEntry().Value())
		}
	case ast.ComprehensionKind:
		r.comprehension(e.AsComprehension())
	case ast.StructKind:
		r.fail(e.ID(), "messages are not supported")
	case ast.LiteralKind, ast.UnspecifiedExprKind:
	}
}

func (r *rewriter) ident(e ast.Expr) {
	name := e.AsIdent()
	switch {
	case r.bound[name] > 0 || typeNames[name]:
		return
	case name == nameChanged:
		r.usesChanged = true
		return
	case name == nameHookline:
		r.fail(e.ID(), "hookline is not a value: write hookline.type (known: %s)", attributeNames())
		return
	}
	r.id++
	r.info.SetOffsetRange(r.id, offsets(r.info, e.ID()))
	e.SetKindCase(r.make.NewSelect(e.ID(), r.make.NewIdent(r.id, namePayload), strings.TrimPrefix(name, ".")))
}

func offsets(info *ast.SourceInfo, id int64) ast.OffsetRange {
	o, _ := info.GetOffsetRange(id)
	return o
}

func attributeNames() string { return strings.Join(slices.Sorted(maps.Keys(attributes)), ", ") }

// attribute checks hookline.<name>; the variable of that whole name is declared.
func (r *rewriter) attribute(s ast.SelectExpr) {
	if s.IsTestOnly() {
		r.fail(s.Operand().ID(), "every event has hookline.%s: compare it with \"\" instead of has()", s.FieldName())
		return
	}
	if attributes[s.FieldName()] == nil {
		r.fail(s.Operand().ID(), "hookline.%s is not known (known: %s)", s.FieldName(), attributeNames())
	}
}

func (r *rewriter) call(c ast.CallExpr) {
	if c.IsMemberFunction() {
		r.walk(c.Target())
	}
	args := c.Args()
	for _, arg := range args {
		r.walk(arg)
	}
	if c.FunctionName() == overloads.Matches && len(args) > 0 {
		r.pattern(args[len(args)-1])
	}
}

// pattern: a regular expression is written out, so that it is compiled once, and
// its errors are found when the filter is applied.
func (r *rewriter) pattern(e ast.Expr) {
	if e.Kind() != ast.LiteralKind {
		r.fail(e.ID(), "the regular expression of matches must be written out as a string")
		return
	}
	text, ok := e.AsLiteral().(types.String)
	if !ok {
		return // the type checker says so
	}
	if _, _, err := compileRegex(string(text)); err != nil {
		r.fail(e.ID(), "%s", err.Error())
	}
}

// compileRegex compiles an RE2 expression within the limits. The second result
// is its number of instructions.
func compileRegex(text string) (*regexp.Regexp, int, error) {
	if len(text) > MaxRegexBytes {
		return nil, 0, fmt.Errorf("a regular expression of %d bytes is over the limit of %d", len(text), MaxRegexBytes)
	}
	tree, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return nil, 0, fmt.Errorf("not a regular expression (RE2): %s", strings.TrimPrefix(err.Error(), "error parsing regexp: "))
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return nil, 0, fmt.Errorf("not a regular expression (RE2): %w", err)
	}
	if n := len(prog.Inst); n > MaxRegexInstructions {
		return nil, 0, fmt.Errorf("a regular expression of %d instructions is over the limit of %d (counted repetitions multiply)", n, MaxRegexInstructions)
	}
	re, err := regexp.Compile(text)
	if err != nil {
		return nil, 0, fmt.Errorf("not a regular expression (RE2): %w", err)
	}
	return re, len(prog.Inst), nil
}

// loopRange: what a loop goes over is a member or is written out, so that its
// turns are known or are charged.
func (r *rewriter) loopRange(e ast.Expr) {
	switch e.Kind() {
	case ast.IdentKind, ast.SelectKind, ast.ListKind, ast.MapKind:
		return
	case ast.CallKind:
		if e.AsCall().FunctionName() == operators.Index {
			return
		}
	case ast.LiteralKind, ast.ComprehensionKind, ast.StructKind, ast.UnspecifiedExprKind:
	}
	r.fail(e.ID(), "a loop goes over a member of the event or over a list that is written out")
}

// comprehension is what a macro such as exists stands for.
func (r *rewriter) comprehension(c ast.ComprehensionExpr) {
	r.loopRange(c.IterRange())
	r.walk(c.IterRange())
	r.walk(c.AccuInit())
	r.bound[c.AccuVar()]++
	r.bound[c.IterVar()]++
	if c.HasIterVar2() {
		r.bound[c.IterVar2()]++
	}
	r.walk(c.LoopCondition())
	r.walk(c.LoopStep())
	r.bound[c.IterVar()]--
	if c.HasIterVar2() {
		r.bound[c.IterVar2()]--
	}
	r.walk(c.Result())
	r.bound[c.AccuVar()]--
}
