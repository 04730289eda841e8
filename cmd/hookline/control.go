package main

import (
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/internal/app"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	lanecmd "github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
)

// actor is who works the command line, as the audit topic tells it.
func actor() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return name + "@" + host
}

// operator makes sure that Kafka answers and gives the operators' port.
func (c *cli) operator(ctx context.Context) (*control.Operator, error) {
	cfg, err := c.withRegistry(ctx)
	if err != nil {
		return nil, err
	}
	return app.NewOperator(cfg, c.logger(cfg))
}

// order is one command to a subscription's lanes.
type order func(ctx context.Context, o *control.Operator) (*control.Result, error)

// obey gives an order and prints what came of it.
func (c *cli) obey(ctx context.Context, asJSON bool, give order) error {
	o, err := c.operator(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	r, err := give(ctx, o)
	if err != nil {
		return err
	}
	return c.tellResult(r, asJSON)
}

// tellResult prints what came of a command.
func (c *cli) tellResult(r *control.Result, asJSON bool) (err error) {
	if asJSON {
		err = writeJSON(c.out, r)
	} else {
		_, err = fmt.Fprintln(c.out, safe(sentence(r)))
	}
	if err != nil {
		return err
	}
	switch r.Outcome {
	case control.Done, control.Nothing:
		return nil
	case control.Refused, control.Expired, control.Failed, control.Unanswered:
	}
	return exitError{exitFailed, fmt.Errorf("%s: %s: %s", doing(r.Action), r.Subscription, orText(r.Detail, string(r.Outcome)))}
}

func doing(a audit.Action) string {
	switch a {
	case audit.ActionPause:
		return "pausing"
	case audit.ActionResume:
		return "resuming"
	case audit.ActionSkip:
		return "skipping"
	case audit.ActionRetry:
		return "retrying"
	case audit.ActionTest:
		return "testing"
	case audit.ActionApply, audit.ActionDelete, audit.ActionRotateSecret, audit.ActionRotateKeys, audit.ActionDisable, audit.ActionReplay:
	}
	return string(a)
}

func orText(s, none string) string {
	if s == "" {
		return none
	}
	return s
}

// sentence says what came of a command.
func sentence(r *control.Result) string {
	parts := []string{r.Subscription, string(r.Action) + ":", string(r.Outcome)}
	text := strings.Join(parts, " ")
	add := func(format string, args ...any) { text += ", " + fmt.Sprintf(format, args...) }
	if r.Lanes > 0 && (r.Action == audit.ActionSkip || r.Action == audit.ActionRetry) {
		add("%s", count(r.Lanes, "lane"))
	}
	if t := r.Test; t != nil {
		add("%s in %v from %s (delivery %s)", strings.TrimSpace(t.Outcome+" "+statusText(t.StatusCode)), time.Duration(t.ElapsedUS)*time.Microsecond, t.URL, t.DeliveryID)
	}
	if r.InFlight > 0 {
		add("%s still under way", are(r.InFlight, "request"))
	}
	if r.Detail != "" {
		add("%s", r.Detail)
	}
	if r.Node != "" {
		text += fmt.Sprintf(" [%s, %d ms]", r.Node, r.TookMS)
	}
	return text
}

func statusText(code int) string {
	if code == 0 {
		return ""
	}
	return fmt.Sprint(code)
}

func (c *cli) subsPause() *cobra.Command {
	asJSON, reason := false, ""
	cmd := &cobra.Command{
		Use: "pause ID", Short: "Hold a subscription: deliveries are kept, none is sent",
		Long: "Holds a subscription: its deliveries are made and kept in order, none is sent, nothing grows too old.\n" +
			"Requests that are under way end as they end. Kept through a new apply. hookline subs resume ends it.",
		Example: "  hookline subs pause erp --reason 'they migrate until noon'",
		Args:    exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.obey(cmd.Context(), asJSON, func(ctx context.Context, o *control.Operator) (*control.Result, error) {
				return o.Pause(ctx, actor(), args[0], reason)
			})
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *cli) subsResume() *cobra.Command {
	asJSON, withReplay := false, false
	cmd := &cobra.Command{
		Use: "resume ID [--replay]", Short: "End a pause, or take a disabled subscription into use again",
		Long: "Ends a pause, or takes a subscription into use again that was disabled. What it missed while it was\n" +
			"disabled stays missed: hookline replay --subscription ID --missed delivers it later, behind live events.\n\n" +
			"With --replay all that it missed is delivered first, in the order in which it was produced; live deliveries\n" +
			"are held until that is settled. When it is interrupted, run it again; without --replay it ends.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if withReplay {
				return c.resumeWithReplay(cmd.Context(), args[0], asJSON)
			}
			return c.obey(cmd.Context(), asJSON, func(ctx context.Context, o *control.Operator) (*control.Result, error) {
				return o.Resume(ctx, actor(), args[0], control.ResumeOptions{})
			})
		},
	}
	cmd.Flags().BoolVar(&withReplay, "replay", false, "deliver what it missed first")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// laneFlags narrow a command to some lanes.
func laneFlags(cmd *cobra.Command, at *control.Target, asJSON *bool) {
	f := cmd.Flags()
	f.StringVar(&at.Entity, "entity", "", "only the lane of this entity (ordering: entity)")
	f.StringVar(&at.Delivery, "delivery", "", "only the lane whose first delivery has this id (webhook-id)")
	f.BoolVar(asJSON, "json", false, "print JSON")
}

func (c *cli) subsSkip() *cobra.Command {
	var at control.Target
	asJSON := false
	cmd := &cobra.Command{
		Use: "skip ID", Short: "Give up the failed delivery that a lane waits for; it goes to the dead letters",
		Long: "Ends the first delivery of every lane of the subscription whose first delivery has failed: it goes to\n" +
			"hookline.dead with reason skipped, and the next one is sent.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.obey(cmd.Context(), asJSON, func(ctx context.Context, o *control.Operator) (*control.Result, error) {
				at.Subscription = args[0]
				return o.Skip(ctx, actor(), at)
			})
		},
	}
	laneFlags(cmd, &at, &asJSON)
	return cmd
}

