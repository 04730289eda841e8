package registry

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// sealing gives the world's writer and registry those keys.
func (w *world) sealing(keys string) {
	w.Helper()
	w.deps.Policy.Keys = keyring(w.T, keys)
	w.writer = NewWriter(w.cfg, w.deps)
}

// parse reads documents under the world's policy.
func (w *world) parse(src string) []Document {
	w.Helper()
	docs, err := ParseDocuments("f.yaml", []byte(src), &w.deps.Policy)
	w.must(err)
	return docs
}

// stored are the last values of the topic, by key.
func (w *world) stored() map[string][]byte {
	w.Helper()
	client := w.client()
	defer client.Close()
	s := session{w: w.writer, tail: tail{client: client, topic: w.cfg.Topic}}
	out := map[string][]byte{}
	end := w.end()
	w.must(s.tail.begin(w.ctx))
	for s.tail.next < end {
		records, err := s.tail.fetch(w.ctx, time.Second)
		w.must(err)
		for _, rec := range records {
			out[string(rec.Key)] = rec.Value
		}
	}
	return out
}

const sealedDocs = `
- {id: a, tenant: t, url: "https://a.example.com/", auth: {bearer: {secret: ` + canary + `}}}
- {id: b, tenant: t, url: "https://b.example.com/", auth: {bearer: {secret: ` + canary + `}}}
- {id: c, tenant: t, url: "https://c.example.com/", signing: {secrets: [` + goodHMAC + `, env:OLD]}}
`

func holdsCanary(b []byte) bool {
	for _, form := range []string{canary, goodHMAC, strings.TrimPrefix(goodHMAC, "whsec_")} {
		for _, f := range []string{form, hex.EncodeToString([]byte(form)), base64.StdEncoding.EncodeToString([]byte(form))} {
			if bytes.Contains(b, []byte(f)) {
				return true
			}
		}
	}
	return false
}

func TestSecretsAreSealed(t *testing.T) {
	w, _ := fakeWorld(t)
	w.sealing(keyOne)
	same(t, "first", w.apply(false, w.parse(sealedDocs)...), "a created, b created, c created")
	same(t, "again", w.apply(false, w.parse(sealedDocs)...), "a unchanged, b unchanged, c unchanged")
	same(t, "another secret", w.apply(false, w.parse(strings.Replace(sealedDocs, canary, canary+"2", 1))...), "a updated, b unchanged, c unchanged")
	for id, value := range w.stored() {
		if holdsCanary(value) || !bytes.Contains(value, []byte(`"sealed:v1:k1:`)) {
			t.Errorf("%s is stored as %s", id, value)
		}
	}
	items, err := w.writer.List(w.ctx)
	w.must(err)
	shown, err := json.Marshal(items)
	w.must(err)
	text := fmt.Sprintf("%s %+v %#v", shown, items, items)
	if holdsCanary([]byte(text)) || strings.Contains(text, "sealed:v1") || !strings.Contains(text, `"[sealed with key k1]"`) || !strings.Contains(text, `"env:OLD"`) {
		t.Errorf("shown as %s", text)
	}
	same(t, "summary", items[2].Signing.Summary(), "standard-webhooks: [sealed with key k1], env:OLD")

	w.deps.Policy.Sends = true
	sub := w.await(w.follow(), 0).Get("b")
	r := secret.Resolver{Keys: w.deps.Policy.Keys}
	got, _, err := r.Resolve("b", sub.Auth.Bearer.Secret)
	w.must(err)
	same(t, "opened", got.Reveal(), canary)
}

