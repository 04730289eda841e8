// Package tidy holds the house rules that a machine can check: who may import
// whom, how long functions and files may be, what must be documented, which
// words must not stand in the tree. Its test runs them over the repository; a
// rule that nothing checks decays.
//
// An exception stands in the code, with its reason, on the line that breaks the
// rule or in the comment right above it:
//
//	//tidy:allow <rule> <reason>
//
// An exception without a reason, or one that excuses nothing, is a finding too.
package tidy

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"
)

// Module is the import path of the tree's root.
const Module = "github.com/hookline/hookline"

// Tree is the repository's text: Go sources parsed, other texts as they are.
type Tree struct {
	Files []*File
	fset  *token.FileSet
}

// File is one text of the tree.
type File struct {
	Path string // from the root, with slashes
	Text string
	Go   *ast.File // nil for anything but Go

	allows []*allow
}

// Finding is one place where a rule is broken.
type Finding struct {
	Rule string
	Path string
	Line int // from 1
	Text string
}

// String is path:line: rule: text, as editors read it.
func (f Finding) String() string {
	return fmt.Sprintf("%s:%d: %s: %s", f.Path, f.Line, f.Rule, f.Text)
}

// allow is one exception. It covers its own line, the rest of its comment and
// the line below.
type allow struct {
	rule, reason string
	from, to     int // lines
	used         bool
}

var allowed = regexp.MustCompile(`(?://|#|--|<!--) ?tidy:allow(?: (\S+))?(?: (.*))?$`)

// texts are the endings and names of the files which are read besides Go.
var texts = []string{".sh", ".md", ".yaml", ".yml", ".sql", ".html", ".js", ".css", ".env", ".toml", "Makefile", "Dockerfile", "run"}

// Load reads the tree. Left out: what git ignores, testdata, modules inside.
func Load(fsys fs.FS) (*Tree, error) {
	t := &Tree{fset: token.NewFileSet()}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if leftOut(fsys, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !slices.ContainsFunc(append(texts, ".go"), func(end string) bool { return strings.HasSuffix(name, end) }) {
			return nil
		}
		return t.add(fsys, name)
	})
	if err != nil {
		return nil, fmt.Errorf("loading the tree: %w", err)
	}
	return t, nil
}

func leftOut(fsys fs.FS, dir string) bool {
	if dir == "." {
		return false
	}
	switch path.Base(dir) {
	case ".git", ".cache", "bin", "data", "dist", "testdata", "node_modules":
		return true
	}
	_, err := fs.Stat(fsys, path.Join(dir, "go.mod"))
	return err == nil
}

func (t *Tree) add(fsys fs.FS, name string) error {
	text, err := fs.ReadFile(fsys, name)
	if err != nil {
		return err
	}
	f := &File{Path: name, Text: string(text)}
	if strings.HasSuffix(name, ".go") {
		if f.Go, err = parser.ParseFile(t.fset, name, text, parser.ParseComments); err != nil {
			return err
		}
		t.goAllows(f)
	} else {
		for i, line := range strings.Split(f.Text, "\n") {
			f.allow(line, i+1, i+2)
		}
	}
	t.Files = append(t.Files, f)
	return nil
}

// goAllows reads exceptions from comments only: a string may speak of them.
func (t *Tree) goAllows(f *File) {
	for _, group := range f.Go.Comments {
		for _, c := range group.List {
			if strings.HasPrefix(c.Text, "//tidy:") {
				f.allow(c.Text, t.line(c.Pos()), t.line(group.End())+1)
			}
		}
	}
}

func (f *File) allow(text string, from, to int) {
	if m := allowed.FindStringSubmatch(text); m != nil {
		f.allows = append(f.allows, &allow{rule: m[1], reason: strings.TrimSpace(m[2]), from: from, to: to})
	}
}

func (t *Tree) line(p token.Pos) int { return t.fset.Position(p).Line }

// Test tells whether the file is a Go test.
func (f *File) Test() bool { return strings.HasSuffix(f.Path, "_test.go") }

// Dir is the folder of the file, "." for the root: in Go its package's path.
func (f *File) Dir() string { return path.Dir(f.Path) }

// sources are the Go files that people wrote.
func (t *Tree) sources() []*File {
	return slices.DeleteFunc(slices.Clone(t.Files), func(f *File) bool { return f.Go == nil || ast.IsGenerated(f.Go) })
}

// Check runs the rules and returns what they find, in the order of the files,
// without what the code allows, with exceptions that are void.
func (t *Tree) Check(rules []Rule) []Finding {
	var found []Finding
	known := make(map[string]bool)
	for _, rule := range rules {
		known[rule.Name] = true
		for _, finding := range rule.find(t) {
			finding.Rule = rule.Name
			if !t.excused(finding) {
				found = append(found, finding)
			}
		}
	}
	for _, f := range t.Files {
		for _, a := range f.allows {
			if text := a.void(known); text != "" {
				found = append(found, Finding{"allow", f.Path, a.from, text})
			}
		}
	}
	slices.SortStableFunc(found, func(a, b Finding) int {
		if c := strings.Compare(a.Path, b.Path); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	return found
}

func (t *Tree) excused(finding Finding) bool {
	for _, f := range t.Files {
		if f.Path != finding.Path {
			continue
		}
		for _, a := range f.allows {
			if a.rule == finding.Rule && a.from <= finding.Line && finding.Line <= a.to {
				a.used = true
				return true
			}
		}
	}
	return false
}

// void says what is wrong with an exception, if anything is.
func (a *allow) void(known map[string]bool) string {
	switch {
	case !known[a.rule]:
		return fmt.Sprintf("an exception from %q: no such rule", a.rule)
	case a.reason == "":
		return fmt.Sprintf("an exception from %q gives no reason", a.rule)
	case !a.used:
		return fmt.Sprintf("an exception from %q excuses nothing: take it away", a.rule)
	}
	return ""
}
