package sink

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// A table that was dropped is named with its remedy by whoever reads, and made
// anew by a sink.
func TestEngineMissingTable(t *testing.T) {
	w := newWorld(t)
	cfg, _ := engineConfig(t)
	r := openReader(t, cfg)
	if _, err := r.Deliveries(t.Context(), DeliveryQuery{Limit: 1}); !missing(err, "database hookline") {
		t.Errorf("nothing was ever made: %v", err)
	}
	s := w.start(func(c *Config, d *Deps) { c.Addr, c.TTLDays, d.EventTopics = cfg.Addr, 0, nil })
	w.attempts(50)
	w.committed(1)
	ask(t, r, "DROP TABLE attempts SYNC")
	for name, failure := range map[string]func() error{
		"list": func() error {
			_, err := r.Deliveries(t.Context(), DeliveryQuery{Limit: 1, Subscription: "s"})
			return err
		},
		"state": func() error {
			_, err := r.Deliveries(t.Context(), DeliveryQuery{Limit: 1, State: DeliveryRetrying, Tenant: "t"})
			return err
		},
		"stats": func() error { _, err := r.SubscriptionStats(t.Context(), nil, time.Now()); return err },
		"sql":   func() error { _, err := r.Query(t.Context(), "SELECT * FROM attempts", "JSON"); return err },
		"logs": func() error {
			for _, err := range r.Attempts(t.Context(), Filter{}) {
				return err
			}
			return nil
		},
	} {
		if err := failure(); !missing(err, "attempts") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := r.Query(t.Context(), "SELECT * FROM nowhere", "JSON"); err == nil || missing(err, "") {
		t.Errorf("a table that is not ours: %v", err)
	}
	// The sink that runs makes it anew with the next block.
	w.attempts(50)
	w.committed(2)
	expect(t, r, "SELECT count() FROM attempts", "50")
	s.stop()
	// One that starts makes anew what nothing is inserted into.
	ask(t, r, "DROP VIEW deliveries")
	ask(t, r, "DROP TABLE outcome_stats_1m_data SYNC")
	skip := cfg
	skip.SkipMigrations = true
	if err := Migrate(t.Context(), skip); err == nil || !strings.Contains(err.Error(), "outcome_stats_1m_data") {
		t.Errorf("a user who may not: %v", err)
	}
	if err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if err := Migrate(t.Context(), skip); err != nil {
		t.Error(err)
	}
	expect(t, r, "SELECT count() FROM deliveries", "50")
	// A program that is older than the schema would make older views of it.
	ask(t, r, "INSERT INTO schema_migrations VALUES (9000, 'newer', now())")
	ask(t, r, "DROP VIEW deliveries")
	if err := Migrate(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "newer version") {
		t.Errorf("a newer schema: %v", err)
	}
}

func missing(err error, what string) bool {
	m, ok := errors.AsType[*MissingError](err)
	return ok && strings.Contains(m.What, what) && strings.Contains(err.Error(), "hookline run --roles sink")
}