// TestBadSecretsPauseTheirSubscription: what does not open stops its own
// subscription, and nothing else.
func TestBadSecretsPauseTheirSubscription(t *testing.T) {
	w, _ := fakeWorld(t)
	w.sealing(keyTwo)
	w.apply(false, w.parse(strings.ReplaceAll(sealedDocs, "id: b", "id: z"))...) // z: sealed with k2
	w.sealing(keyOne)
	w.apply(false, w.parse(sealedDocs)...)
	stored := w.stored()
	a, b := string(stored["a"]), string(stored["b"])
	sealed := func(s string) string {
		_, rest, _ := strings.Cut(s, `"sealed:`)
		value, _, _ := strings.Cut(rest, `"`)
		return "sealed:" + value
	}
	client := w.client()
	defer client.Close()
	w.produce(client, "a", strings.Replace(a, sealed(a), sealed(b), 1)) // moved from b
	w.produce(client, "b2", strings.ReplaceAll(strings.Replace(b, sealed(b), canary, 1), `"id":"b"`, `"id":"b2"`))

	w.produce(client, strings.Repeat("foreign ", 10_000), a)

	var log bytes.Buffer
	w.deps.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.deps.Policy.Sends = true
	snap := w.await(w.follow(), w.end()-1)
	for id, want := range map[string]string{
		"a": "auth.bearer: the sealed secret was changed, or sealed for another subscription",
		"z": "auth.bearer: key k2: sealed with a key that HOOKLINE_SECRET_KEYS does not have",
	} {
		s := snap.Get(id)
		if s == nil || s.State != pipeline.StatePaused || !strings.HasPrefix(s.StateReason, "secret: "+want) {
			t.Errorf("%s: got %+v", id, s)
		}
	}
	same(t, "b", snap.Get("b").State, pipeline.StateActive)
	same(t, "c", snap.Get("c").State, pipeline.StateActive)
	same(t, "bad", snap.Bad(), 3)
	if s := snap.Get("b2"); s == nil || s.State != pipeline.StatePaused || s.Signing != nil || s.Auth != nil || s.URL != "" {
		t.Error("a secret in clear was accepted from the topic")
	}
	if holdsCanary(log.Bytes()) || !strings.Contains(log.String(), "b2") {
		t.Errorf("logged %s", log.String())
	}
	if log.Len() > 10_000 {
		t.Errorf("%d bytes logged: a record's key may be anything", log.Len())
	}
	for _, want := range []string{
		`msg="a subscription is paused in this process: its secrets cannot be opened" topic=hookline.subscriptions offset=1 subscription=z`,
		"it has no good version: what is meant for it waits\" topic=hookline.subscriptions offset=9 subscription=b2",
	} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log lacks %s:\n%s", want, log.String())
		}
	}
	items, err := w.writer.List(w.ctx)
	w.must(err)
	same(t, "listed state", items[0].Effective, pipeline.StatePaused)
	if !strings.Contains(items[0].Bad, "auth.bearer: the sealed secret was changed") {
		t.Errorf("listed as %q", items[0].Bad)
	}
	// A process that does not send may lack the keys; it routes on.
	w.deps.Policy.Sends, w.deps.Policy.Keys = false, nil
	same(t, "router's", w.await(w.follow(), 0).Get("z").State, pipeline.StateActive)
}

