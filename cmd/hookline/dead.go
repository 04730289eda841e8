package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// The topics of dead letters, without their prefix.
const (
	deadDeliveries = "dead"
	deadEvents     = "events.dead"
	deadAttempts   = "attempts.dead"
)

var deadTopics = []string{deadDeliveries, deadEvents, deadAttempts}

var deadReasons = []pipeline.DeadReason{
	pipeline.DeadExhausted, pipeline.DeadSkipped, pipeline.DeadBacklog, pipeline.DeadCancelled, pipeline.DeadUnreadable,
}

func deadReasonWords() string {
	words := make([]string, len(deadReasons))
	for i, r := range deadReasons {
		words[i] = string(r)
	}
	return strings.Join(words, ", ")
}

// Reasons of the topics whose records carry none.
const (
	reasonNoEvent   = "no event"   // events.dead
	reasonNotStored = "not stored" // attempts.dead
)

// deadLetter is a record of one of the topics of dead letters.
type deadLetter struct {
	At           string    `json:"at"` // topic/partition/offset, without the topic's prefix
	Time         time.Time `json:"time"`
	Reason       string    `json:"reason"`
	Error        string    `json:"error,omitempty"`
	Subscription string    `json:"subscription_id,omitempty"`
	Delivery     string    `json:"delivery_id,omitempty"`
	Event        string    `json:"event_id,omitempty"`
	EventType    string    `json:"event_type,omitempty"`
	Attempts     *int      `json:"attempts,omitempty"`
	Source       string    `json:"source,omitempty"` // topic/partition/offset
	Bytes        int       `json:"bytes"`            // of the payload
	Again        string    `json:"again"`            // what to do so that it is delivered
	Payload      *string   `json:"payload,omitempty"`
	PayloadB64   string    `json:"payload_base64,omitempty"` // where it is not UTF-8
}

// newDeadLetter reads a record as foreign input: what it does not tell is left
// empty.
func newDeadLetter(prefix string, rec *kgo.Record) deadLetter {
	topic := strings.TrimPrefix(rec.Topic, prefix)
	d := deadLetter{At: fmt.Sprintf("%s/%d/%d", topic, rec.Partition, rec.Offset), Time: rec.Timestamp.UTC().Truncate(time.Millisecond), Bytes: len(rec.Value)}
	for i := range rec.Headers {
		text := kafkax.CleanError(string(rec.Headers[i].Value))
		switch rec.Headers[i].Key {
		case kafkax.HeaderError: // ours is the last one
			d.Error = text
		case kafkax.HeaderSource:
			d.Source = text
		case kafkax.HeaderReason:
			d.Reason = text
		case kafkax.HeaderSubscription:
			d.Subscription = text
		case kafkax.HeaderWebhookID:
			d.Delivery = text
		case kafkax.HeaderMadeAttempts:
			if n, err := strconv.Atoi(text); err == nil {
				d.Attempts = &n
			}
		}
	}
	switch topic {
	case deadEvents:
		d.Reason, d.Subscription, d.Delivery, d.Attempts = reasonNoEvent, "", "", nil
		from, _, _ := strings.Cut(d.Source, "/")
		d.Again = fmt.Sprintf("mend what the error names, then: hookline dead show %s --payload | hookline produce --topic %s", d.At, from)
	case deadAttempts:
		d.Reason, d.Subscription, d.Delivery, d.Attempts = reasonNotStored, "", "", nil
		d.Again = "nothing is lost but rows of the log: the deliveries were made"
	default:
		if full, err := kafkax.ParseDead(rec); err == nil {
			d.Event, d.EventType = full.Envelope.EventID, full.Envelope.EventType
		}
		d.Again = d.replay()
	}
	return d
}

// replay is how a delivery is made again. One that was never tried is not in the
// delivery log, but among what its subscription missed.
func (d *deadLetter) replay() string {
	switch {
	case d.Reason == string(pipeline.DeadUnreadable):
		return "produce the event again: hookline's copy is damaged"
	case d.Attempts != nil && *d.Attempts == 0:
		return fmt.Sprintf("hookline replay --subscription %s --missed (or hookline subs resume %s --replay while it is disabled)", d.Subscription, d.Subscription)
	}
	return fmt.Sprintf("hookline replay --delivery %s --yes", d.Delivery)
}

