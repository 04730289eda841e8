package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/sink"
)

// finding is what hookline check says of one thing.
type finding struct {
	What  string   `json:"what"`
	OK    bool     `json:"ok"`
	Notes []string `json:"notes,omitempty"`
}

func (c *cli) checkCmd() *cobra.Command {
	roles, asJSON, offline := "", false, false
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Check the configuration and the connections; tells everything that is wrong at once",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			chosen, err := app.ParseRoles(roles)
			if err != nil {
				return usage(err)
			}
			findings, err := c.check(cmd.Context(), chosen, offline)
			if asJSON {
				err = errors.Join(err, writeJSON(c.out, findings))
			} else {
				c.printFindings(findings)
			}
			return err
		},
	}
	f := cmd.Flags()
	f.StringVar(&roles, "roles", "", "the roles that are to run (default: all)")
	f.BoolVar(&offline, "offline", false, "only what needs no connection: the settings, and the files that they name")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) check(ctx context.Context, roles []app.Role, offline bool) ([]finding, error) {
	cfg, err := c.config()
	if err == nil {
		err = cfg.CheckFiles()
	}
	if err != nil {
		return []finding{{What: "configuration", Notes: []string{"see the errors; connections were not tried"}}}, err
	}
	var errs []error
	ok := finding{What: "configuration", OK: true, Notes: givenNotes(cfg)}
	if readsEvents(roles) {
		if err := cfg.NeedEvents(); err != nil {
			errs, ok.OK = append(errs, err), false
		}
	}
	findings := []finding{ok}
	if offline {
		return findings, errors.Join(errs...)
	}
	kafka, err := checkKafka(ctx, cfg, roles)
	findings, errs = append(findings, kafka), append(errs, err)
	if slices.Contains(roles, app.RoleSink) || slices.Contains(roles, app.RoleConsole) {
		clickhouse, err := checkClickHouse(ctx, cfg)
		findings, errs = append(findings, clickhouse), append(errs, err)
	}
	return findings, errors.Join(errs...)
}

// givenNotes lists what is set, secrets redacted.
func givenNotes(cfg *configs.Config) []string {
	var notes []string
	for name, value := range cfg.Given() {
		notes = append(notes, name+"="+value)
	}
	slices.Sort(notes)
	return notes
}

// checkKafka changes nothing: topics that are missing are told, not made.
func checkKafka(ctx context.Context, cfg *configs.Config, roles []app.Role) (finding, error) {
	f := finding{What: "kafka " + strings.Join(cfg.Kafka.Brokers, ",")}
	client, err := connect(ctx, cfg)
	if err != nil {
		return f, err
	}
	defer client.Close()
	adm := kadm.NewClient(client)
	have, err := adm.ListTopics(ctx)
	if err != nil {
		return f, fmt.Errorf("listing topics: %w", err)
	}
	missing := 0
	for _, s := range cfg.Kafka.Settings() {
		if wanted(cfg, &s) && !have.Has(s.Topic) {
			missing++
		}
	}
	var errs []error
	if missing > 0 {
		f.Notes = append(f.Notes, fmt.Sprintf("%d of hookline's topics are missing; hookline topics, or the first start, makes them", missing))
	} else {
		report, err := ensureTopics(ctx, client, cfg)
		errs = append(errs, err, report.Err())
	}
	if readsEvents(roles) {
		errs = append(errs, eventTopicsThere(ctx, adm, cfg))
	}
	err = errors.Join(errs...)
	f.OK = err == nil
	return f, err
}

func checkClickHouse(ctx context.Context, cfg *configs.Config) (finding, error) {
	f := finding{What: "clickhouse " + cfg.Sink.Addr}
	r, err := sink.OpenReader(cfg.Sink)
	if err != nil {
		return f, err
	}
	defer r.Close()
	err = pingClickHouse(ctx, r)
	f.OK = err == nil
	return f, err
}

func (c *cli) printFindings(findings []finding) {
	for _, f := range findings {
		mark := paint(c.out, green, "ok  ")
		if !f.OK {
			mark = paint(c.out, red, "bad ")
		}
		fmt.Fprintf(c.out, "%s %s\n", mark, safe(f.What))
		for _, n := range f.Notes {
			fmt.Fprintf(c.out, "     %s\n", safe(n))
		}
	}
}
