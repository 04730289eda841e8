package tidy

import (
	"fmt"
	"go/ast"
	"path"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxFunc = 70  // lines, from "func" to the closing brace
	maxFile = 800 // lines
)

// Rule is one house rule: its name, as exceptions say it, and who checks it.
type Rule struct {
	Name string
	find func(*Tree) []Finding
}

// Rules returns all rules.
func Rules() []Rule {
	return []Rule{
		{"imports", findImports},
		{"static", findStatic},
		{"func-lines", findLongFuncs},
		{"file-lines", findLongFiles},
		{"doc", findUndocumented},
		{"package-name", findPackageNames},
		{"words", findWords},
		{"env", findEnv},
	}
}

func findLongFuncs(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.sources() {
		for _, d := range f.Go.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			from := t.line(fn.Pos())
			if n := t.line(fn.End()) - from + 1; n > maxFunc {
				found = append(found, Finding{Path: f.Path, Line: from, Text: fmt.Sprintf("%s has %d lines, at most %d", fn.Name.Name, n, maxFunc)})
			}
		}
	}
	return found
}

func findLongFiles(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.sources() {
		if n := strings.Count(f.Text, "\n"); n > maxFile {
			found = append(found, Finding{Path: f.Path, Line: t.line(f.Go.Package), Text: fmt.Sprintf("%d lines, at most %d", n, maxFile)})
		}
	}
	return found
}

// plain are methods whose name says all: those of interfaces everybody knows.
var plain = []string{"Error", "String", "Unwrap", "Is", "As", "Len", "Less", "Swap"}

func findUndocumented(t *Tree) []Finding {
	var found []Finding
	packages := make(map[string]*File) // a file of each package without a package comment; nil: it has one
	for _, f := range t.sources() {
		if f.Test() || f.Go.Name.Name == "main" {
			continue
		}
		if _, seen := packages[f.Dir()]; f.Go.Doc.Text() != "" {
			packages[f.Dir()] = nil
		} else if !seen {
			packages[f.Dir()] = f
		}
		for _, d := range f.Go.Decls {
			for _, id := range undocumented(d) {
				found = append(found, Finding{Path: f.Path, Line: t.line(id.Pos()), Text: id.Name + " is exported and has no comment"})
			}
		}
	}
	for dir, f := range packages {
		if f != nil {
			found = append(found, Finding{Path: f.Path, Line: t.line(f.Go.Package), Text: "package " + dir + " has no comment"})
		}
	}
	return found
}

// undocumented returns the exported names of a declaration that no comment is
// about. One above a group counts for all in it; directives are no comment.
func undocumented(d ast.Decl) []*ast.Ident {
	switch d := d.(type) {
	case *ast.FuncDecl:
		method := d.Recv != nil
		if d.Doc.Text() != "" || !d.Name.IsExported() || method && (!ast.IsExported(receiver(d)) || slices.Contains(plain, d.Name.Name)) {
			return nil
		}
		return []*ast.Ident{d.Name}
	case *ast.GenDecl:
		if d.Doc.Text() != "" {
			return nil
		}
		var names []*ast.Ident
		for _, spec := range d.Specs {
			switch s := spec.(type) {
			case *ast.TypeSpec:
				if s.Doc.Text() == "" && s.Comment.Text() == "" {
					names = append(names, s.Name)
				}
			case *ast.ValueSpec:
				if s.Doc.Text() == "" && s.Comment.Text() == "" {
					names = append(names, s.Names...)
				}
			}
		}
		return slices.DeleteFunc(names, func(id *ast.Ident) bool { return !id.IsExported() })
	}
	return nil
}

// receiver is the name of a method's type.
func receiver(d *ast.FuncDecl) string {
	expr := d.Recv.List[0].Type
	for {
		switch e := expr.(type) {
		case *ast.StarExpr:
			expr = e.X
		case *ast.IndexExpr:
			expr = e.X
		case *ast.IndexListExpr:
			expr = e.X
		case *ast.Ident:
			return e.Name
		default:
			return ""
		}
	}
}