func (c *cli) deadCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use: "dead", Short: "The dead letters: list, show",
		Long: "The dead letters, which Kafka keeps for 30 days: deliveries that ended without success (topic dead), records\n" +
			"that are no events (events.dead) and records of the delivery log that cannot be stored (attempts.dead).",
		Example: "  hookline dead list --since 24h --reason exhausted\n  hookline dead show dead/3/17\n" +
			"  hookline replay --subscription erp --since 24h --failed",
		Args: cobra.ArbitraryArgs, RunE: group,
	}
	cmd.AddCommand(c.deadList(), c.deadShow())
	return cmd
}

// deadFilter says which dead letters are listed. Empty fields do not filter.
type deadFilter struct {
	topics                        []string
	subscription, reason          string
	event, delivery, since, until string
	from, to                      time.Time
	limit                         int
}

func (f *deadFilter) complete(now time.Time) (err error) {
	const where = "reading options: hookline dead list: "
	for _, t := range f.topics {
		if !slices.Contains(deadTopics, t) {
			return usagef(where+"--topic: %q is not one of %s", t, strings.Join(deadTopics, ", "))
		}
	}
	switch {
	case f.subscription != "" && !kafkax.ValidSubscription(f.subscription):
		return usagef(where+"--subscription: %.140q is not a subscription's id", f.subscription)
	case f.reason != "" && !slices.Contains(deadReasons, pipeline.DeadReason(f.reason)):
		return usagef(where+"--reason: %q is not one of %s", f.reason, deadReasonWords())
	case f.limit < 1:
		return usagef(where+"--limit: %d is not a number of dead letters", f.limit)
	}
	if f.from, err = instant("dead list: --since", f.since, now); err == nil {
		f.to, err = instant("dead list: --until", f.until, now)
	}
	if err == nil && !f.to.IsZero() && !f.from.Before(f.to) {
		err = usagef(where+"--until %s is not after --since %s", f.until, f.since)
	}
	if f.subscription != "" || f.reason != "" || f.delivery != "" || f.event != "" {
		f.topics = []string{deadDeliveries} // the others' records have none
	}
	return err
}

func (f *deadFilter) takes(d *deadLetter) bool {
	return (f.subscription == "" || d.Subscription == f.subscription) && (f.reason == "" || d.Reason == f.reason) &&
		(f.event == "" || d.Event == f.event) && (f.delivery == "" || d.Delivery == f.delivery) &&
		!d.Time.Before(f.from) && (f.to.IsZero() || d.Time.Before(f.to))
}

// instant reads a time such as 1h or 7d before now, or a moment; "" is the zero
// time. flag names the command and its option.
func instant(flag, text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, nil
	}
	d, err := configs.ParseDuration(text)
	if err != nil || d <= 0 {
		return time.Time{}, usagef("reading options: hookline %s: %q is neither a time such as 1h or 7d nor a moment such as 2026-01-31T08:00:00Z", flag, text)
	}
	return now.Add(-d), nil
}

func (c *cli) deadList() *cobra.Command {
	var f deadFilter
	asJSON := false
	cmd := &cobra.Command{
		Use: "list", Short: "List dead letters, oldest first: why, which event, where, since when",
		Long: "Lists dead letters, oldest first. AT is what hookline dead show takes. SOURCE is the event's place:\n" +
			"topic/partition/offset.",
		Example: "  hookline dead list\n  hookline dead list --subscription erp --reason exhausted --since 24h --json\n" +
			"  hookline dead list --topic events.dead",
		Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.complete(time.Now()); err != nil {
				return err
			}
			found, more, err := c.findDead(cmd.Context(), &f)
			if err != nil {
				return err
			}
			if asJSON {
				return writeJSON(c.out, append([]deadLetter{}, found...))
			}
			return c.printDead(found, more, &f)
		},
	}
	fl := cmd.Flags()
	fl.StringSliceVar(&f.topics, "topic", deadTopics, "only these topics")
	fl.StringVar(&f.subscription, "subscription", "", "only deliveries to this subscription")
	fl.StringVar(&f.reason, "reason", "", "only deliveries that ended for this reason: "+deadReasonWords())
	fl.StringVar(&f.event, "event", "", "only deliveries of the event with this id")
	fl.StringVar(&f.delivery, "delivery", "", "only the delivery with this id (webhook-id)")
	fl.StringVar(&f.since, "since", "7d", "only of this last time (1h, 7d) or since this moment (RFC 3339)")
	fl.StringVar(&f.until, "until", "", "only before this moment, or longer ago than this time")
	fl.IntVar(&f.limit, "limit", 100, "at most the newest N")
	fl.BoolVar(&asJSON, "json", false, "print JSON")
	var reasons []cobra.Completion
	for _, r := range deadReasons {
		reasons = append(reasons, string(r))
	}
	err := errors.Join(cmd.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasons, cobra.ShellCompDirectiveNoFileComp)),
		cmd.RegisterFlagCompletionFunc("topic", cobra.FixedCompletions(deadTopics, cobra.ShellCompDirectiveNoFileComp)))
	if err != nil {
		panic("BUG: completing options: " + err.Error())
	}
	return cmd
}

