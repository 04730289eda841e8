package main

import (
	"testing"

	"github.com/hookline/hookline/configs"
)

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
