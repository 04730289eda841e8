// Package verifiers checks hookline's signatures by the official Go libraries of
// Standard Webhooks and Svix. It is a module of its own, so that hookline does
// not depend on them. Run it by scripts/verify-signatures.sh.
package verifiers

import (
	"encoding/json"
	"net/http"
	"os"
	"testing"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	svix "github.com/svix/svix-webhooks/go"
)

type signedRequest struct {
	ID        string   `json:"id"`
	Timestamp string   `json:"timestamp"`
	Signature string   `json:"signature"`
	Body      []byte   `json:"body"`
	Secrets   []string `json:"secrets"`
}

func TestVerify(t *testing.T) {
	path := os.Getenv("HOOKLINE_TEST_SIGNED")
	if path == "" {
		t.Skip("HOOKLINE_TEST_SIGNED names no file (run scripts/verify-signatures.sh)")
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var requests []signedRequest
	if err := json.Unmarshal(b, &requests); err != nil || len(requests) == 0 {
		t.Fatalf("%d requests, %v", len(requests), err)
	}
	for _, r := range requests {
		h := http.Header{"Webhook-Id": {r.ID}, "Webhook-Timestamp": {r.Timestamp}, "Webhook-Signature": {r.Signature}}
		for _, secret := range r.Secrets {
			sw, err := standardwebhooks.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			sv, err := svix.NewWebhook(secret)
			if err != nil {
				t.Fatal(err)
			}
			if err := sw.Verify(r.Body, h); err != nil {
				t.Errorf("standard-webhooks: %.40q: %v", r.Body, err)
			}
			if err := sv.Verify(r.Body, h); err != nil {
				t.Errorf("svix: %.40q: %v", r.Body, err)
			}
			forged := append([]byte(nil), r.Body...)
			forged[len(forged)-1] ^= 1
			if sw.Verify(forged, h) == nil || sv.Verify(forged, h) == nil {
				t.Errorf("a changed body was accepted: %.40q", r.Body)
			}
		}
	}
	t.Logf("%d requests", len(requests))
}
