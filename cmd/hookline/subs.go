package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/pipeline/registry"
)

func (c *cli) subsCmd() *cobra.Command {
	cmd := &cobra.Command{Use: "subs", Short: "The subscriptions: apply, list, get, delete, pause, resume, skip, retry, test", Args: cobra.ArbitraryArgs, RunE: group}
	cmd.AddCommand(c.subsApply(), c.subsList(), c.subsGet(), c.subsDelete(), c.subsRotateSecret(), c.subsRotateKeys(),
		c.subsPause(), c.subsResume(), c.subsSkip(), c.subsRetry(), c.subsTest())
	return cmd
}

// withRegistry gives the configuration of a Kafka that answers and has the
// registry's topic.
func (c *cli) withRegistry(ctx context.Context) (*configs.Config, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return cfg, ensureRegistry(ctx, client, cfg)
}

// writer makes sure that Kafka answers and gives the registry's writer.
func (c *cli) writer(ctx context.Context) (*registry.Writer, error) {
	cfg, err := c.withRegistry(ctx)
	if err != nil {
		return nil, err
	}
	rc, deps, err := app.RegistryParts(cfg, c.logger(cfg))
	if err != nil {
		return nil, err
	}
	return registry.NewWriter(rc, deps).As(actor()), nil
}

// ensureRegistry makes hookline's topics where the registry's is missing. What is
// wrong with other topics is no matter here: topics and run tell.
func ensureRegistry(ctx context.Context, client *kgo.Client, cfg *configs.Config) error {
	topic := cfg.Kafka.Topics().Subscriptions()
	have, err := kadm.NewClient(client).ListTopics(ctx, topic)
	if err != nil {
		return fmt.Errorf("looking for topic %s: %w", topic, err)
	}
	if have.Has(topic) {
		return nil
	}
	report, err := ensureTopics(ctx, client, cfg)
	return errors.Join(err, report.Err())
}

func (c *cli) subsApply() *cobra.Command {
	var (
		files         []string
		prune, dryRun bool
		asJSON        bool
	)
	cmd := &cobra.Command{
		Use:   "apply -f FILE|- [--prune] [--dry-run]",
		Short: "Create and update subscriptions from YAML or JSON, all or nothing",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("reading options: hookline subs apply: -f is missing (a file, or - for standard input)")
			}
			docs, err := c.readSubscriptions(files)
			if err != nil {
				return err
			}
			if dryRun {
				_, err := fmt.Fprintf(c.out, "%d subscriptions are valid; nothing was changed\n", len(docs))
				return err
			}
			w, err := c.writer(cmd.Context())
			if err != nil {
				return err
			}
			changes, err := w.Apply(cmd.Context(), docs, prune)
			if err != nil {
				return err
			}
			return c.printChanges(changes, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "file with subscriptions, - for standard input; may be repeated")
	f.BoolVar(&prune, "prune", false, "delete every subscription that is not in the files")
	f.BoolVar(&dryRun, "dry-run", false, "only check: no Kafka, no name is looked up")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// readSubscriptions reads and checks all files and tells all that is wrong.
func (c *cli) readSubscriptions(files []string) ([]registry.Document, error) {
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	policy, err := app.SubscriptionPolicy(cfg)
	if err != nil {
		return nil, usage(err)
	}
	var docs []registry.Document
	var errs []error
	for _, name := range files {
		src, err := c.readFile(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		more, err := registry.ParseDocuments(name, src, &policy)
		if err != nil {
			errs = append(errs, prefixLines("checking subscriptions: ", err))
		}
		docs = append(docs, more...)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, usage(err)
	}
	return docs, nil
}

// prefixLines puts prefix before each line of an error, which may be several.
func prefixLines(prefix string, err error) error {
	lines := strings.Split(err.Error(), "\n")
	return errors.New(prefix + strings.Join(lines, "\n"+prefix))
}

// maxInput bounds what is read from a file or standard input at once.
const maxInput = 64 << 20

func (c *cli) readFile(name string) ([]byte, error) {
	r := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading subscriptions: %w", err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading subscriptions: %s: %w", name, err)
	case len(b) > maxInput:
		return nil, fmt.Errorf("reading subscriptions: %s: more than %d bytes", name, maxInput)
	}
	return b, nil
}

