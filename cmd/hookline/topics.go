package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// topicsJSON is what hookline topics --json prints.
type topicsJSON struct {
	Created  []string       `json:"created"`
	Problems []topicProblem `json:"problems"`
}

type topicProblem struct {
	Topic string `json:"topic"`
	What  string `json:"what"`
	Fix   string `json:"fix"`
}

func (c *cli) topicsCmd() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use: "topics", Short: "Create hookline's topics, and say what is wrong with those that exist", Args: exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			client, err := connect(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			defer client.Close()
			report, err := ensureTopics(cmd.Context(), client, cfg)
			if err != nil {
				return err
			}
			if err := c.printTopics(cfg, &report, asJSON); err != nil {
				return err
			}
			return report.Err()
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func ensureTopics(ctx context.Context, client *kgo.Client, cfg *configs.Config) (kafkax.Report, error) {
	var optional []string
	if cfg.Sink.WebhookCalled {
		optional = append(optional, cfg.Kafka.Topics().WebhookCalled())
	}
	report, err := kafkax.EnsureTopics(ctx, kadm.NewClient(client), &cfg.Kafka, optional...)
	if err != nil {
		return report, fmt.Errorf("preparing topics: %w", err)
	}
	return report, nil
}

func (c *cli) printTopics(cfg *configs.Config, r *kafkax.Report, asJSON bool) error {
	if asJSON {
		out := topicsJSON{Created: append([]string{}, r.Created...), Problems: []topicProblem{}}
		for _, p := range r.Problems {
			out.Problems = append(out.Problems, topicProblem(p))
		}
		return writeJSON(c.out, out)
	}
	for _, name := range r.Created {
		fmt.Fprintf(c.out, "created %s\n", safe(name))
	}
	if len(r.Problems) == 0 {
		fmt.Fprintf(c.out, "%d topics with prefix %s are as they must be\n", required(cfg), safe(cfg.Kafka.TopicPrefix))
	}
	return nil
}

func required(cfg *configs.Config) int {
	n := 0
	for _, s := range cfg.Kafka.Settings() {
		if wanted(cfg, &s) {
			n++
		}
	}
	return n
}

// wanted tells whether a topic must be there.
func wanted(cfg *configs.Config, s *kafkax.Setting) bool {
	return !s.Optional || cfg.Sink.WebhookCalled && s.Topic == cfg.Kafka.Topics().WebhookCalled()
}
