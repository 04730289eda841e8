package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/replay"
	"github.com/hookline/hookline/sink"
)

// replayFlags are the flags of hookline replay.
type replayFlags struct {
	sel          replay.Selection
	since, until string
	rate         string
	dryRun, yes  bool
	afresh       bool
	asJSON       bool
}

func (c *cli) replayCmd() *cobra.Command {
	var o replayFlags
	cmd := &cobra.Command{
		Use:   "replay (--subscription ID | --event ID | --delivery ID)",
		Short: "Deliver past events again, in their original order, behind what is queued",
		Long: "Delivers past events again, in their original order, behind what is queued: to one subscription, or one\n" +
			"event to all that take it, or one delivery. Events are matched with today's subscriptions and filters, and\n" +
			"sent to today's URL with today's secrets. The delivery id is the same as ever; the header\n" +
			"X-Hookline-Replay and the column replay name the replay.\n\n" +
			"Events are read from their topics while Kafka retains them, else from ClickHouse. --failed, --event and\n" +
			"--delivery need ClickHouse. An interrupted replay goes on where it was when the same is run again.",
		Example: "  hookline replay --subscription erp --since 2h --dry-run\n" +
			"  hookline replay --subscription erp --since 2026-01-31T08:00:00Z --until 2026-01-31T09:00:00Z --failed\n" +
			"  hookline replay --delivery dlv_eselh4pyefzj2zu3b7iy7mk7xy --yes",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			rate, err := o.complete(time.Now())
			if err != nil {
				return err
			}
			return c.replay(cmd.Context(), &o, rate)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.sel.Subscription, "subscription", "", "to this subscription")
	f.StringVar(&o.sel.Event, "event", "", "the event with this id")
	f.StringVar(&o.sel.Delivery, "delivery", "", "the delivery with this id (webhook-id)")
	f.StringVar(&o.since, "since", "", "only events produced in this last time (1h, 7d) or since this moment (RFC 3339);\nwith --failed: last tried")
	f.StringVar(&o.until, "until", "", "only events produced before this moment, or longer ago than this time")
	f.BoolVar(&o.sel.Failed, "failed", false, "only deliveries that ended without success")
	f.BoolVar(&o.sel.Missed, "missed", false, "only what the subscription missed while it was disabled")
	f.StringVar(&o.rate, "rate", "1000/s", "how many events are enqueued in a second")
	f.BoolVar(&o.dryRun, "dry-run", false, "only count")
	f.BoolVar(&o.yes, "yes", false, "do not ask")
	f.BoolVar(&o.afresh, "afresh", false, "begin anew, also where the same replay was interrupted")
	f.BoolVar(&o.asJSON, "json", false, "print JSON")
	return cmd
}

