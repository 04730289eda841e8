package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/app/demo"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

// settlePoll is how often the demo looks for what comes without a signal.
const settlePoll = 100 * time.Millisecond

// settleLimit is how long after the last request rows and states may come.
const settleLimit = 15 * time.Second

// progressEvery is the time between two lines of progress on a pipe; a terminal
// has one line that is written again.
const progressEvery = 2 * time.Second

// await waits for all requests, with progress.
func (r *demoRun) await(ctx context.Context) error {
	want, terminal := r.plan.Requests(), telemetry.IsTerminal(r.c.out)
	every := progressEvery
	if terminal {
		every = settlePoll
	}
	for {
		limited, cancel := context.WithTimeout(ctx, every)
		err := r.recv.Wait(limited, want)
		cancel()
		line := fmt.Sprintf("%6.1fs  %d of %d requests", time.Since(r.began).Seconds(), r.recv.Total(), want)
		if terminal {
			fmt.Fprint(r.c.out, "\r"+line)
		} else {
			r.say("%s", line)
		}
		switch {
		case err == nil:
			if terminal {
				r.say("")
			}
			return nil
		case ctx.Err() != nil:
			return fmt.Errorf("waiting for the endpoints: %d of %d requests came: %w", r.recv.Total(), want, context.Cause(ctx))
		}
	}
}

// observe gathers what came of the plan; rows and states follow the last request
// by a moment, for which it waits.
func (r *demoRun) observe(ctx context.Context, writer *registry.Writer) (*demo.Observed, error) {
	o := &demo.Observed{}
	settled := time.NewTimer(settleLimit)
	defer settled.Stop()
	for {
		o.Requests = r.recv.Requests()
		item, err := writer.Get(ctx, demo.Gone)
		if err != nil {
			return nil, err
		}
		o.GoneState = item.Effective
		if o.Dead, err = r.deadLetters(ctx); err != nil {
			return nil, err
		}
		if r.stack.Engine != nil {
			if err := r.rows(ctx, o); err != nil {
				return nil, err
			}
		}
		if demo.Failed(r.plan.Verify(o)) == nil {
			return o, nil
		}
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-settled.C:
			return o, nil // what does not hold is told by the report
		case <-time.After(settlePoll):
		}
	}
}

