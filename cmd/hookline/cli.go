package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/registry"
)

// cli is what the commands share: the process's streams and environment.
type cli struct {
	in       io.Reader
	out, err io.Writer
	environ  []string
	log      *telemetry.Logger // made by the first logger
}

// logPatience is how long the end of a process waits for whoever reads its log.
const logPatience = 2 * time.Second

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnreachable = 3
)

// exitError is an error that decides the exit code.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string { return e.err.Error() }
func (e exitError) Unwrap() error { return e.err }

// usage marks err as the caller's mistake.
func usage(err error) error { return exitError{exitUsage, err} }

func usagef(format string, args ...any) error { return usage(fmt.Errorf(format, args...)) }

// main runs one command and returns the process's exit code.
func (c *cli) main(args []string) int {
	ends := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup has it
		ends = append(ends, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), ends...)
	defer stop()
	// After the first signal the next one has its default effect: it ends the
	// process at once.
	context.AfterFunc(ctx, stop)
	root := c.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	out := c.err
	if c.log != nil { // behind its lines, and no more than they does it wait for a reader
		out = c.log
		defer c.log.Close(logPatience)
	}
	if err == nil {
		return exitDone
	}
	err = denied(err)
	for line := range strings.Lines(err.Error()) {
		fmt.Fprintln(out, "hookline: "+safe(strings.TrimSuffix(line, "\n")))
	}
	return exitCode(err)
}

func exitCode(err error) int {
	if e, ok := errors.AsType[exitError](err); ok {
		return e.code
	}
	if _, ok := errors.AsType[configs.Problems](err); ok {
		return exitUsage
	}
	if unreachable(err) {
		return exitUnreachable
	}
	return exitFailed
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:               "hookline",
		Short:             "Kafka events to webhooks: in order, with retries, every attempt in ClickHouse",
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		RunE:              group,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.Version = versionLine()
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetIn(c.in)
	root.SetOut(c.out)
	root.SetErr(c.err)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usagef("reading options: %s: %w (see %s --help)", cmd.CommandPath(), err, cmd.CommandPath())
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		// Cobra would tell too, but as it likes.
		if err := cmd.ValidateFlagGroups(); err != nil {
			return usagef("reading options: %s: %w (see %s --help)", cmd.CommandPath(), err, cmd.CommandPath())
		}
		return nil
	}
	root.AddCommand(c.versionCmd(), c.produceCmd(), c.topicsCmd(), c.subsCmd(), c.receiverCmd(), c.healthCmd(),
		c.runCmd(), c.devCmd(), c.sqlCmd(), c.logsCmd(), c.checkCmd(), c.demoCmd(), c.replayCmd(), c.deadCmd())
	root.AddCommand(topicCmds()...)
	root.SetHelpCommand(c.helpCmd(root))
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" { // cobra's own takes any argument, or complains in its own words
			cmd.Args, cmd.RunE = cobra.ArbitraryArgs, group
			for _, shell := range cmd.Commands() {
				shell.Args = exactly()
			}
		}
	}
	return root
}

// group is what a command does that only holds others.
func group(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		if cmd.HasParent() {
			return usagef("reading arguments: %s: which command? (see %s --help)", cmd.CommandPath(), cmd.CommandPath())
		}
		return cmd.Help()
	}
	cmd.SuggestionsMinimumDistance = 2
	remedy := "see " + cmd.CommandPath() + " --help"
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		remedy = "did you mean " + near[0] + "?"
	}
	return usagef("reading arguments: %s: no command %q (%s)", cmd.CommandPath(), args[0], remedy)
}

// argID is the argument that is a subscription's id.
const argID = "ID"

func badID(cmd *cobra.Command, id string) error {
	return usagef("reading arguments: %s: %.140q is not a subscription's id (letters, digits, - and _)", cmd.CommandPath(), id)
}

// exactly is cobra.ExactArgs with an error of our kind.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != len(names) {
			want := "no arguments"
			if len(names) > 0 {
				want = strings.Join(names, " ")
			}
			return usagef("reading arguments: %s: got %d, want %s (see %s --help)", cmd.CommandPath(), len(args), want, cmd.CommandPath())
		}
		for i, name := range names {
			if name == argID && !registry.ValidID(args[i]) {
				return badID(cmd, args[i])
			}
		}
		return nil
	}
}

// config reads the configuration from the environment.
func (c *cli) config() (*configs.Config, error) { return configs.Load(c.environ) }

// logger logs to standard error, as configured. main closes it.
func (c *cli) logger(cfg *configs.Config) *slog.Logger {
	if c.log == nil {
		c.log = telemetry.NewLogger(&cfg.Telemetry, c.err)
	}
	return c.log.Logger
}

// survivesReaders lets a service outlive those who read its output: a write to a
// pipe that was closed fails instead of ending the process. (A command such as
// hookline logs | head is to end.) A handler that ignores the signal, and not
// signal.Ignore, which children would inherit.
func survivesReaders() { signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) }
