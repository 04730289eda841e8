// Package doctest reads the documentation for the tests that hold it to what it
// says: links and anchors exist, examples are the files that were run, SQL and
// shell commands do what is shown.
package doctest

import (
	"bytes"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"unicode"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/ast"
	"github.com/yuin/goldmark/extension"
	"github.com/yuin/goldmark/text"
)

// Page is one Markdown file.
type Page struct {
	Path    string // from the root, with slashes
	Title   string // its first heading
	Blocks  []Block
	Links   []Link
	Anchors map[string]bool // of its headings, as GitHub makes them
}

// Block is a fenced code block.
type Block struct {
	Lang      string // the info string: sql, sh, ...
	Directive string // text of the HTML comment right before it, which readers do not see; empty: none
	Text      string
	Line      int
}

// Link is a link or an image.
type Link struct {
	To   string
	Line int
}

// Load reads README.md, CHANGELOG.md and everything under docs and
// deployments.
func Load(root fs.FS) ([]*Page, error) {
	var pages []*Page
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		top, _, below := strings.Cut(name, "/")
		documented := top == "docs" || top == "deployments"
		if d.IsDir() && name != "." && !documented {
			return fs.SkipDir
		}
		if d.IsDir() || path.Ext(name) != ".md" || below && !documented {
			return nil
		}
		source, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		pages = append(pages, Parse(name, source))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading the documentation: %w", err)
	}
	return pages, nil
}

// Parse reads one file.
func Parse(name string, source []byte) *Page {
	p := &Page{Path: name, Anchors: map[string]bool{}}
	line := func(at int) int { return bytes.Count(source[:at], []byte("\n")) + 1 }
	here := 1 // of the last block that has lines
	doc := goldmark.New(goldmark.WithExtensions(extension.GFM)).Parser().Parse(text.NewReader(source))
	_ = ast.Walk(doc, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // our function returns no error
		if !entering {
			return ast.WalkContinue, nil
		}
		if n.Type() == ast.TypeBlock && n.Lines().Len() > 0 {
			here = line(n.Lines().At(0).Start)
		}
		switch n := n.(type) {
		case *ast.Heading:
			title := plain(n, source)
			if p.Title == "" {
				p.Title = title
			}
			p.addAnchor(title)
		case *ast.FencedCodeBlock:
			b := Block{Lang: string(n.Language(source)), Text: string(n.Lines().Value(source)), Line: here}
			if c, ok := n.PreviousSibling().(*ast.HTMLBlock); ok {
				b.Directive = comment(c, source)
			}
			p.Blocks = append(p.Blocks, b)
		case *ast.Link:
			p.Links = append(p.Links, Link{To: string(n.Destination), Line: here})
		case *ast.Image:
			p.Links = append(p.Links, Link{To: string(n.Destination), Line: here})
		}
		return ast.WalkContinue, nil
	})
	return p
}

// plain is the text of a node, without markup.
func plain(n ast.Node, source []byte) string {
	var b strings.Builder
	_ = ast.Walk(n, func(n ast.Node, entering bool) (ast.WalkStatus, error) { // our function returns no error
		if t, ok := n.(*ast.Text); ok && entering {
			b.Write(t.Value(source))
		}
		return ast.WalkContinue, nil
	})
	return b.String()
}

// comment is what an HTML block says that is a comment on one line.
func comment(n *ast.HTMLBlock, source []byte) string {
	s := strings.TrimSpace(string(n.Lines().Value(source)))
	s, ok := strings.CutPrefix(s, "<!--")
	s, closed := strings.CutSuffix(s, "-->")
	if !ok || !closed {
		return ""
	}
	return strings.TrimSpace(s)
}

// addAnchor adds the anchor that GitHub gives to a heading: lower case, letters,
// digits, - and _ stay, a space is a hyphen, a repeated one is numbered.
func (p *Page) addAnchor(title string) {
	var b strings.Builder
	for _, r := range strings.ToLower(title) {
		switch {
		case r == ' ':
			b.WriteByte('-')
		case unicode.IsLetter(r), unicode.IsNumber(r), r == '-', r == '_':
			b.WriteRune(r)
		}
	}
	name := b.String()
	for i := 1; p.Anchors[name]; i++ {
		name = fmt.Sprintf("%s-%d", b.String(), i)
	}
	p.Anchors[name] = true
}
