package doctest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// row is a table's row that begins with a message in code.
var row = regexp.MustCompile("(?m)^\\| `([^`]+)` \\|")

// TestTroubleshootingMessages: the messages of docs/troubleshooting.md are
// hookline's. A message that was changed must be changed there too.
func TestTroubleshootingMessages(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs/troubleshooting.md"))
	if err != nil {
		t.Fatal(err)
	}
	said := literals(t)
	rows := row.FindAllStringSubmatch(string(page), -1)
	if len(rows) < 40 {
		t.Fatalf("%d messages only", len(rows))
	}
	for _, m := range rows {
		for part := range strings.SplitSeq(m[1], "...") {
			if part = strings.TrimSpace(part); !strings.Contains(said, part) && !composed(said, part) {
				t.Errorf("%q: no message of hookline's has %q", m[1], part)
			}
		}
	}
}

// composed tells whether a text is put together of a verb and an error's name,
// as in "connect ECONNREFUSED".
func composed(said, text string) bool {
	verb, name, _ := strings.Cut(text, " ")
	return strings.HasPrefix(name, "E") && !strings.Contains(name, " ") &&
		(strings.Contains(said, "\n"+verb+" ") || strings.Contains(said, "\n"+verb+"\n")) && strings.Contains(said, "\n"+name+"\n")
}

// literals are the texts in hookline's own sources, tests left out, one a line.
func literals(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (name == "examples" || name == "internal/doctest" || strings.HasPrefix(d.Name(), ".") && name != ".") {
			return fs.SkipDir
		}
		if d.IsDir() || filepath.Ext(name) != ".go" || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil {
					b.WriteString(s + "\n")
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}
