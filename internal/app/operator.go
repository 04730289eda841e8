package app

import (
	"log/slog"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
)

// NewOperator makes the operators' port under cfg. Close it.
func NewOperator(cfg *configs.Config, log *slog.Logger) (*control.Operator, error) {
	rc, deps, err := RegistryParts(cfg, log)
	if err != nil {
		return nil, err
	}
	return control.New(control.Deps{
		Kafka: &cfg.Kafka, Writer: registry.NewWriter(rc, deps), Log: log, RequestTimeout: cfg.Sender.RequestTimeout,
	})
}
