package main

import (
	"bytes"
	"strings"
	"sync"
	"testing"
)

// lockedBuffer collects a process's output; a value in more says that there is
// some.
type lockedBuffer struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case b.more <- struct{}{}:
	default:
	}
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func TestSafe(t *testing.T) {
	for in, want := range map[string]string{
		"plain Grüße 日本":     "plain Grüße 日本",
		"\x1b[2Jgone":        `\u001b[2Jgone`,
		"a\nb\tc\r":          `a\nb\tc\u000d`,
		"\x9b31m":            `\x9b31m`,
		"\u009b31m":          `\u009b31m`,
		"abc\u202efdp.exe":   `abc\u202efdp.exe`,
		"zero\u200bwidth":    `zero\u200bwidth`,
		"cut\xe6\x97":        `cut\xe6\x97`,
		"replacement \ufffd": "replacement \ufffd",
	} {
		if got := safe(in); got != want {
			t.Errorf("safe(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestTableIsSafeAndAligned(t *testing.T) {
	tab := table{header: []string{"ID", "URL"}}
	tab.add("a\x1b]0;x\x07", "u")
	tab.add("bb", "v\nw")
	var out bytes.Buffer
	if err := tab.write(&out); err != nil {
		t.Fatal(err)
	}
	want := "ID                 URL\na\\u001b]0;x\\u0007  u\nbb                 v\\nw\n"
	if out.String() != want {
		t.Errorf("got\n%q\nwant\n%q", out.String(), want)
	}
}

func TestJSONIsSafe(t *testing.T) {
	var out bytes.Buffer
	if err := writeJSON(&out, map[string]string{"x": "\x1b[31m\u009b\u202e<"}); err != nil {
		t.Fatal(err)
	}
	for _, bad := range []string{"\x1b", "\u009b", "\u202e"} {
		if strings.Contains(out.String(), bad) {
			t.Errorf("%q is in %q", bad, out.String())
		}
	}
}

func TestCopySafe(t *testing.T) {
	long := strings.Repeat("x", 70<<10)
	in := "a\tb\n\x1b[31mred\n" + long + "\nlast"
	var out bytes.Buffer
	if err := copySafe(&out, strings.NewReader(in)); err != nil {
		t.Fatal(err)
	}
	if want := "a\tb\n\\u001b[31mred\n" + long + "\nlast"; out.String() != want {
		t.Errorf("%.60q, %d bytes, want %d", out.String(), out.Len(), len(want))
	}
}

func TestCut(t *testing.T) {
	for in, want := range map[string]string{"abc": "abc", "abcdef": "abc…", "äöüß": "äöüß", "äöüßé": "äöü…"} {
		if got := cut(in, 4); got != want {
			t.Errorf("cut(%q) = %q, want %q", in, got, want)
		}
	}
}
