package doctest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func sprint(p *Page, line int, format string, args ...any) string {
	return fmt.Sprintf("%s:%d: ", p.Path, line) + fmt.Sprintf(format, args...)
}

// TestIncludedExamples: a block after a comment that names a file of examples
// has the file's text, and every example of producing and receiving stands in
// the documentation. So what is shown is what "make examples" ran.
func TestIncludedExamples(t *testing.T) {
	shown := map[string]bool{}
	for _, p := range load(t) {
		for _, b := range p.Blocks {
			if !strings.HasPrefix(b.Directive, "examples/") {
				continue
			}
			file, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(b.Directive)))
			if err != nil {
				t.Error(sprint(p, b.Line, "%v", err))
				continue
			}
			shown[b.Directive] = true
			if b.Text != string(file) {
				t.Error(sprint(p, b.Line, "the block is not %s (run make generate)", b.Directive))
			}
		}
	}
	for _, dir := range []string{"examples/produce", "examples/receive"} {
		err := fs.WalkDir(os.DirFS(root), dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			switch filepath.Ext(name) {
			case ".go", ".py", ".java", ".js", ".mjs":
				if !shown[name] {
					t.Errorf("%s is in no page of the documentation", name)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
