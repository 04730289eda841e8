package local

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/attemptlog"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// AttemptsFile writes the delivery log to a file, one JSON object a line, where
// there is no ClickHouse engine. An attempt may be there twice after a crash:
// attempt_id tells.
type AttemptsFile struct {
	path  string
	kafka *kafkax.Config
	log   *slog.Logger
}

// NewAttemptsFile prepares the file at path; Run writes it.
func NewAttemptsFile(path string, kafka *kafkax.Config, log *slog.Logger) *AttemptsFile {
	return &AttemptsFile{path: path, kafka: kafka, log: log}
}

// Path is where the attempts go.
func (a *AttemptsFile) Path() string { return a.path }

// attemptLine has the names of the columns in ClickHouse.
type attemptLine struct {
	AttemptID      string     `json:"attempt_id"`
	DeliveryID     string     `json:"delivery_id"`
	EventID        string     `json:"event_id"`
	SubscriptionID string     `json:"subscription_id"`
	Tenant         string     `json:"tenant,omitempty"`
	Format         string     `json:"format"`
	EventType      string     `json:"event_type"`
	URL            string     `json:"url"`
	Attempt        int        `json:"attempt"`
	Round          int        `json:"round,omitempty"`
	Outcome        string     `json:"outcome"`
	StatusCode     int        `json:"status_code"`
	Error          string     `json:"error,omitempty"`
	StartedAt      time.Time  `json:"started_at"`
	ElapsedUS      int64      `json:"elapsed_us"`
	ResponseBody   string     `json:"response_body,omitempty"`
	Final          bool       `json:"final"`
	NextAttemptAt  *time.Time `json:"next_attempt_at,omitempty"`
	Source         string     `json:"source"`
}

// Run appends attempts until ctx ends. The position is committed after what was
// read is in the file.
func (a *AttemptsFile) Run(ctx context.Context) error {
	opts, err := a.kafka.ClientOpts(a.log)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(append(opts,
		kgo.ConsumerGroup(a.kafka.Group+".attempts-file"),
		kgo.ConsumeTopics(a.kafka.Topics().Attempts()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.DisableAutoCommit(),
	)...)
	if err != nil {
		return fmt.Errorf("making the Kafka client of the attempts file: %w", err)
	}
	defer client.Close()
	f, err := os.OpenFile(a.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("opening the attempts file: %w", err)
	}
	err = a.copy(ctx, client, f)
	if closed := f.Close(); err == nil && closed != nil {
		err = fmt.Errorf("closing the attempts file: %w", closed)
	}
	return err
}

func (a *AttemptsFile) copy(ctx context.Context, client *kgo.Client, f *os.File) error {
	w := bufio.NewWriter(f)
	for {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil || fetches.IsClientClosed() {
			return nil
		}
		fetches.EachError(func(topic string, partition int32, err error) {
			a.log.Warn("reading attempts", "topic", topic, "partition", partition, "error", err)
		})
		var failed error
		fetches.EachRecord(func(r *kgo.Record) {
			err := writeAttempts(w, r.Value)
			if bad, ok := errors.AsType[*os.PathError](err); ok {
				failed = bad
			} else if err != nil {
				a.log.Error("reading attempts", "partition", r.Partition, "offset", r.Offset, "error", err)
			}
		})
		if err := errors.Join(failed, w.Flush()); err != nil {
			return fmt.Errorf("writing the attempts file: %w", err)
		}
		if err := client.CommitUncommittedOffsets(ctx); err != nil && ctx.Err() == nil {
			a.log.Warn("committing the position of the attempts file", "error", err)
		}
	}
}

func writeAttempts(w *bufio.Writer, batch []byte) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return attemptlog.Decode(batch, func(r *attemptlog.Row) error {
		line := attemptLine{
			AttemptID: r.AttemptID, DeliveryID: r.DeliveryID, SubscriptionID: r.SubscriptionID, URL: r.URL,
			Attempt: r.Attempt.Attempt, Round: r.Round, Outcome: r.Outcome.String(), StatusCode: r.StatusCode,
			Error: r.Error, StartedAt: r.StartedAt.UTC(), ElapsedUS: r.Elapsed.Microseconds(),
			ResponseBody: string(r.ResponseBody), Final: r.Final,
		}
		if e := r.Envelope; e != nil {
			line.EventID, line.Tenant, line.Format, line.EventType = e.EventID, e.Tenant, string(e.Format), e.EventType
			line.Source = e.Source.String()
		}
		if !r.NextAttemptAt.IsZero() {
			at := r.NextAttemptAt.UTC()
			line.NextAttemptAt = &at
		}
		return enc.Encode(line)
	})
}
