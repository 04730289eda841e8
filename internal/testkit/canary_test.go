package testkit_test

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"html/template"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// planted has what every escape changes.
const planted = "planted/secret+with<all>?&\xfb\"it\""

// TestSecretFormsAreFound: whatever a secret was encoded by, and whatever stands
// around it, the search finds it; and nothing where there is none.
func TestSecretFormsAreFound(t *testing.T) {
	const key = "Q0FOQVJZ/+9LRVktQ0FOQVJZLUtFWS1DQU5BUlk="
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	forms := testkit.SecretForms(planted, key)
	shown := map[string]string{
		"plain": planted, "hex": hex.EncodeToString([]byte(planted)), "upper hex": fmt.Sprintf("%X", planted),
		"query": url.QueryEscape(planted), "path": url.PathEscape(planted), "html": template.HTMLEscapeString(planted),
		"json": fmt.Sprintf("%q", key), "json of ClickHouse": strings.ReplaceAll(key, "/", `\/`),
		"base64 in a URL": url.QueryEscape(key), "base64 in html": template.HTMLEscapeString(key), "decoded": string(raw), "decoded hex": fmt.Sprintf("%x", raw),
	}
	for before := range 4 {
		around := strings.Repeat("u", before) + planted + strings.Repeat(":", before)
		shown[fmt.Sprint("base64 behind ", before)] = base64.StdEncoding.EncodeToString([]byte(around))
		shown[fmt.Sprint("base64 for URLs behind ", before)] = base64.RawURLEncoding.EncodeToString([]byte(around))
	}
	for name, text := range shown {
		if got := testkit.Exposed(map[string]string{"here": "before " + text + " behind", "there": "nothing"}, forms); len(got) == 0 || !strings.HasPrefix(got[0], "here: a secret is shown: ...before ") {
			t.Errorf("%s: %s is not found: %q", name, text, got)
		}
	}
	if got := testkit.Exposed(map[string]string{"here": "[redacted] planted secret " + key[:20]}, forms); got != nil {
		t.Errorf("found where there is none: %q", got)
	}
}

// TestEveryRecordShowsAllOfARecord: a secret is found in each part of a record,
// and in what is packed within one.
func TestEveryRecordShowsAllOfARecord(t *testing.T) {
	const secret = "PLANTED-SECRET"
	attempts := func(change func(*pipeline.Attempt)) *kgo.Record {
		a := pipeline.Attempt{AttemptID: "a", StartedAt: time.Unix(1e9, 0), Envelope: &pipeline.Envelope{EventID: "e", Format: pipeline.FormatJSON}}
		change(&a)
		return &kgo.Record{Topic: "hookline.attempts", Value: attemptlog.AppendBatch(nil, []pipeline.Attempt{a}, attemptlog.Options{})}
	}
	for name, rec := range map[string]*kgo.Record{
		"key": {Topic: "a", Key: []byte(secret)}, "value": {Topic: "a", Value: []byte(secret)},
		"header":                        {Topic: "a", Headers: []kgo.RecordHeader{{Key: "k", Value: []byte(secret)}}},
		"an attempt's error":            attempts(func(a *pipeline.Attempt) { a.Error = secret }),
		"an attempt's request headers":  attempts(func(a *pipeline.Attempt) { a.RequestHeaders = []byte("Authorization: " + secret) }),
		"an attempt's response headers": attempts(func(a *pipeline.Attempt) { a.ResponseHeaders = []byte("X: " + secret) }),
		"an attempt's response":         attempts(func(a *pipeline.Attempt) { a.ResponseBody = []byte(secret) }),
	} {
		seeds := kgo.SeedBrokers(testkit.KFake(t, kfake.SeedTopics(1, "a", "hookline.attempts")).ListenAddrs()...)
		cl, err := kgo.NewClient(seeds)
		if err != nil {
			t.Fatal(err)
		}
		err = cl.ProduceSync(t.Context(), rec).FirstErr()
		cl.Close()
		if err != nil {
			t.Fatal(err)
		}
		if all := testkit.EveryRecord(t.Context(), t, seeds); len(testkit.Exposed(map[string]string{"topics": all}, testkit.SecretForms(secret))) == 0 {
			t.Errorf("%s: not found in %q", name, all)
		}
	}
}
