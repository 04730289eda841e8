package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
)

// produceLimit bounds the wait for the brokers' acknowledgement of one record.
const produceLimit = 30 * time.Second

func (c *cli) produceCmd() *cobra.Command {
	var (
		topic, key string
		headers    []string
	)
	cmd := &cobra.Command{
		Use:   "produce --topic T [--key K] [-H name=value] [FILE...]",
		Short: "Put JSON documents from files (or standard input, -) into a topic",
		Long: "Put JSON documents into a topic, one record each: a file holds one document, several, or one per line.\n" +
			"Their bytes are kept as they are. Without FILE, or with -, standard input is read.\n" +
			"Hookline's own topics are refused.",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if topic == "" {
				return usagef("reading options: hookline produce: --topic is missing")
			}
			hs, err := recordHeaders(headers)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				args = []string{"-"}
			}
			return c.produce(cmd.Context(), args, &kgo.Record{Topic: topic, Key: keyBytes(cmd, key), Headers: hs})
		},
	}
	f := cmd.Flags()
	f.StringVarP(&topic, "topic", "t", "", "the topic")
	f.StringVarP(&key, "key", "k", "", "the records' key (default: none)")
	f.StringArrayVarP(&headers, "header", "H", nil, "a record header, name=value; may be repeated")
	return cmd
}

// keyBytes tells an empty key from none.
func keyBytes(cmd *cobra.Command, key string) []byte {
	if !cmd.Flags().Changed("key") {
		return nil
	}
	return []byte(key)
}

func recordHeaders(list []string) ([]kgo.RecordHeader, error) {
	var out []kgo.RecordHeader
	for _, h := range list {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return nil, usagef("reading options: hookline produce: -H %q is not name=value", h)
		}
		out = append(out, kgo.RecordHeader{Key: name, Value: []byte(value)})
	}
	return out, nil
}

// produce sends every document as a record like the given one. What is not JSON
// stops it; what was sent before stays sent, and the message says how much.
func (c *cli) produce(ctx context.Context, files []string, like *kgo.Record) error {
	for _, name := range files {
		if name == "-" {
			continue
		}
		if info, err := os.Stat(name); err != nil {
			return usagef("reading events: %w", err)
		} else if info.IsDir() {
			return usagef("reading events: %s: it is a directory", name)
		}
	}
	cfg, err := c.config()
	if err != nil {
		return err
	}
	if err := notOurs(cfg, like.Topic); err != nil {
		return err
	}
	client, err := connect(ctx, cfg, kgo.RecordDeliveryTimeout(produceLimit), kgo.UnknownTopicRetries(0), kgo.ProducerLinger(0))
	if err != nil {
		return err
	}
	defer client.Close()
	sent := &sending{topic: like.Topic, create: createTopic(cfg, like.Topic), most: cfg.Kafka.EventMaxBytes.String()}
	for _, name := range files {
		if err = c.produceFile(ctx, client, name, like, sent); err != nil {
			break
		}
	}
	if flushErr := client.Flush(ctx); err == nil && flushErr != nil {
		err = fmt.Errorf("producing to %s: %w", like.Topic, flushErr)
	}
	if sent.failed != nil {
		err = sent.failed
	}
	if err != nil {
		return fmt.Errorf("%w; produced before: %s", err, count(sent.done, "record"))
	}
	_, err = fmt.Fprintf(c.out, "produced %s to %s\n", count(sent.done, "record"), safe(like.Topic))
	return err
}

// notOurs refuses a topic of hookline's own: what does not belong there is told of
// at each start from then on, or is lost state.
func notOurs(cfg *configs.Config, topic string) error {
	for _, own := range cfg.Kafka.Settings() {
		if own.Topic == topic {
			return usagef("reading options: hookline produce: --topic: %s is a topic of hookline's own, which alone writes to it (name a topic of events)", topic)
		}
	}
	return nil
}

// sending counts the records by what became of them. Written by the client's
// callbacks, which run one after the other; read after Flush.
type sending struct {
	topic  string
	create string // the command that makes the topic
	most   string // EVENT_MAX_BYTES
	done   int
	failed error
}

func (s *sending) acked(_ *kgo.Record, err error) {
	switch {
	case err == nil:
		s.done++
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		s.failed = fmt.Errorf("producing to %s: there is no such topic (create it, e.g. %s)", s.topic, s.create)
	case s.failed == nil && errors.Is(err, kerr.MessageTooLarge):
		s.failed = fmt.Errorf("producing to %s: a document is larger than the topic takes (raise its max.message.bytes; hookline delivers events of up to HOOKLINE_EVENT_MAX_BYTES, here %s)", s.topic, s.most)
	case s.failed == nil:
		s.failed = fmt.Errorf("producing to %s: %w", s.topic, err)
	}
}

func (c *cli) produceFile(ctx context.Context, client *kgo.Client, name string, like *kgo.Record, sent *sending) error {
	var r io.Reader = c.in
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return fmt.Errorf("reading events: %w", err)
		}
		defer f.Close()
		r = f
	}
	dec := json.NewDecoder(bufio.NewReader(r))
	for {
		var doc json.RawMessage
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("reading events: %s: near byte %d: %w", name, dec.InputOffset(), err)
		}
		client.Produce(ctx, &kgo.Record{Topic: like.Topic, Key: like.Key, Headers: like.Headers, Value: doc}, sent.acked)
	}
}
