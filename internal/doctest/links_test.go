package doctest

import (
	"io/fs"
	"os"
	"path"
	"strings"
	"testing"
	"testing/fstest"
)

const root = "../.."

func load(t *testing.T) []*Page {
	t.Helper()
	pages, err := Load(os.DirFS(root))
	if err != nil {
		t.Fatal(err)
	}
	if len(pages) < 15 {
		t.Fatalf("%d pages only", len(pages))
	}
	return pages
}

// TestLinks: every relative link of the documentation leads to a file, and to a
// heading of it where it names one.
func TestLinks(t *testing.T) {
	for _, f := range brokenLinks(os.DirFS(root), load(t)) {
		t.Error(f)
	}
}

// TestIndex: docs/README.md leads to every page, over others where it must.
func TestIndex(t *testing.T) {
	pages := load(t)
	seen := map[string]bool{"docs/README.md": true}
	for queue := []string{"docs/README.md"}; len(queue) > 0; queue = queue[1:] {
		for _, p := range pages {
			if p.Path != queue[0] {
				continue
			}
			for _, l := range p.Links {
				if to, _ := target(p, l.To); !seen[to] {
					seen[to] = true
					queue = append(queue, to)
				}
			}
		}
	}
	for _, p := range pages {
		if strings.HasPrefix(p.Path, "docs/") && !strings.HasPrefix(p.Path, "docs/decisions/") && !seen[p.Path] {
			t.Errorf("%s cannot be reached from docs/README.md", p.Path)
		}
		if p.Title == "" {
			t.Errorf("%s has no heading", p.Path)
		}
	}
}

// target is the file and the anchor that a relative link names; of another link
// it is nothing.
func target(p *Page, to string) (file, anchor string) {
	if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
		return "", ""
	}
	file, anchor, _ = strings.Cut(to, "#")
	if file == "" {
		return p.Path, anchor
	}
	return path.Join(path.Dir(p.Path), file), anchor
}

func brokenLinks(root fs.FS, pages []*Page) []string {
	byPath := map[string]*Page{}
	for _, p := range pages {
		byPath[p.Path] = p
	}
	var broken []string
	for _, p := range pages {
		for _, l := range p.Links {
			file, anchor := target(p, l.To)
			if file == "" {
				continue
			}
			if _, err := fs.Stat(root, file); err != nil {
				broken = append(broken, sprint(p, l.Line, "%s: there is no such file", l.To))
			} else if to := byPath[file]; anchor != "" && to != nil && !to.Anchors[anchor] {
				broken = append(broken, sprint(p, l.Line, "%s: there is no such heading", l.To))
			}
		}
	}
	return broken
}

// TestBrokenLinksAreFound: a checker that finds nothing proves nothing.
func TestBrokenLinksAreFound(t *testing.T) {
	fsys := fstest.MapFS{
		"README.md": {Data: []byte("# One `two`, three\n\n[a](docs/a.md#b-c) [b](docs/gone.md)\n\n```\n[c](gone)\n```\n\n[d](#one-two-three) [e](#no)\n")},
		"docs/a.md": {Data: []byte("# B (c)\n\n## B c\n\n[a](../README.md) [b](a.md#b-c-1) ![c](img/x.png) [d](https://example.com/#x)\n")},
	}
	pages, err := Load(fsys)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(brokenLinks(fsys, pages), "\n")
	want := "README.md:3: docs/gone.md: there is no such file\n" +
		"README.md:9: #no: there is no such heading\n" +
		"docs/a.md:5: img/x.png: there is no such file"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