func TestRotateSecret(t *testing.T) {
	w, _ := fakeWorld(t)
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	w.deps.Now = func() time.Time { return now }
	w.sealing(keyOne)
	w.apply(false, w.parse(sealedDocs)...)
	_, err := w.writer.SetState(w.ctx, "c", pipeline.StateDisabled, "gone")
	w.must(err)
	fresh := func() secret.Value {
		s, err := secret.NewHMACKey()
		w.must(err)
		return secret.Plain(s.Reveal())
	}
	summary := func() string {
		it, err := w.writer.Get(w.ctx, "c")
		w.must(err)
		return it.Signing.Summary() + " " + string(it.Effective)
	}
	rotate := func(v secret.Value, overlap time.Duration) error {
		_, err := w.writer.RotateSecret(w.ctx, "c", v, overlap)
		return err
	}
	w.must(rotate(fresh(), 24*time.Hour))
	const k1 = "[sealed with key k1]"
	same(t, "rotated", summary(), "standard-webhooks: "+k1+", "+k1+" until 2030-01-02T00:00:00Z, env:OLD until 2030-01-02T00:00:00Z disabled")
	now = now.Add(12 * time.Hour)
	ref, err := secret.Ref("env:NEW")
	w.must(err)
	w.must(rotate(ref, time.Hour))
	same(t, "the earlier end stays", summary(), "standard-webhooks: env:NEW, "+k1+" until 2030-01-01T13:00:00Z, "+k1+" until 2030-01-02T00:00:00Z, env:OLD until 2030-01-02T00:00:00Z disabled")
	now = now.Add(2 * time.Hour)
	w.must(rotate(fresh(), 7*24*time.Hour))
	same(t, "what has ended is gone", summary(), "standard-webhooks: "+k1+", env:NEW until 2030-01-08T14:00:00Z, "+k1+" until 2030-01-02T00:00:00Z, env:OLD until 2030-01-02T00:00:00Z disabled")
	for range 7 {
		w.must(rotate(fresh(), time.Hour))
	}
	if err := rotate(fresh(), time.Hour); err == nil || !strings.Contains(err.Error(), "11 old secrets would sign, at most 10 may (use a shorter --overlap") {
		t.Errorf("an eleventh old secret: %v", err)
	}
	w.must(rotate(secret.Plain(goodEd), 0))
	same(t, "at once", summary(), "standard-webhooks: "+k1+" disabled")
	for what, err := range map[string]error{
		"is one of its secrets already": rotate(secret.Plain(goodEd), 0),
		"wrong prefix":                  rotate(secret.Plain(canary), 0),
		"is not within 0 to 168h0m0s":   rotate(fresh(), 8*24*time.Hour),
		"-1s is not within":             rotate(fresh(), -time.Second),
	} {
		if err == nil || !strings.Contains(err.Error(), what) || holdsCanary([]byte(err.Error())) {
			t.Errorf("got %v, want %s", err, what)
		}
	}
	if _, err := w.writer.RotateSecret(w.ctx, "none", fresh(), 0); !errors.Is(err, ErrNotFound) {
		t.Errorf("unknown subscription: %v", err)
	}
	if _, err := w.writer.RotateSecret(w.ctx, "a", fresh(), 0); err == nil || !strings.Contains(err.Error(), "it is not signed") {
		t.Errorf("not signed: %v", err)
	}
	w.sealing("")
	if err := rotate(fresh(), 0); err == nil || !strings.Contains(err.Error(), "HOOKLINE_SECRET_KEYS is not set") {
		t.Errorf("without keys: %v", err)
	}
}

func TestRotateKeys(t *testing.T) {
	w, _ := fakeWorld(t)
	w.sealing(keyOne)
	w.apply(false, w.parse(sealedDocs)...)
	_, err := w.writer.SetState(w.ctx, "a", pipeline.StateDisabled, "gone")
	w.must(err)
	w.sealing(keyTwo + "," + keyOne)
	changes, err := w.writer.RotateKeys(w.ctx)
	w.must(err)
	same(t, "sealed anew", summary(changes), "a updated, b updated, c updated")
	again, err := w.writer.RotateKeys(w.ctx)
	w.must(err)
	same(t, "once", len(again), 0)
	w.sealing(keyTwo) // the old key is not needed any more
	same(t, "apply", w.apply(false, w.parse(sealedDocs)...), "a unchanged, b unchanged, c unchanged")
	it, err := w.writer.Get(w.ctx, "a")
	w.must(err)
	same(t, "state", it.Effective, pipeline.StateDisabled)

	w.sealing(keyOne)
	w.apply(false, w.parse(strings.ReplaceAll(sealedDocs, "id: a", "id: k"))...)
	changes, err = w.writer.RotateKeys(w.ctx)
	if err == nil || !strings.Contains(err.Error(), "sealing auth.bearer of subscription a anew: key k2") {
		t.Errorf("a secret that does not open: %v, %v", changes, err)
	}
	same(t, "apply seals anew too", strings.Count(string(w.stored()["b"]), "sealed:v1:k1"), 1)
	w.sealing("")
	if _, err := w.writer.RotateKeys(w.ctx); !errors.Is(err, secret.ErrNoKeys) {
		t.Errorf("without keys: %v", err)
	}
}

// TestApplyWithoutKeysRefuses: also where the documents were checked elsewhere.
func TestApplyWithoutKeysRefuses(t *testing.T) {
	w, _ := fakeWorld(t)
	w.sealing(keyOne)
	docs := w.parse(sealedDocs)
	w.sealing("")
	if _, err := w.writer.Apply(context.Background(), docs, false); err == nil || !strings.Contains(err.Error(), "HOOKLINE_SECRET_KEYS is not set") {
		t.Errorf("got %v", err)
	}
	same(t, "nothing was written", w.end(), 0)
}
