package main

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/internal/app/local"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/sink"
)

// Who sees that dev has started may ask for the log at once: the tables are there,
// although nothing runs yet.
func TestLocalTables(t *testing.T) {
	engine := os.Getenv("HOOKLINE_TEST_ENGINE")
	if os.Getenv("HOOKLINE_ENGINE_LIB") == "" || engine == "" {
		t.Skip("HOOKLINE_ENGINE_LIB or HOOKLINE_TEST_ENGINE is not set")
	}
	t.Setenv("PATH", filepath.Dir(engine)+string(os.PathListSeparator)+os.Getenv("PATH"))
	cfg, err := configs.Load([]string{"HOOKLINE_ADMIN_ADDR=off"})
	if err != nil {
		t.Fatal(err)
	}
	log := telemetry.NewLogger(&telemetry.Config{LogFormat: "text"}, io.Discard)
	defer log.Close(logPatience)
	stack, err := local.Start(t.Context(), local.Addrs{Kafka: "127.0.0.1:0", ClickHouse: "127.0.0.1:0"}, t.TempDir(), log.Logger)
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	if stack.NoEngine != nil {
		t.Fatal(stack.NoEngine)
	}
	if _, err := newLocalApp(t.Context(), cfg, stack, log); err != nil {
		t.Fatal(err)
	}
	r, err := sink.OpenReader(cfg.Sink)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, err := range r.Attempts(t.Context(), sink.Filter{Limit: 1}) {
		t.Fatal(err)
	}
}

// The link to the console logs in with a token that dev made; one that was given to
// it is a secret, and is printed nowhere.
func TestConsoleURL(t *testing.T) {
	const given = "given-token-0123456789"
	cfg, err := configs.Load([]string{"HOOKLINE_ADMIN_TOKEN=" + given})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := consoleURL(cfg, "127.0.0.1:8080"), "http://127.0.0.1:8080/login"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	cfg.Admin.Token, cfg.Admin.OpenToRead = "made", true
	if got, want := consoleURL(cfg, "127.0.0.1:8080"), "http://127.0.0.1:8080/login#made"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
