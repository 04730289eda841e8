package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app"
)

// preflight makes sure that Kafka answers and that the topics are there and as
// they must be, before anything starts. It returns the cluster's id.
func preflight(ctx context.Context, cfg *configs.Config, roles []app.Role, log *slog.Logger) (cluster string, err error) {
	wrong := []error{cfg.CheckFiles()}
	if readsEvents(roles) {
		wrong = append(wrong, cfg.NeedEvents())
	}
	if err := errors.Join(wrong...); err != nil {
		return "", err
	}
	client, err := connect(ctx, cfg)
	if err != nil {
		return "", err
	}
	defer client.Close()
	report, err := ensureTopics(ctx, client, cfg)
	if err != nil {
		return "", err
	}
	for _, name := range report.Created {
		log.Info("created topic", "topic", name)
	}
	adm := kadm.NewClient(client)
	if readsEvents(roles) {
		err = eventTopicsThere(ctx, adm, cfg)
	}
	if err := errors.Join(report.Err(), err); err != nil {
		return "", usage(err)
	}
	meta, err := adm.BrokerMetadata(ctx)
	if err != nil {
		return "", fmt.Errorf("asking for the cluster's id: %w", err)
	}
	return meta.Cluster, nil
}

func readsEvents(roles []app.Role) bool {
	return slices.Contains(roles, app.RoleRouter) || slices.Contains(roles, app.RoleSink)
}

// eventTopicsThere tells of every event topic that is named and missing. They
// belong to those who produce events: hookline does not make them.
func eventTopicsThere(ctx context.Context, adm *kadm.Client, cfg *configs.Config) error {
	have, err := adm.ListTopics(ctx, named(cfg)...)
	if err != nil {
		return fmt.Errorf("listing event topics: %w", err)
	}
	var errs []error
	for _, name := range named(cfg) {
		if !have.Has(name) {
			errs = append(errs, fmt.Errorf("checking topic %s: there is no such topic (create it: %s, or correct HOOKLINE_EVENTS_TOPICS)", name, createTopic(cfg, name)))
		}
	}
	return errors.Join(errs...)
}

// createTopic is the command by which somebody makes a topic of events.
func createTopic(cfg *configs.Config, name string) string {
	return fmt.Sprintf("kafka-topics.sh --bootstrap-server %s --create --topic %s --partitions 6", strings.Join(cfg.Kafka.Brokers, ","), name)
}

// named are the event topics that are named, not matched by an expression.
func named(cfg *configs.Config) []string {
	var names []string
	for i := range cfg.Router.EventsTopics {
		if s := &cfg.Router.EventsTopics[i]; s.Pattern == nil {
			names = append(names, s.Topic)
		}
	}
	return names
}

// makeEventTopics makes the event topics that are missing, for dev and demo.
func makeEventTopics(ctx context.Context, client *kgo.Client, cfg *configs.Config, partitions int32) error {
	adm := kadm.NewClient(client)
	have, err := adm.ListTopics(ctx, named(cfg)...)
	if err != nil {
		return fmt.Errorf("listing event topics: %w", err)
	}
	for _, name := range named(cfg) {
		if have.Has(name) {
			continue
		}
		if _, err := adm.CreateTopic(ctx, partitions, 1, nil, name); err != nil {
			return fmt.Errorf("creating topic %s: %w", name, err)
		}
	}
	return nil
}