// deadLetters reads the dead topic to its end.
func (r *demoRun) deadLetters(ctx context.Context) ([]kafkax.Dead, error) {
	client, err := connect(ctx, r.cfg)
	if err != nil {
		return nil, err
	}
	defer client.Close()
	f, topic := kafkax.NewFetcher(client), r.cfg.Kafka.Topics().Dead()
	ends, err := f.EndOffsets(ctx, topic)
	if err != nil {
		return nil, fmt.Errorf("reading dead letters: %w", err)
	}
	var out []kafkax.Dead
	for partition, end := range ends[topic] {
		err := f.Scan(ctx, topic, partition, 0, end, func(rec *kgo.Record) error {
			d, err := kafkax.ParseDead(rec)
			if err == nil {
				out = append(out, d)
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading dead letters: %w", err)
		}
	}
	return out, nil
}

// rows counts what ClickHouse has. Until the sink has made the tables there is
// nothing, which is no error.
func (r *demoRun) rows(ctx context.Context, o *demo.Observed) error {
	o.Rows = map[string]demo.Rows{}
	reader, err := sink.OpenReader(r.cfg.Sink)
	if err != nil {
		return err
	}
	defer reader.Close()
	var attempts struct {
		Subscription                       string `json:"subscription_id"`
		Attempts, Unique, Successes, Final int
	}
	err = query(ctx, reader, "SELECT subscription_id, toUInt32(countIf(request_written)) AS Attempts, toUInt32(uniqExactIf(attempt_id, request_written)) AS Unique, "+
		"toUInt32(countIf(outcome = 'success')) AS Successes, toUInt32(countIf(final)) AS Final FROM attempts GROUP BY subscription_id", &attempts, func() {
		o.Rows[attempts.Subscription] = demo.Rows{Attempts: attempts.Attempts, Unique: attempts.Unique, Successes: attempts.Successes, Final: attempts.Final}
	})
	if err != nil {
		return err
	}
	var events struct{ N, Unique int }
	return query(ctx, reader, "SELECT toUInt32(count()) AS N, toUInt32(uniqExact(source_topic_id, source_partition, source_offset)) AS Unique FROM events", &events, func() {
		o.EventRows = events.N
		if events.N != events.Unique {
			o.EventRows = -1 // there twice: never what is expected
		}
	})
}

// query calls each for every row, decoded into row.
func query(ctx context.Context, reader *sink.Reader, sql string, row any, each func()) error {
	result, err := reader.Query(ctx, sql, "JSONEachRow")
	if err != nil {
		return err
	}
	defer result.Close()
	dec := json.NewDecoder(result)
	for {
		err := dec.Decode(row)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading the result: %w", err)
		}
		each()
	}
}

// demoSQL is the example that the demo shows.
const demoSQL = "SELECT subscription_id, attempt, outcome, status_code AS status, count() AS attempts, round(avg(elapsed_us)/1000, 1) AS avg_ms " +
	"FROM attempts GROUP BY ALL ORDER BY ALL"

// report prints the outcome and every claim, and fails if one does not hold.
func (r *demoRun) report(ctx context.Context, o *demo.Observed) error {
	r.say("")
	t := table{header: []string{"SUBSCRIPTION", "EVENTS", "REQUESTS", "DELIVERED", "ENDPOINT"}}
	about := map[string]string{}
	for _, d := range r.plan.Subscriptions("") {
		about[d.ID] = d.Description
	}
	for _, e := range r.plan.Expect() {
		requests, delivered := demo.Count(o, e.ID)
		t.add(e.ID, strconv.Itoa(e.Deliveries), strconv.Itoa(requests), strconv.Itoa(delivered), about[e.ID])
	}
	if err := t.write(r.c.out); err != nil {
		return err
	}
	r.sayRetried("a delivery that was retried", demo.Retried(o, demo.Flaky))
	r.sayRetried("a delivery that failed for good", demo.Retried(o, demo.Broken))
	if len(o.Dead) > 0 {
		r.say("\ndead letters, in %s:", r.cfg.Kafka.Topics().Dead())
	}
	for i := range o.Dead {
		r.say("  %s", deadLine(&o.Dead[i]))
	}
	if r.stack.Engine != nil {
		r.say("\n%s", demoSQL)
		if err := r.c.showSQL(ctx, r.cfg, demoSQL); err != nil {
			return err
		}
	}
	r.say("")
	claims := r.plan.Verify(o)
	for _, c := range claims {
		mark := paint(r.c.out, green, "ok  ")
		if c.Err != nil {
			mark = paint(r.c.out, red, "NOT ")
		}
		fmt.Fprintln(r.c.out, mark+safe(c.Text))
	}
	if r.stack.Engine == nil {
		r.say("--  ClickHouse was not checked: %v", r.stack.NoEngine)
	}
	if err := demo.Failed(claims); err != nil {
		return err
	}
	r.say("\ndone in %.1fs. Next: hookline demo --keep, hookline dev, hookline help config; README.md", time.Since(r.began).Seconds())
	return nil
}

// deadLine is one dead letter. A 410 is not tried again: its reason is exhausted all
// the same.
func deadLine(d *kafkax.Dead) string {
	text := fmt.Sprintf("%s: %s after %s: %s", d.Subscription, d.Reason, count(d.Attempts, "attempt"), d.Error)
	if d.Error == pipeline.OutcomeGone.String() {
		text += " (410: not tried again, the subscription is disabled)"
	}
	return text
}

func (r *demoRun) sayRetried(title string, list []*demo.Request) {
	if len(list) == 0 {
		return
	}
	r.say("\n%s: %s to %s", title, list[0].DeliveryID, list[0].Subscription)
	for i, q := range list {
		later := ""
		if i > 0 {
			later = fmt.Sprintf("  %.3fs later", q.Time.Sub(list[i-1].Time).Seconds())
		}
		r.say("  attempt %d  %s  %d%s", q.Attempt, q.Time.UTC().Format("15:04:05.000Z"), q.Status, later)
	}
}