// complete checks the flags; it returns the rate.
func (o *replayFlags) complete(now time.Time) (rate int, err error) {
	if o.sel.Since, err = instant("replay: --since", o.since, now); err != nil {
		return 0, err
	}
	if o.sel.Until, err = instant("replay: --until", o.until, now); err != nil {
		return 0, err
	}
	if o.since != "" || o.until != "" {
		o.sel.Words = o.since + " to " + o.until
	}
	if o.sel.Subscription == "" && o.sel.Event == "" && o.sel.Delivery == "" {
		return 0, usagef("reading options: hookline replay: nothing is selected (give --subscription, --event or --delivery)")
	}
	if !o.sel.Since.IsZero() && !o.sel.Until.IsZero() && !o.sel.Since.Before(o.sel.Until) {
		return 0, usagef("reading options: hookline replay: --until %s is not after --since %s", o.until, o.since)
	}
	if s := &o.sel; s.Subscription != "" && s.Event+s.Delivery == "" && !s.Missed && s.Since.IsZero() {
		return 0, usagef("reading options: hookline replay: --subscription: since when? (give --since, or --missed for what it missed while it was disabled)")
	}
	if err := o.sel.Check(); err != nil {
		return 0, usagef("reading options: hookline replay: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSuffix(o.rate, "/s"))
	if err != nil || n < 1 {
		return 0, usagef("reading options: hookline replay: --rate: %q is not a number per second (write 1000/s)", o.rate)
	}
	return n, nil
}

// replayer makes a replayer, with the archive if ClickHouse answers. Call done.
func (c *cli) replayer(ctx context.Context, needsArchive bool) (r *replay.Replayer, done func(), err error) {
	cfg, err := c.config()
	if err != nil {
		return nil, nil, err
	}
	if err := cfg.NeedEvents(); err != nil {
		return nil, nil, err
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, nil, err
	}
	defer client.Close()
	report, err := ensureTopics(ctx, client, cfg)
	if err := errors.Join(err, report.Err()); err != nil {
		return nil, nil, err
	}
	cluster, err := clusterID(ctx, client)
	if err != nil {
		return nil, nil, err
	}
	o, err := app.NewOperator(cfg, c.logger(cfg))
	if err != nil {
		return nil, nil, err
	}
	deps := app.ReplayDeps{Cluster: cluster, Operator: o, Node: actor(), Log: c.logger(cfg)}
	var past *sink.Reader
	if past, err = c.reader(ctx); err == nil {
		deps.Archive = past
	} else if needsArchive {
		o.Close()
		return nil, nil, err
	}
	done = func() {
		o.Close()
		if past != nil {
			past.Close()
		}
	}
	if r, err = app.NewReplayer(cfg, deps); err != nil {
		done()
		return nil, nil, err
	}
	closeAll := done
	return r, func() { r.Close(); closeAll() }, nil
}

// replayed is what hookline replay --json prints.
type replayed struct {
	Plan     replay.Plan      `json:"plan"`
	Progress *replay.Progress `json:"progress,omitempty"` // nil: --dry-run
}

func (c *cli) replay(ctx context.Context, o *replayFlags, rate int) error {
	r, done, err := c.replayer(ctx, o.sel.Event != "" || o.sel.Delivery != "" || o.sel.Failed)
	if err != nil {
		return err
	}
	defer done()
	show := &replayProgress{c: c, quiet: o.asJSON}
	plan, p, err := r.Run(ctx, o.sel, replay.Options{
		Who: actor(), DryRun: o.dryRun, Rate: rate, Afresh: o.afresh, OnProgress: show.progress,
		Confirm: func(p replay.Plan) error { return c.confirm(p, o) },
	})
	show.end()
	if errors.Is(err, errDeclined) {
		return nil
	}
	if err != nil {
		return err
	}
	if o.asJSON {
		out := replayed{Plan: plan}
		if !o.dryRun {
			out.Progress = &p
		}
		return writeJSON(c.out, &out)
	}
	if o.dryRun {
		_, err = fmt.Fprintln(c.out, safe(planText(&plan)+"; nothing was enqueued"))
		return err
	}
	if p.Total == 0 { // nothing is kept under its id
		_, err = fmt.Fprintln(c.out, safe(planText(&plan)+"; nothing to deliver again"))
		return err
	}
	_, err = fmt.Fprintf(c.out, "replay %s: %s: %s enqueued, %d passed over; hookline logs --subscription shows what becomes of them\n",
		p.ID, count(p.Events, "event"), count(p.Enqueued, "delivery"), p.Passed)
	return err
}

// planText says what a replay would do.
func planText(p *replay.Plan) string {
	text := count(p.Events, "event")
	if p.Events > 0 && !p.First.IsZero() {
		text += fmt.Sprintf(", produced %s to %s", p.First.Format(time.RFC3339), p.Last.Format(time.RFC3339))
	}
	if p.Continued {
		text += fmt.Sprintf(" (going on with replay %s: %d are through)", p.ID, p.Before)
	}
	if p.Archived > 0 {
		text += fmt.Sprintf(", %d of them from ClickHouse", p.Archived)
	}
	text += ", matched with today's filter"
	if p.Unmatched > 0 {
		text += fmt.Sprintf(" (%d do not match)", p.Unmatched)
	}
	if p.Gone > 0 {
		text += fmt.Sprintf("; %s neither in Kafka nor in ClickHouse", are(p.Gone, "other"))
	}
	if p.Incomplete != "" {
		text += "; " + p.Incomplete
	}
	return text
}

var errDeclined = errors.New("nothing was replayed")

// confirm asks on a terminal; elsewhere --yes must have been given.
func (c *cli) confirm(p replay.Plan, o *replayFlags) error {
	if p.Events == p.Before || o.yes {
		return nil
	}
	in, ok := c.in.(*os.File)
	if !ok || !telemetry.IsTerminal(in) {
		return usagef("replaying: %s: not asked on a terminal (give --yes to replay them, or --dry-run)", safe(planText(&p)))
	}
	fmt.Fprintf(c.err, "%s. Deliver them again? [y/N] ", safe(planText(&p)))
	var answer string
	if _, err := fmt.Fscanln(in, &answer); err != nil || !strings.HasPrefix(strings.ToLower(answer), "y") {
		fmt.Fprintln(c.err, errDeclined)
		return errDeclined
	}
	return nil
}

// replayProgress shows progress: one line that is written over on a terminal, a
// line in ten seconds elsewhere.
type replayProgress struct {
	c     *cli
	quiet bool
	last  time.Time
	shown bool
}

const replayLineEvery = 10 * time.Second

func (s *replayProgress) progress(p replay.Progress, w replay.Waiting) {
	if s.quiet {
		return
	}
	text := fmt.Sprintf("%d of %s", p.Events, count(p.Total, "event"))
	switch {
	case w.Silent:
		text += ": no process has told what waits (is a dispatcher running?)"
	case w.Deliveries > 0:
		text += fmt.Sprintf(": waiting for the subscription: %s", count(w.Deliveries, "delivery"))
	}
	if telemetry.IsTerminal(s.c.err) {
		fmt.Fprintf(s.c.err, "\r\x1b[K%s", text)
		s.shown = true
		return
	}
	if now := time.Now(); now.Sub(s.last) >= replayLineEvery {
		s.last = now
		fmt.Fprintln(s.c.err, text)
	}
}

func (s *replayProgress) end() {
	if s.shown {
		fmt.Fprint(s.c.err, "\r\x1b[K")
	}
}

// resumeWithReplay is hookline subs resume --replay.
func (c *cli) resumeWithReplay(ctx context.Context, id string, asJSON bool) error {
	r, done, err := c.replayer(ctx, false)
	if err != nil {
		return err
	}
	defer done()
	show := &replayProgress{c: c, quiet: asJSON}
	res, err := r.Resume(ctx, id, replay.Options{Who: actor(), OnProgress: show.progress})
	show.end()
	if err != nil {
		return err
	}
	return c.tellResult(res, asJSON)
}