// findDead gives the newest dead letters that f asks for, oldest first, and how
// many older ones were left out.
func (c *cli) findDead(ctx context.Context, f *deadFilter) (found []deadLetter, more int, err error) {
	cfg, err := c.config()
	if err != nil {
		return nil, 0, err
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, 0, err
	}
	defer client.Close()
	adm, fetcher := kadm.NewClient(client), kafkax.NewFetcher(client)
	for _, name := range f.topics {
		topic := cfg.Kafka.TopicPrefix + name
		have, err := adm.ListTopics(ctx, topic)
		if err != nil {
			return nil, 0, fmt.Errorf("looking for topic %s: %w", topic, err)
		}
		if !have.Has(topic) {
			continue // nothing was dead yet
		}
		starts, err := adm.ListOffsetsAfterMilli(ctx, max(f.from.UnixMilli(), 0), topic)
		if err = errors.Join(err, starts.Error()); err != nil {
			return nil, 0, fmt.Errorf("reading %s: %w", topic, err)
		}
		ends, err := fetcher.EndOffsets(ctx, topic)
		if err != nil {
			return nil, 0, fmt.Errorf("reading %s: %w", topic, err)
		}
		for p, end := range ends[topic] {
			from, _ := starts.Lookup(topic, p)
			err := fetcher.Scan(ctx, topic, p, from.Offset, end, func(rec *kgo.Record) error {
				if d := newDeadLetter(cfg.Kafka.TopicPrefix, rec); f.takes(&d) {
					found = append(found, d)
				}
				if len(found) > 2*f.limit+1000 { // memory is for what is shown
					more += cutOldest(&found, f.limit)
				}
				return nil
			})
			if err != nil {
				return nil, 0, err
			}
		}
	}
	more += cutOldest(&found, f.limit)
	return found, more, nil
}

// cutOldest sorts and leaves the newest; it returns how many went.
func cutOldest(found *[]deadLetter, limit int) int {
	slices.SortStableFunc(*found, func(a, b deadLetter) int { return a.Time.Compare(b.Time) })
	n := max(len(*found)-limit, 0)
	*found = slices.Delete(*found, 0, n)
	return n
}

func (c *cli) printDead(found []deadLetter, more int, f *deadFilter) error {
	if len(found) == 0 {
		_, err := fmt.Fprintf(c.out, "no dead letters since %s\n", f.from.UTC().Format(time.RFC3339))
		return err
	}
	t := table{header: []string{"TIME", "AT", "REASON", "SUBSCRIPTION", "EVENT TYPE", "EVENT", "TRIES", "SOURCE", "ERROR"}}
	for i := range found {
		d := &found[i]
		tries := "-"
		if d.Attempts != nil {
			tries = strconv.Itoa(*d.Attempts)
		}
		t.add(moment(d.Time), d.At, d.Reason, cut(orText(d.Subscription, "-"), narrowCell), cut(orText(d.EventType, "-"), narrowCell),
			cut(orText(d.Event, "-"), eventCell), tries, orText(d.Source, "-"), cut(d.Error, wideCell))
	}
	if err := t.write(c.out); err != nil {
		return err
	}
	if more > 0 {
		fmt.Fprintf(c.out, "%s left out: give --limit, or a shorter time\n", count(more, "older one"))
	}
	_, err := fmt.Fprintln(c.out, "hookline dead show AT says all of one, and how to deliver it again")
	return err
}