func (c *cli) printChanges(changes []registry.Change, asJSON bool) error {
	if asJSON {
		return writeJSON(c.out, append([]registry.Change{}, changes...))
	}
	for _, ch := range changes {
		if _, err := fmt.Fprintf(c.out, "%s %s\n", safe(ch.ID), ch.Action); err != nil {
			return err
		}
	}
	return nil
}

func (c *cli) subsList() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "list", Short: "List the subscriptions: state, reason, since, and what waits", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := c.writer(cmd.Context())
			if err != nil {
				return err
			}
			items, err := w.List(cmd.Context())
			if err != nil {
				return err
			}
			withLive := make([]liveItem, len(items))
			for i := range items {
				withLive[i].Item = items[i]
			}
			if err := c.addLive(cmd.Context(), withLive); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.out, withLive)
			}
			return c.printItems(withLive)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// Widths of columns that others fill.
const (
	wideCell   = 48
	narrowCell = 24
)

func (c *cli) printItems(items []liveItem) error {
	t := table{header: []string{"ID", "STATE", "SINCE", "WAITING", "TENANT", "FORMAT", "EVENTS", "URL"}}
	for i := range items {
		it := &items[i]
		state := string(it.Effective)
		switch {
		case it.Bad != "":
			state = "refused: " + cut(it.Bad, wideCell)
		case it.Decided != nil && it.Decided.Reason != "":
			state += " (" + it.Decided.Reason + ")"
		case it.Live != nil && it.Live.Local != "":
			state += ", cannot send: " + cut(it.Live.Local, wideCell)
		}
		t.add(it.ID, state, it.since(), it.waits(), it.Tenant, cut(orWord(it.Format, "any"), narrowCell), cut(orWord(it.Events, "*"), narrowCell), cut(it.URL, wideCell))
	}
	return t.write(c.out)
}

func orWord(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ",")
}

func (c *cli) subsGet() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "get ID", Short: "Show one subscription", Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := c.writer(cmd.Context())
			if err != nil {
				return err
			}
			item, err := w.Get(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			one := []liveItem{{Item: *item}}
			if err := c.addLive(cmd.Context(), one); err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.out, &one[0])
			}
			return c.printItem(&one[0])
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) printItem(it *liveItem) error {
	var t table
	row := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	row("id", it.ID)
	row("tenant", it.Tenant)
	row("description", it.Description)
	row("url", it.URL)
	row("format", orWord(it.Format, "any"))
	row("events", orWord(it.Events, "*"))
	row("resthook", it.Resthook)
	row("ordering", it.Ordering)
	row("on_exhausted", it.OnExhausted)
	row("timeout", it.Timeout)
	row("signing", it.Signing.Summary())
	row("auth", it.Auth.Summary())
	if it.TLS != nil {
		row("tls", "its own authorities")
	}
	row("state", string(it.Effective))
	if d := it.Decided; d != nil {
		row("decided", strings.TrimSuffix(fmt.Sprintf("%s since %s: %s", d.State, d.Since.Format(time.RFC3339), d.Reason), ": "))
	}
	if !it.FailingSince.IsZero() {
		row("failing", "nothing but failures since "+it.FailingSince.Format(time.RFC3339))
	}
	it.rows(row)
	row("refused", it.Bad)
	row("revision", fmt.Sprint(it.Revision))
	row("updated", it.UpdatedAt.Format(time.RFC3339))
	return t.write(c.out)
}

func (c *cli) subsDelete() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "delete ID...", Short: "Delete subscriptions; their waiting deliveries end as cancelled",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("reading arguments: hookline subs delete: which ID?")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			w, err := c.writer(cmd.Context())
			if err != nil {
				return err
			}
			changes, err := w.Delete(cmd.Context(), args...)
			if err != nil {
				return err
			}
			return c.printChanges(changes, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
