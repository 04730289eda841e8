package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/hookline/hookline/internal/testkit"
)

// TestSecretsByTheCommand: no command prints a secret, not even one that it made.
func TestSecretsByTheCommand(t *testing.T) {
	const inline = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	cluster := testkit.KFake(t, kfake.SeedTopics(1, "orders"))
	dir := t.TempDir()
	t.Chdir(dir) // where no file is named, the secret goes here
	subs, made := filepath.Join(dir, "subs.yaml"), filepath.Join(dir, "made")
	if err := os.WriteFile(subs, []byte("id: a\ntenant: t\nurl: https://a.example.com/\nsigning:\n  secrets:\n    - "+inline+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	plain := []string{
		"HOOKLINE_KAFKA_BROKERS=" + strings.Join(cluster.ListenAddrs(), ","), "HOOKLINE_REPLICATION=1", "HOOKLINE_PARTITIONS=2",
		"HOOKLINE_LOG_LEVEL=debug",
	}
	keys := func(value string) []string {
		return append(plain[:len(plain):len(plain)], "HOOKLINE_SECRET_KEYS="+value)
	}
	const k1, k2 = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", "k2:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	var all strings.Builder
	try := func(env []string, code int, want string, args ...string) {
		t.Helper()
		r := run(t, env, args...)
		all.WriteString(r.out + r.err)
		if r.code != code || !strings.Contains(r.out+r.err, want) {
			t.Errorf("%v: exit code %d, want %d with %q:\n%s%s", args, r.code, code, want, r.out, r.err)
		}
	}
	try(plain, exitUsage, subs+":6: signing.secrets.0: an inline secret cannot be sealed", "subs", "apply", "--dry-run", "-f", subs)
	try(keys("nonsense"), exitUsage, "HOOKLINE_SECRET_KEYS: entry 1: not id:base64", "subs", "apply", "--dry-run", "-f", subs)
	try(keys(k1), exitDone, "a created", "subs", "apply", "-f", subs)
	try(keys(k1), exitDone, "a unchanged", "subs", "apply", "-f", subs)
	try(keys(k1), exitDone, `"[sealed with key k1]"`, "subs", "get", "a", "--json")
	try(plain, exitUsage, "HOOKLINE_SECRET_KEYS is not set", "subs", "rotate-secret", "a")
	try(keys(k1), exitUsage, `--overlap: "8d" is not within 0s to 7d`, "subs", "rotate-secret", "a", "--overlap", "8d")
	try(keys(k1), exitUsage, "--ref: not a reference", "subs", "rotate-secret", "a", "--ref", "x")
	try(keys(k1), exitFailed, "there is no such subscription", "subs", "rotate-secret", "b", "--out", made)
	if _, err := os.Stat(made); err == nil {
		t.Error("a secret that is not in force was left behind")
	}
	try(keys(k1), exitDone, "the next subs apply would take it back\nthe new secret is in "+made, "subs", "rotate-secret", "a", "--out", made)
	try(keys(k1), exitDone, "the old secrets sign for another 24h0m0s", "subs", "rotate-secret", "a") // where nobody says otherwise
	try(keys(k1), exitFailed, "file exists", "subs", "rotate-secret", "a", "--out", made)
	try(keys(k1), exitDone, "public key for the receiver: whpk_", "subs", "rotate-secret", "a", "--ed25519")
	try(keys(k1), exitDone, "a updated", "subs", "rotate-secret", "a", "--ref", "env:NEW", "--overlap", "7d")
	try(keys(k2+","+k1), exitDone, "a updated", "subs", "rotate-keys")
	try(keys(k2), exitDone, "standard-webhooks: env:NEW, [sealed with key k2] until ", "subs", "get", "a")
	try(keys(k1), exitDone, "key k2: sealed with a key that HOOKLINE_SECRET_KEYS does not have", "subs", "get", "a")

	text, err := os.ReadFile(made)
	if err != nil || !strings.HasPrefix(string(text), "whsec_") {
		t.Fatalf("%d bytes, %v", len(text), err)
	}
	if info, err := os.Stat(made); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	for _, s := range []string{inline, strings.TrimSpace(string(text)), k1[3:], k2[3:]} {
		if strings.Contains(all.String(), s) || strings.Contains(all.String(), strings.TrimPrefix(s, "whsec_")) {
			t.Errorf("a secret was printed:\n%s", all.String())
		}
	}
}
