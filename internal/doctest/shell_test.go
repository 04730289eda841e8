package doctest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

// shellPages are the pages whose shell commands are all run, each page in a
// folder and on ports of its own. What is to be done with a block stands in a
// comment before it:
//
//	<!-- run -->                                 run it; it must not fail
//	<!-- run again until "TEXT" -->              run it until it prints TEXT
//	<!-- run in background, ready at "TEXT" -->  start it, go on when it prints TEXT
//	<!-- output -->                              each line was printed by the block before
//	<!-- not run: REASON -->
var shellPages = []string{"README.md", "docs/quickstart.md"}

var (
	inBackground = regexp.MustCompile(`^run in background, ready at "(.*)"$`)
	runUntil     = regexp.MustCompile(`^run again until "(.*)"$`)
)

// TestExamplesShell runs the commands of the pages as they stand there, against
// hookline dev.
func TestExamplesShell(t *testing.T) {
	tool(t, "HOOKLINE_TEST_BIN")
	tool(t, "HOOKLINE_ENGINE_LIB")
	pages := map[string]*Page{}
	for _, p := range load(t) {
		pages[p.Path] = p
	}
	for _, name := range shellPages {
		t.Run(filepath.Base(name), func(t *testing.T) {
			newShell(t).page(pages[name])
		})
	}
}

// shell is somebody who follows a page.
type shell struct {
	t   *testing.T
	dir string
	env []string
	// ports stands in for those that the documentation names, in what is run; and
	// back again in what is printed.
	ports, back *strings.Replacer
	printed     string // by the last block
}

func newShell(t *testing.T) *shell {
	t.Helper()
	s := &shell{t: t, dir: t.TempDir()}
	var to, from []string
	free := map[string]string{}
	for _, addr := range []string{"127.0.0.1:9092", "127.0.0.1:8123", "127.0.0.1:8080", "127.0.0.1:9000"} {
		free[addr] = fmt.Sprintf("127.0.0.1:%d", testkit.FreePort(t))
		to, from = append(to, addr, free[addr]), append(from, free[addr], addr)
	}
	s.ports, s.back = strings.NewReplacer(to...), strings.NewReplacer(from...)
	s.env = environ("HOOKLINE_ADMIN_ADDR="+free["127.0.0.1:8080"], "HOOKLINE_ENGINE_LIB="+os.Getenv("HOOKLINE_ENGINE_LIB"))
	// bin/hookline with other defaults for the addresses.
	real := os.Getenv("HOOKLINE_TEST_BIN")
	script := fmt.Sprintf("#!/bin/sh\ncase $1 in\ndev) shift; exec %s dev --kafka-addr %s --clickhouse-addr %s \"$@\" ;;\nreceiver) shift; exec %s receiver --addr %s \"$@\" ;;\nesac\nexec %s \"$@\"\n",
		real, free["127.0.0.1:9092"], free["127.0.0.1:8123"], real, free["127.0.0.1:9000"], real)
	s.write("bin/hookline", script, 0o755)
	files, err := filepath.Glob(filepath.Join(root, "examples", "*.*"))
	if err != nil || len(files) == 0 {
		t.Fatalf("examples: %d files, %v", len(files), err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		s.write("examples/"+filepath.Base(f), s.ports.Replace(string(text)), 0o644)
	}
	return s
}

func (s *shell) write(name, text string, mode os.FileMode) {
	s.t.Helper()
	file := filepath.Join(s.dir, name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(text), mode); err != nil {
		s.t.Fatal(err)
	}
}

func (s *shell) page(p *Page) {
	s.t.Helper()
	ran := 0
	for _, b := range p.Blocks {
		switch {
		case b.Directive == "output":
			s.compare(p, &b)
		case b.Lang != "sh" || strings.HasPrefix(b.Directive, "not run: "):
		case b.Directive == "":
			s.t.Error(sprint(p, b.Line, "a block of shell commands without a word on whether it is run"))
		default:
			s.block(p, &b)
			ran++
		}
	}
	if ran < 3 {
		s.t.Errorf("%s: %d blocks were run", p.Path, ran)
	}
}

func (s *shell) block(p *Page, b *Block) {
	s.t.Helper()
	commands := s.ports.Replace(b.Text)
	if m := inBackground.FindStringSubmatch(b.Directive); m != nil {
		bg := start(s.t, s.dir, s.env, "bash", "-c", commands)
		bg.await(m[1])
		s.env = append(s.env, exports(bg.output())...)
		return
	}
	until := ""
	if m := runUntil.FindStringSubmatch(b.Directive); m != nil {
		until = m[1]
	} else if b.Directive != "run" {
		s.t.Fatal(sprint(p, b.Line, "what is %q?", b.Directive))
	}
	eventually(s.t, sprint(p, b.Line, "the commands print %q", until), func() bool {
		ctx, cancel := context.WithTimeout(s.t.Context(), upLimit)
		defer cancel()
		cmd := exec.CommandContext(ctx, "bash", "-euo", "pipefail", "-c", commands)
		cmd.Dir, cmd.Env = s.dir, s.env
		out, err := cmd.CombinedOutput()
		s.printed = s.back.Replace(string(out))
		if err != nil {
			s.t.Fatal(sprint(p, b.Line, "%v\n%s%s", err, b.Text, s.printed))
		}
		return strings.Contains(s.printed, until)
	})
}

// volatile is what differs from run to run, and what stands for it in a
// comparison.
var volatile = []struct {
	re *regexp.Regexp
	to string
}{
	{regexp.MustCompile(`[ \t]+`), " "},
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`\d\d:\d\d:\d\d(\.\d+)?Z`), "TIME"},
	{regexp.MustCompile(`(evt|dlv|rpl)_[a-z2-7]{26}`), "${1}_ID"},
	{regexp.MustCompile(` (\d{3}) \d+ (again|delivered)`), " $1 MS $2"}, // a try's milliseconds
}

func settle(line string) string {
	for _, v := range volatile {
		line = v.re.ReplaceAllString(line, v.to)
	}
	return strings.TrimSpace(line)
}

// compare wants each line of the block among those that were printed.
func (s *shell) compare(p *Page, b *Block) {
	s.t.Helper()
	printed := map[string]int{}
	for line := range strings.Lines(s.printed) {
		printed[settle(line)]++
	}
	for line := range strings.Lines(b.Text) {
		if want := settle(line); printed[want] == 0 {
			s.t.Error(sprint(p, b.Line, "not printed: %s\nwhat was printed:\n%s", want, s.printed))
		} else {
			printed[want]--
		}
	}
}
