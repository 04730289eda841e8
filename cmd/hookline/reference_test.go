package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/hookline/hookline/internal/doctest"
)

// newRoot is the command tree as it is when it runs.
func newRoot() *cobra.Command {
	c := &cli{in: strings.NewReader(""), out: io.Discard, err: io.Discard}
	root := c.root()
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	return root
}

func TestCommandReferenceIsCurrent(t *testing.T) {
	var want bytes.Buffer
	if err := writeCommandsMarkdown(&want, newRoot()); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/cli.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want.Bytes()) {
		t.Error("docs/cli.md is out of date: run make generate")
	}
}

func TestManPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man")
	if err := writeMan(newRoot(), dir); err != nil {
		t.Fatal(err)
	}
	eachCommand(newRoot(), func(cmd *cobra.Command) {
		page, err := os.ReadFile(filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1"))
		if err != nil || !bytes.HasPrefix(page, []byte(`.nh`)) || !bytes.Contains(page, []byte("NAME")) {
			t.Errorf("%s: %v, %.40q", cmd.CommandPath(), err, page)
		}
	})
}

// invocation are the arguments of a shell line that calls hookline; ok tells
// whether it does. What follows the call (a comment, a pipe, an explanation
// three spaces on) is left out.
func invocation(line string) (args []string, ok bool) {
	line = strings.TrimPrefix(strings.TrimSpace(line), "bin/")
	rest, ok := strings.CutPrefix(line, "hookline ")
	if !ok {
		return nil, false
	}
	var word strings.Builder
	quote, started := rune(0), false
	end := func() {
		if started {
			args = append(args, word.String())
		}
		word.Reset()
		started = false
	}
	rest, _, _ = strings.Cut(rest, "   ")
	for _, r := range rest {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, started = r, true
		case r == ' ':
			end()
		case (r == '#' || r == '|' || r == '>') && !started:
			return args, true
		default:
			word.WriteRune(r)
			started = true
		}
	}
	end()
	return args, true
}

// understood tells what is wrong with a call of hookline: no such command, no
// such option, too many arguments.
func understood(args []string) error {
	cmd, rest, err := newRoot().Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil && !errors.Is(err, pflag.ErrHelp) {
		return err
	}
	if cmd.HasSubCommands() && cmd.Flags().NArg() > 0 && cmd.Name() != "help" { // else the words are of help
		return errors.New("no such command")
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestDocumentedCommands: every call of hookline in the shell blocks of the
// documentation, and on the pages of help, is one that this program knows.
func TestDocumentedCommands(t *testing.T) {
	pages, err := doctest.Load(os.DirFS("../.."))
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, p := range pages {
		for _, b := range p.Blocks {
			if b.Lang == "sh" {
				texts[p.Path] += b.Text
			}
		}
	}
	for _, cmd := range topicCmds() {
		texts["help "+cmd.Name()] = cmd.Long
	}
	calls := 0
	for where, text := range texts {
		for line := range strings.Lines(text) {
			args, ok := invocation(line)
			if !ok {
				continue
			}
			calls++
			if err := understood(args); err != nil {
				t.Errorf("%s: %s: %v", where, strings.TrimSpace(line), err)
			}
		}
	}
	if calls < 20 {
		t.Errorf("%d calls only", calls)
	}
	for line, want := range map[string]string{
		"hookline subs aply": "no such command", "hookline logs --sinse 1h": "unknown flag", "hookline subs get": "want ID",
	} {
		args, _ := invocation(line)
		if err := understood(args); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", line, err, want)
		}
	}
}

func TestTopicPages(t *testing.T) {
	for _, topic := range topicCmds() {
		r := run(t, nil, "help", topic.Name())
		if r.code != exitDone || !strings.HasPrefix(r.out, topic.Short) || !strings.Contains(r.out, "Examples") || !strings.Contains(r.out, "More: docs/") {
			t.Errorf("help %s: %d %.200q %q", topic.Name(), r.code, r.out, r.err)
		}
		for line := range strings.Lines(topic.Long) {
			if n := len(strings.TrimSuffix(line, "\n")); n > 112 {
				t.Errorf("help %s: a line of %d characters", topic.Name(), n)
			}
		}
	}
	if r := run(t, nil, "help"); !strings.Contains(r.out, "hookline filters") {
		t.Errorf("help lists no topics: %s", r.out)
	}
}

// TestCompletion: the scripts are ones that their shells accept, and what
// they ask for is answered with commands and options.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		r := run(t, nil, "completion", shell)
		if r.code != exitDone || len(r.out) < 1000 {
			t.Errorf("completion %s: %d, %d bytes", shell, r.code, len(r.out))
		}
		path, err := exec.LookPath(shell)
		if err != nil || shell == "powershell" {
			continue // the others are not on every machine
		}
		check := exec.Command(path, "-n")
		check.Stdin = strings.NewReader(r.out)
		if out, err := check.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
	for _, tt := range []struct{ command, typed, want string }{
		{"subs", "", "apply\t"},
		{"logs", "--sub", "--subscription\t"},
		{"help", "co", "config\t"},
	} {
		r := run(t, nil, "__complete", tt.command, tt.typed)
		if r.code != exitDone || !strings.Contains(r.out, tt.want) {
			t.Errorf("completing %s %q: %d %q", tt.command, tt.typed, r.code, r.out)
		}
	}
}