func (c *cli) deadShow() *cobra.Command {
	asJSON, payload := false, false
	cmd := &cobra.Command{
		Use: "show AT", Short: "Show one dead letter with its payload, and how to deliver it again",
		Long: "Shows one dead letter with its payload, and how to deliver it again. AT is its place, as hookline dead list has\n" +
			"it (dead/3/17), or a delivery's id.",
		Example: "  hookline dead show dead/3/17\n  hookline dead show dlv_eselh4pyefzj2zu3b7iy7mk7xy --json\n" +
			"  hookline dead show events.dead/0/4 --payload > event.json",
		Args: exactly("AT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if asJSON && payload {
				return usagef("reading options: hookline dead show: --json and --payload exclude each other")
			}
			rec, prefix, err := c.deadRecord(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if payload {
				_, err := c.out.Write(rec.Value)
				return err
			}
			d := newDeadLetter(prefix, rec)
			if utf8.Valid(rec.Value) {
				text := string(rec.Value)
				d.Payload = &text
			} else {
				d.PayloadB64 = base64.StdEncoding.EncodeToString(rec.Value)
			}
			if asJSON {
				return writeJSON(c.out, &d)
			}
			return c.printDeadLetter(&d)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&payload, "payload", false, "only the payload's bytes")
	return cmd
}

// deadRecord reads the record at topic/partition/offset, or the last one of a
// delivery.
func (c *cli) deadRecord(ctx context.Context, at string) (rec *kgo.Record, prefix string, err error) {
	cfg, err := c.config()
	if err != nil {
		return nil, "", err
	}
	prefix = cfg.Kafka.TopicPrefix
	if !strings.Contains(at, "/") {
		found, _, err := c.findDead(ctx, &deadFilter{topics: []string{deadDeliveries}, delivery: at, from: time.UnixMilli(0), limit: 1})
		if err != nil {
			return nil, "", err
		}
		if len(found) == 0 {
			return nil, "", fmt.Errorf("reading dead letters: no delivery %.140q is among them", at)
		}
		at = found[0].At
	}
	place := strings.Split(strings.TrimPrefix(at, prefix), "/")
	var partition, offset int64
	bad := len(place) != 3 || !slices.Contains(deadTopics, place[0])
	if !bad {
		var err1, err2 error
		partition, err1 = strconv.ParseInt(place[1], 10, 32)
		offset, err2 = strconv.ParseInt(place[2], 10, 64)
		bad = err1 != nil || err2 != nil || partition < 0 || offset < 0
	}
	if bad {
		return nil, "", usagef("reading arguments: hookline dead show: %.140q is neither a place such as dead/3/17 nor a delivery's id", at)
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return nil, "", err
	}
	defer client.Close()
	recs, _, err := kafkax.NewFetcher(client).At(ctx, prefix+place[0], int32(partition), offset, 1)
	if err != nil {
		return nil, "", fmt.Errorf("reading dead letter %s: %w", at, err)
	}
	if len(recs) == 0 || recs[0].Offset != offset {
		return nil, "", fmt.Errorf("reading dead letter %s: there is none", at)
	}
	return recs[0], prefix, nil
}

func (c *cli) printDeadLetter(d *deadLetter) error {
	var t table
	row := func(name, value string) {
		if value != "" {
			t.add(name, value)
		}
	}
	row("at", d.At)
	row("time", moment(d.Time))
	row("reason", d.Reason)
	row("error", d.Error)
	row("subscription", d.Subscription)
	row("delivery", d.Delivery)
	row("event", d.Event)
	row("event type", d.EventType)
	if d.Attempts != nil {
		row("attempts", strconv.Itoa(*d.Attempts))
	}
	row("source", d.Source)
	row("payload", count(d.Bytes, "byte"))
	row("again", d.Again)
	if err := t.write(c.out); err != nil {
		return err
	}
	if d.Payload == nil {
		_, err := fmt.Fprintln(c.out, "\nnot text: --payload writes the bytes")
		return err
	}
	_, err := fmt.Fprintln(c.out, "\n"+safeLines(*d.Payload))
	return err
}