func (c *cli) subsRetry() *cobra.Command {
	var at control.Target
	asJSON := false
	cmd := &cobra.Command{
		Use: "retry ID", Short: "Try the failed delivery that a lane waits for now",
		Long: "Sends the first delivery of every lane of the subscription whose first delivery has failed, at once.\n" +
			"One that has spent every attempt (on_exhausted: block) begins a new round of attempts.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.obey(cmd.Context(), asJSON, func(ctx context.Context, o *control.Operator) (*control.Result, error) {
				at.Subscription = args[0]
				return o.Retry(ctx, actor(), at)
			})
		},
	}
	laneFlags(cmd, &at, &asJSON)
	return cmd
}

func (c *cli) subsTest() *cobra.Command {
	var opts control.TestOptions
	file, asJSON := "", false
	cmd := &cobra.Command{
		Use: "test ID", Short: "Send one request to the endpoint, marked as a test, past everything that waits",
		Long: "Has the process that owns the subscription's lanes send one request, by the rules by which deliveries\n" +
			"are sent: addresses, signature, authentication, time limit. It has the header X-Hookline-Test, stands in\n" +
			"the log, and is not tried again.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if file != "" {
				b, err := c.readFile("the payload", file)
				if err != nil {
					return err
				}
				if len(b) > lanecmd.MaxPayload {
					return usagef("reading options: hookline subs test: --file: %s: %d bytes, at most %d", file, len(b), lanecmd.MaxPayload)
				}
				opts.Payload = b
			}
			return c.obey(cmd.Context(), asJSON, func(ctx context.Context, o *control.Operator) (*control.Result, error) {
				return o.Test(ctx, actor(), args[0], opts)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&opts.EventType, "event-type", "", "the event type (default hookline.test)")
	f.StringVar(&file, "file", "", "the payload, - for standard input (default: a sample)")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// liveItem is a subscription and what its process says of it.
type liveItem struct {
	registry.Item
	// Live is nil where no process has told.
	Live *lanecmd.Status `json:"live,omitempty"`
}

// livePatience is how long the processes are waited for.
const livePatience = time.Second

// addLive asks the processes that own the subscriptions what waits.
func (c *cli) addLive(ctx context.Context, items []liveItem) error {
	if len(items) == 0 {
		return nil
	}
	o, err := c.operator(ctx)
	if err != nil {
		return err
	}
	defer o.Close()
	ids := make([]string, len(items))
	for i := range items {
		ids[i] = items[i].ID
	}
	for part := range slices.Chunk(ids, control.MaxStatuses) {
		told, err := o.Statuses(ctx, actor(), part, livePatience)
		if err != nil {
			return err
		}
		for i := range items {
			if st := told[items[i].ID]; st != nil {
				items[i].Live = st
			}
		}
		if len(told) == 0 { // nobody is there: the others would not answer either
			return nil
		}
	}
	return nil
}

// since is since when the state is what it is, or since when it fails.
func (it *liveItem) since() string {
	switch {
	case it.Decided != nil:
		return it.Decided.Since.Format(time.RFC3339)
	case !it.FailingSince.IsZero():
		return it.FailingSince.Format(time.RFC3339) + " failing"
	}
	return "-"
}

// cannotSend is why its process sends nothing of a subscription that is in use as
// far as the registry tells; empty: nothing is in the way, or no process has told.
func (it *liveItem) cannotSend() string {
	st := it.Live
	switch {
	case st == nil:
		return ""
	case st.Local != "":
		return st.Local
	case it.Effective != pipeline.StateActive || st.State == "" || st.State == pipeline.StateActive || st.RegistryVersion < it.Revision:
		return ""
	}
	return orText(st.Reason, "it is "+string(st.State)+" there") // as where a key is missing that this program has
}

// waits says in a few words what waits; "?": no process has told.
func (it *liveItem) waits() string {
	st := it.Live
	if st == nil {
		return "?"
	}
	n := st.Queued + st.Parked + st.Heads
	text := fmt.Sprint(n)
	if st.Blocked > 0 {
		text += fmt.Sprintf(" (%s blocked)", count(st.Blocked, "lane"))
	}
	return text
}

// rows are what the process says, for a page about one subscription.
func (it *liveItem) rows(row func(name, value string)) {
	st := it.Live
	if st == nil {
		row("waiting", "no process has told: is a dispatcher running?")
		return
	}
	row("waiting", fmt.Sprintf("%d in memory, %d parked, %d for a retry; %s under way; %s, %d waiting, %d blocked", st.Queued, st.Parked,
		st.Heads, count(st.InFlight, "request"), count(st.Lanes, "lane"), st.Waiting, st.Blocked))
	row("cannot send", it.cannotSend())
	row("owner", fmt.Sprintf("%s, partition %d", st.Node, st.Partition))
	for i := range st.Stuck {
		s := &st.Stuck[i]
		row(waitsFor(s))
	}
}

// waitsFor says what a lane's first delivery, which has failed, waits for: an
// operator, a moment, or room.
func waitsFor(s *lanecmd.Stuck) (name, text string) {
	text = fmt.Sprintf("%s after %s, %d behind it", orText(s.Delivery, "a delivery"), count(s.Attempts, "attempt"), s.Behind)
	if s.Entity != "" {
		text = s.Entity + ": " + text
	}
	switch {
	case s.Blocked:
		return "blocked", text + ", waits until somebody does: hookline subs retry, or subs skip"
	case s.NextAt.IsZero():
		return "retrying", text + ", waits for room to be sent"
	}
	return "retrying", text + ", waits for attempt " + strconv.Itoa(s.Attempts+1) + " at " + s.NextAt.Format(time.RFC3339)
}
