package app

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/router"
)

func TestParseRoles(t *testing.T) {
	for in, want := range map[string]int{"": 4, " ": 4, "console": 1, "router": 1, "router, sink": 2, "sink,dispatcher,router": 3} {
		if got, err := ParseRoles(in); err != nil || len(got) != want {
			t.Errorf("ParseRoles(%q) = %v, %v", in, got, err)
		}
	}
	for _, in := range []string{"cook", "router,,sink", "router,router"} {
		if got, err := ParseRoles(in); err == nil {
			t.Errorf("ParseRoles(%q) = %v", in, got)
		}
	}
}

func TestNewNamesWhatIsMissing(t *testing.T) {
	cfg := configs.Default()
	cfg.Admin.Addr = "127.0.0.1:0"
	_, err := New(cfg, []Role{RoleRouter}, Deps{Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "HOOKLINE_EVENTS_TOPICS") {
		t.Errorf("got %v", err)
	}
}

// Before the registry was read nothing is ready, and every part is named.
func TestReadinessBeforeTheStart(t *testing.T) {
	cfg := configs.Default()
	for name, value := range map[string]string{"EVENTS_TOPICS": "a=json", "ADMIN_ADDR": "off"} {
		if err := cfg.Set(name, value); err != nil {
			t.Fatal(err)
		}
	}
	a, err := New(cfg, Roles, Deps{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // run is what ends the parts
		if err := a.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	if a.Ready() || a.AdminAddr() != "off" {
		t.Errorf("ready %t, admin address %s", a.Ready(), a.AdminAddr())
	}
	var names []string
	for _, p := range a.Readiness() {
		names = append(names, p.Name)
		if p.Ready {
			t.Errorf("%s is ready", p.Name)
		}
	}
	if got := strings.Join(names, " "); got != "registry sink dispatcher router" {
		t.Errorf("parts: %s", got)
	}
}

func TestMatchersTakeEverythingWhenInDoubt(t *testing.T) {
	ms := &matchers{registry: registry.New(registry.Config{Topic: "t"}, registry.Deps{}), now: time.Now}
	if ms.forRouter() != nil {
		t.Error("an index before the registry was read")
	}
	if !ms.taken(nil) {
		t.Error("an event is left out before the registry was read")
	}
}

func TestEventTopics(t *testing.T) {
	var names, mixed router.TopicSpecs
	if err := names.UnmarshalText([]byte("a.b=json;c=cotalker")); err != nil {
		t.Fatal(err)
	}
	if err := mixed.UnmarshalText([]byte("a.b=json;/x.*/=cotalker")); err != nil {
		t.Fatal(err)
	}
	if got, regex := eventTopics(names); regex || strings.Join(got, " ") != "a.b c" {
		t.Errorf("%v %t", got, regex)
	}
	if got, regex := eventTopics(mixed); !regex || strings.Join(got, " ") != `^a\.b$ ^(?:x.*)$` {
		t.Errorf("%v %t", got, regex)
	}
}

func TestSince(t *testing.T) {
	at := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	if got := since(router.StartAt(at)); !got.Equal(at) {
		t.Errorf("got %v", got)
	}
	if !since(router.StartEarliest).IsZero() || time.Since(since(router.StartLatest)) > time.Hour {
		t.Error("earliest or latest is somewhere else")
	}
}

// newForTest makes a service of all roles.
func newForTest(t *testing.T, cfg *configs.Config) *App {
	t.Helper()
	a, err := New(cfg, Roles, Deps{Log: slog.New(slog.DiscardHandler), Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return a
}
