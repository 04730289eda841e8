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
	cmd := &cobra.Command{Use: "subs", Short: "The subscriptions: apply, list, get, delete, pause, resume, skip, retry, test, rotate-secret, rotate-keys", Args: cobra.ArbitraryArgs, RunE: group}
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
		files []string
		o     applyOptions
	)
	cmd := &cobra.Command{
		Use:   "apply -f FILE|- [--prune] [--dry-run]",
		Short: "Create and update subscriptions from YAML or JSON, all or nothing",
		Long: "Creates and updates subscriptions from YAML or JSON, all or nothing; with --prune every other one is deleted.\n\n" +
			"--dry-run checks everything without Kafka and without looking a name up. With --prune it asks Kafka for what\n" +
			"is there, and says what would be created, updated and deleted; nothing is changed.",
		Example: "  hookline subs apply -f subscriptions.yaml\n" +
			"  hookline subs apply -f subscriptions.yaml --prune --dry-run",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(files) == 0 {
				return usagef("reading options: hookline subs apply: -f is missing (a file, or - for standard input)")
			}
			docs, err := c.readSubscriptions(files)
			if err != nil {
				return err
			}
			return c.apply(cmd.Context(), docs, &o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVarP(&files, "file", "f", nil, "file with subscriptions, - for standard input; may be repeated")
	f.BoolVar(&o.prune, "prune", false, "delete every subscription that is not in the files")
	f.BoolVar(&o.allowEmpty, "allow-empty", false, "let --prune delete all of them, where the files have none")
	f.BoolVar(&o.dryRun, "dry-run", false, "change nothing: only check, and with --prune say what would be done")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// applyOptions are the flags of hookline subs apply.
type applyOptions struct {
	prune, allowEmpty, dryRun, asJSON bool
}

// actionValid is what a dry run without Kafka says of a subscription.
const actionValid registry.Action = "valid"

func (c *cli) apply(ctx context.Context, docs []registry.Document, o *applyOptions) error {
	if len(docs) == 0 && o.prune && !o.allowEmpty {
		return usagef("applying subscriptions: the files have none, and --prune would delete all that there are (give --allow-empty to do that)")
	}
	if o.dryRun && !o.prune {
		if o.asJSON {
			changes := make([]registry.Change, len(docs))
			for i := range docs {
				changes[i] = registry.Change{ID: docs[i].ID, Action: actionValid}
			}
			return c.printChanges(changes, true)
		}
		_, err := fmt.Fprintf(c.out, "%s valid; nothing was changed\n", are(len(docs), "subscription"))
		return err
	}
	w, err := c.writer(ctx)
	if err != nil {
		return err
	}
	do := w.Apply
	if o.dryRun {
		do = w.Preview
	}
	changes, err := do(ctx, docs, o.prune)
	if err != nil {
		return err
	}
	if o.dryRun && !o.asJSON {
		return c.printPreview(changes, len(docs))
	}
	return c.printChanges(changes, o.asJSON)
}

// printPreview says what apply would do.
func (c *cli) printPreview(changes []registry.Change, valid int) error {
	deleted := 0
	for _, ch := range changes {
		would := "would be " + string(ch.Action)
		switch ch.Action {
		case registry.Unchanged:
			would = string(ch.Action)
		case registry.Deleted:
			deleted++
		case registry.Created, registry.Updated:
		}
		if ch.Reactivated != "" {
			would += fmt.Sprintf(", and taken into use again: it is disabled (%s)", ch.Reactivated)
		}
		if _, err := fmt.Fprintf(c.out, "%s %s\n", safe(ch.ID), safe(would)); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(c.out, "%s valid, %d would be deleted; nothing was changed\n", are(valid, "subscription"), deleted)
	return err
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
		src, err := c.readFile("subscriptions", name)
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

// readFile reads a file, or standard input where the name is -. what is read stands
// in the errors; a file that is not there is wrong usage.
func (c *cli) readFile(what, name string) ([]byte, error) {
	r := c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usagef("reading %s: %w", what, err)
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("reading %s: %s: %w", what, name, err)
	case len(b) > maxInput:
		return nil, fmt.Errorf("reading %s: %s: more than %d bytes", what, name, maxInput)
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
		if ch.Reactivated != "" { // not in the line above, which scripts read
			fmt.Fprintf(c.err, "hookline: %s\n", safe(fmt.Sprintf("%s: it was disabled (%s) and is in use again, without what it missed (hookline subs resume %s --replay delivers that first)", ch.ID, ch.Reactivated, ch.ID)))
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
	eventCell  = 36 // a UUID; ids that hookline makes are shorter
)

func (c *cli) printItems(items []liveItem) error {
	t := table{header: []string{"ID", "STATE", "SINCE", "WAITING", "TENANT", "FORMAT", "EVENTS", "URL"}}
	for i := range items {
		it := &items[i]
		t.add(it.ID, it.stateText(), it.since(), it.waits(), it.Tenant, cut(orWord(it.Format, "any"), narrowCell), cut(orWord(it.Events, "*"), narrowCell), cut(it.URL, wideCell))
	}
	return t.write(c.out)
}

// stateText is the state, with the reason, and why nothing is sent all the same.
func (it *liveItem) stateText() string {
	if it.Bad != "" {
		return "refused: " + cut(it.Bad, wideCell)
	}
	state := string(it.Effective)
	if it.Decided != nil && it.Decided.Reason != "" {
		state += " (" + it.Decided.Reason + ")"
	}
	if why := it.cannotSend(); why != "" {
		state += ", cannot send: " + cut(why, wideCell)
	}
	return state
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
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usagef("reading arguments: hookline subs delete: which ID?")
			}
			for _, id := range args {
				if !registry.ValidID(id) {
					return badID(cmd, id)
				}
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