// vague are package names that say nothing about what is inside.
var vague = []string{"util", "utils", "common", "types", "models", "helper", "helpers", "misc", "shared"}

func findPackageNames(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.sources() {
		name := strings.TrimSuffix(f.Go.Name.Name, "_test")
		for _, n := range []string{name, path.Base(f.Dir())} {
			if slices.Contains(vague, n) {
				found = append(found, Finding{Path: f.Path, Line: t.line(f.Go.Package), Text: fmt.Sprintf("package name %q says nothing: name what it provides", n)})
				break
			}
		}
	}
	return found
}

// The words are put together, so that this file does not hold them.
var words = []struct {
	re  *regexp.Regexp
	why string
}{
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|X` + `XX)\b`), "do it, or say as a limit in the documents that it is not done"},
	{regexp.MustCompile(`(^|[^\w./~$}-])/(wor` + `k|roo` + `t|User` + `s)/`), "a path of one machine"},
}

func findWords(t *Tree) []Finding {
	var found []Finding
	for _, f := range t.Files {
		line := 0
		for text := range strings.Lines(f.Text) {
			line++
			for _, w := range words {
				if m := w.re.FindString(text); m != "" {
					found = append(found, Finding{Path: f.Path, Line: line, Text: fmt.Sprintf("%q: %s", strings.TrimSpace(m), w.why)})
				}
			}
		}
	}
	return found
}

const (
	exampleEnv = "configs/example.env"
	testPrefix = "HOOKLINE_TEST_" // where tests find things: not for users
)

var (
	envLine = regexp.MustCompile(`(?m)^#? ?(HOOKLINE_[A-Z0-9_]+)=`)
	envName = regexp.MustCompile(`^HOOKLINE_[A-Z0-9_]+$`)
	envWord = regexp.MustCompile(`\bHOOKLINE_[A-Z0-9_]+`)
)

// findEnv looks for variables that nobody is told of. Fields with an env tag
// must stand in the example of the configuration; a nested Config does not know
// its prefix, so a tag may be the end of a name. Names in the code itself must
// stand there or in a document.
func findEnv(t *Tree) []Finding {
	example, told := make(map[string]bool), make(map[string]bool)
	for _, f := range t.Files {
		if f.Path == exampleEnv {
			for _, m := range envLine.FindAllStringSubmatch(f.Text, -1) {
				example[m[1]], told[m[1]] = true, true
			}
		} else if strings.HasSuffix(f.Path, ".md") {
			for _, name := range envWord.FindAllString(f.Text, -1) {
				told[name] = true
			}
		}
	}
	inExample := func(tag string) bool {
		for full := range example {
			if strings.HasSuffix(full, "_"+tag) {
				return true
			}
		}
		return false
	}
	var found []Finding
	for _, f := range t.sources() {
		if f.Test() {
			continue
		}
		ast.Inspect(f.Go, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				if tag := envTag(n); tag != "" && !inExample(tag) {
					found = append(found, Finding{Path: f.Path, Line: t.line(n.Pos()), Text: tag + " is not in " + exampleEnv})
				}
			case *ast.BasicLit:
				name, err := strconv.Unquote(n.Value)
				if err == nil && envName.MatchString(name) && !strings.HasPrefix(name, testPrefix) && !told[name] {
					found = append(found, Finding{Path: f.Path, Line: t.line(n.Pos()), Text: name + " is neither in " + exampleEnv + " nor in a document"})
				}
			}
			return true
		})
	}
	return found
}

// envTag returns the name in a field's env tag, "" if there is none.
func envTag(field *ast.Field) string {
	if field.Tag == nil {
		return ""
	}
	tag, err := strconv.Unquote(field.Tag.Value)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("env"), ",")
	return name
}
