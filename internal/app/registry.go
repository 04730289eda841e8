package app

import (
	"fmt"
	"log/slog"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline/registry"
)

// RegistryParts gives what registry.New and registry.NewWriter need under cfg.
func RegistryParts(cfg *configs.Config, log *slog.Logger) (registry.Config, registry.Deps, error) {
	policy, err := SubscriptionPolicy(cfg)
	if err != nil {
		return registry.Config{}, registry.Deps{}, err
	}
	opts, err := cfg.Kafka.ClientOpts(log)
	if err != nil {
		return registry.Config{}, registry.Deps{}, fmt.Errorf("preparing the registry: %w", err)
	}
	topics := cfg.Kafka.Topics()
	rc := registry.Config{Topic: topics.Subscriptions(), AuditTopic: topics.Audit(), RouterGroup: cfg.Kafka.RouterGroup()}
	return rc, registry.Deps{Client: opts, Policy: policy, Log: log}, nil
}

// SubscriptionPolicy is what cfg allows subscriptions. It needs no network.
func SubscriptionPolicy(cfg *configs.Config) (registry.Policy, error) {
	urls, err := cfg.Sender.Policy()
	if err != nil {
		return registry.Policy{}, fmt.Errorf("preparing the rules for subscriptions: %w", err)
	}
	keys, err := cfg.Secrets.Keyring()
	if err != nil {
		return registry.Policy{}, fmt.Errorf("preparing the rules for subscriptions: %w", err)
	}
	return registry.Policy{URL: urls, MaxTimeout: cfg.Sender.RequestTimeout, Keys: keys}, nil
}
