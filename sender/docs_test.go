package sender

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

var (
	headerRow  = regexp.MustCompile("(?m)^\\| (`[^|]+`) \\|")
	headerName = regexp.MustCompile("`([^`]+)`")
)

// TestHeadersAreDocumented: docs/headers.md names every header that a request
// may have, and a request has every header that it names.
func TestHeadersAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/headers.md")
	if err != nil {
		t.Fatal(err)
	}
	table, _, ok := strings.Cut(string(page), "## Headers of your own")
	if !ok {
		t.Fatal("docs/headers.md has no section about headers of one's own")
	}
	documented := map[string]bool{}
	for _, row := range headerRow.FindAllStringSubmatch(table, -1) {
		for _, name := range headerName.FindAllStringSubmatch(row[1], -1) {
			documented[strings.ToLower(strings.TrimSuffix(name[1], "*"))] = true
		}
	}
	sent := map[string]bool{}
	for name := range sentHeaders(t) {
		name = strings.ToLower(name)
		if strings.HasPrefix(name, "ce-") {
			name = "ce-"
		}
		if sent[name] = true; !documented[name] && name != "content-length" && name != "x-team" {
			t.Errorf("header %s is not in docs/headers.md", name)
		}
	}
	for name := range documented {
		if !sent[name] && name != "traceparent" && name != "tracestate" { // those come with the event: trace_test.go
			t.Errorf("docs/headers.md has %s, and no request did", name)
		}
	}
}

// sentHeaders are the names of all headers of requests of every kind.
func sentHeaders(t *testing.T) map[string]bool {
	t.Helper()
	url, got := endpointServer(t, nil)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"S": newHMAC, "T": "token"})})
	for _, change := range []func(*pipeline.Request){
		func(r *pipeline.Request) {
			r.Envelope.EventType, r.Envelope.Replay = "order.placed", "rpl_1"
			r.Subscription.Headers = []pipeline.Header{{Name: "X-Team", Value: "ops"}}
			r.Subscription.Signing = signing(pipeline.SigningStandard, "env:S")
			r.Subscription.Auth = bearer("env:T")
		},
		func(r *pipeline.Request) {
			r.Subscription.Signing = signing(pipeline.SigningHub, "env:S")
			r.Subscription.Signing.Header = "X-Hub-Signature-256"
		},
		func(r *pipeline.Request) { r.Test = true },
		func(r *pipeline.Request) { r.Subscription.ContentMode = pipeline.ContentBinary },
		func(r *pipeline.Request) {
			r.Envelope.Format, r.Envelope.Correlation = pipeline.FormatSIGNL4, "INC-1"
		},
	} {
		req := request(url)
		change(req)
		if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
			t.Fatalf("%s %q", res.Outcome, res.Error)
		}
	}
	names := map[string]bool{}
	for _, r := range *got {
		for name := range r.header {
			names[name] = true
		}
	}
	return names
}
