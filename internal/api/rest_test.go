package api

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/hookline/hookline/internal/access"
)

// judge checks answers against the document. Its schemas are JSON Schema 2020-12,
// as OpenAPI 3.1 has it.
type judge struct {
	doc      map[string]map[string]any // operations by path and method
	compiler *jsonschema.Compiler
}

const documentURL = "file:///openapi.json"

func newJudge(t testing.TB) *judge {
	t.Helper()
	asJSON, err := documentJSON()
	if err != nil {
		t.Fatal(err)
	}
	var raw struct {
		OpenAPI string                    `json:"openapi"`
		Paths   map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(asJSON, &raw); err != nil || raw.OpenAPI != "3.1.0" {
		t.Fatalf("version %q, %v", raw.OpenAPI, err)
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	j := &judge{doc: raw.Paths, compiler: jsonschema.NewCompiler()}
	j.compiler.DefaultDraft(jsonschema.Draft2020)
	j.compiler.AssertFormat()
	if err := j.compiler.AddResource(documentURL, doc); err != nil {
		t.Fatal(err)
	}
	return j
}

// answer tells what the document has against an answer to the operation at path;
// nil: nothing.
func (j *judge) answer(method, path string, resp *http.Response, body string) error {
	op, _ := j.doc[path][strings.ToLower(method)].(map[string]any)
	responses, _ := op["responses"].(map[string]any)
	status, kind := strconv.Itoa(resp.StatusCode), resp.Header.Get("Content-Type")
	at := "#/paths/" + pointer(path) + "/" + strings.ToLower(method) + "/responses/" + status
	if responses[status] == nil {
		// All others are problems.
		if responses["default"] == nil {
			return fmt.Errorf("%s %s: no answer with status %d is documented", method, path, resp.StatusCode)
		}
		at = "#/components/responses/Problem"
	}
	schema, err := j.compiler.Compile(documentURL + at + "/content/" + pointer(kind) + "/schema")
	if err != nil {
		return fmt.Errorf("%s %s: %d of type %s: %w", method, path, resp.StatusCode, kind, err)
	}
	v, err := jsonschema.UnmarshalJSON(strings.NewReader(body))
	if err == nil {
		err = schema.Validate(v)
	}
	if err != nil {
		return fmt.Errorf("%s %s: %d %s: %w", method, path, resp.StatusCode, body, err)
	}
	return nil
}

// pointer escapes a part of a JSON pointer in a URL.
func pointer(s string) string {
	return url.PathEscape(strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1"))
}

// pathOf is the route's path that a request was for.
func pathOf(method, path string) string {
	mux := http.NewServeMux()
	for _, rt := range (&rest{}).routes() {
		mux.HandleFunc(rt.method+" "+rt.path, func(http.ResponseWriter, *http.Request) {})
	}
	_, pattern := mux.Handler(httptest.NewRequest(method, path, nil))
	_, path, _ = strings.Cut(pattern, " ")
	return path
}

// Every route stands in the document, and every operation of it is a route.
func TestDocumentHasEveryRoute(t *testing.T) {
	j := newJudge(t)
	var have, told []string
	for _, rt := range (&rest{}).routes() {
		have = append(have, rt.method+" "+rt.path+" "+rt.scope.String())
	}
	for path, operations := range j.doc {
		for method, op := range operations {
			if method == "parameters" {
				continue
			}
			text := fmt.Sprint(op.(map[string]any)["description"])
			scope := strings.TrimPrefix(strings.FieldsFunc(text, func(r rune) bool { return r == '.' || r == ',' })[0], "Scope: ")
			told = append(told, strings.ToUpper(method)+" "+path+" "+scope)
		}
	}
	slices.Sort(have)
	slices.Sort(told)
	if !slices.Equal(have, told) {
		t.Errorf("routes:\n%s\nthe document's:\n%s", strings.Join(have, "\n"), strings.Join(told, "\n"))
	}
}

// aDocument is a subscription as it may be configured.
const aDocument = `{"id": "erp", "tenant": "*", "url": "https://erp.example/hook"}`

// exchange is a request, and what its answer must be and have.
type exchange struct {
	method, path, body string
	status             int
	has                string
}

var exchanges = []exchange{
	{"GET", "/subscriptions", "", 200, `"health":"refused"`},
	{"GET", "/subscriptions?lanes=true&order=busiest&q=ERP&health=paused&limit=1", "", 200, `"total":1`},
	{"GET", "/subscriptions/erp", "", 200, `"state_reason":"maintenance"`},
	{"GET", "/subscriptions/none", "", 404, ""},
	{"GET", "/subscriptions/erp/document", "", 200, `"revision":1`},
	{"PUT", "/subscriptions/erp", aDocument, 200, `"created"`},
	{"PUT", "/subscriptions/other", aDocument, 422, "that of the path"},
	{"PUT", "/subscriptions/erp", `{"id": "erp", "url": "ftp://x"}`, 422, "url"},
	{"PUT", "/subscriptions/erp", `{`, 422, ""},
	{"POST", "/subscriptions?prune=true", `{"subscriptions": [` + aDocument + `]}`, 200, `"changes"`},
	{"POST", "/subscriptions", `[]`, 422, "no subscriptions"},
	{"DELETE", "/subscriptions/erp", "", 200, `"deleted"`},
	{"DELETE", "/subscriptions/none", "", 404, ""},
	{"POST", "/subscriptions/erp/pause", `{"reason": "maintenance"}`, 200, `"done"`},
	{"POST", "/subscriptions/erp/pause", `{"reason": 1}`, 422, `reason\" has the wrong type`},
	{"POST", "/subscriptions/erp/pause", `{"reson": "x"}`, 422, `reson\" is not a field of this request`},
	{"POST", "/subscriptions/erp/pause", `[]`, 422, "it is no object"},
	{"POST", "/subscriptions/erp/pause", `{"reason": "x"`, 422, "not JSON at byte 14"},
	{"POST", "/subscriptions/none/pause", "", 404, ""},
	{"POST", "/subscriptions/erp/resume", "", 200, ""},
	{"GET", "/subscriptions/erp/resume", "", 404, "catch-up"},
	{"POST", "/subscriptions/erp/resume", `{"replay": true}`, 200, `"3 missed deliveries went first"`},
	{"POST", "/subscriptions/erp/resume", `{"replay": "yes"}`, 422, `replay\" has the wrong type`},
	{"POST", "/subscriptions/none/resume", `{"replay": true}`, 404, ""},
	{"GET", "/subscriptions/erp/resume", "", 200, `"state":"done"`},
	{"POST", "/subscriptions/erp/skip", `{"delivery": "dlv_1"}`, 200, ""},
	{"POST", "/subscriptions/erp/retry", `{"entity": "order-1"}`, 200, ""},
	{"POST", "/subscriptions/erp/test", `{"event_type": "ping", "payload": "{}"}`, 200, `"dlv_2"`},
	{"GET", "/deliveries", "", 200, `"next":"`},
	{"GET", "/deliveries?state=lost", "", 400, "state"},
	{"GET", "/deliveries?after=x", "", 400, "cursor"},
	{"GET", "/deliveries?since=yesterday", "", 400, "since"},
	{"GET", "/deliveries?limit=0", "", 400, "limit"},
	{"GET", "/deliveries?limit=1&limit=2", "", 400, "twice"},
	{"GET", "/deliveries?colour=red", "", 400, "colour"},
	{"GET", "/deliveries/dlv_1", "", 200, `"encoding":"base64"`},
	{"GET", "/deliveries/none", "", 404, ""},
	{"GET", "/deliveries/dlv_1/attempts", "", 200, `"dlv_1.2"`},
	{"POST", "/replays", `{"subscription": "erp", "since": "2026-03-01T10:00:00Z", "failed": true, "dry_run": true}`, 200, `"events":10`},
	{"POST", "/replays", `{"delivery": "dlv_1", "rate": 10}`, 202, `"state":"done"`},
	{"POST", "/replays", `{"subscription": "none", "missed": true}`, 404, ""},
	{"POST", "/replays", `{"subscription": "erp"}`, 422, "since when"},
	{"POST", "/replays", "", 422, "nothing is selected"},
	{"POST", "/replays", `{"event": "e", "rate": -1}`, 422, "rate"},
	{"POST", "/replays", `{"event": "e", "since": "2300-01-01T00:00:00Z"}`, 422, "since"},
	{"POST", "/replays", `{"event": "e", "catch_up": true}`, 422, `catch_up\" is not a field`},
	{"POST", "/replays", `{"event": "e", "since": "x"}`, 422, `since\" is not a time such as`},
	{"GET", "/replays", "", 200, `"r_0"`},
	{"GET", "/replays?limit=0", "", 400, "limit"},
	{"GET", "/replays/r_1", "", 200, `"actor":"api@192.0.2.1"`},
	{"GET", "/replays/none", "", 404, ""},
	{"GET", "/stats", "", 200, `"success":7`},
	{"GET", "/stats?step=90", "", 400, "minutes"},
	{"GET", "/stats?since=2020-01-01T00:00:00Z", "", 400, "points"},
	{"PATCH", "/deliveries", "", 405, ""},
	{"GET", "/nothing", "", 404, "openapi.json"},
}

func TestAnswersAreAsDocumented(t *testing.T) {
	w, j := newWorld(t), newJudge(t)
	for _, tt := range exchanges {
		r := request(tt.method, tt.path, writeToken, tt.body)
		resp, body := w.ask(r)
		if resp.StatusCode != tt.status || !strings.Contains(body, tt.has) {
			t.Errorf("%s %s: %d %s, want %d and %q", tt.method, tt.path, resp.StatusCode, body, tt.status, tt.has)
		}
		if resp.StatusCode >= 400 && resp.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s %s: an error of type %s", tt.method, tt.path, resp.Header.Get("Content-Type"))
		}
		if resp.StatusCode == 405 || tt.path == "/nothing" {
			continue // not in the document
		}
		if err := j.answer(tt.method, pathOf(tt.method, tt.path), resp, body); err != nil {
			t.Error(err)
		}
	}
	if len(w.operator.asked) != 5 || w.operator.asked[0] != "pause maintenance erp by api@192.0.2.1" {
		t.Errorf("the operator was asked for %q", w.operator.asked)
	}
}

// Nobody without the scope gets through, whatever the route.
func TestScopes(t *testing.T) {
	w := newWorld(t)
	for _, rt := range (&rest{}).routes() {
		path := strings.ReplaceAll(rt.path, "{id}", "erp")
		for token, want := range map[string]int{"": 401, "unknown-token-0123456789": 401, readToken: 403} {
			if token == readToken && rt.scope.String() == "read" {
				continue
			}
			resp, body := w.ask(request(rt.method, path, token, ""))
			if resp.StatusCode != want {
				t.Errorf("%s %s with %q: %d %s", rt.method, path, token, resp.StatusCode, body)
			}
		}
	}
	if len(w.operator.asked)+len(w.editor.asked)+len(w.replayer.asked) != 0 {
		t.Errorf("something was done: %q %q %v", w.operator.asked, w.editor.asked, w.replayer.asked)
	}
}

// Who has no token is not told of one.
func TestWhatWasShown(t *testing.T) {
	for want, r := range map[string]*http.Request{
		"without a token (Authorization: Bearer TOKEN) there is only": request("DELETE", "/subscriptions/erp", "", ""),
		"this token has": request("DELETE", "/subscriptions/erp", readToken, ""),
	} {
		if got := shown(r, access.Granted{Scope: access.Read}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestBodiesAreBounded(t *testing.T) {
	w := newWorld(t)
	resp, body := w.ask(request("POST", "/subscriptions", writeToken, strings.Repeat(" ", maxBody+1)))
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
	r := request("POST", "/subscriptions/erp/pause", writeToken, `reason=x`)
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if resp, _ := w.ask(r); resp.StatusCode != http.StatusUnsupportedMediaType {
		t.Errorf("a form: %d", resp.StatusCode)
	}
}

// What is secret is in no answer that the scope read can have.
func TestNoSecretIsReturned(t *testing.T) {
	w := newWorld(t)
	for _, rt := range (&rest{}).routes() {
		if rt.method != "GET" || rt.scope.String() != "read" {
			continue
		}
		for _, id := range []string{"erp", "dlv_1"} {
			_, body := w.ask(request("GET", strings.ReplaceAll(rt.path, "{id}", id), readToken, ""))
			if strings.Contains(strings.ToLower(body), "canary") {
				t.Errorf("GET %s: %s", rt.path, body)
			}
		}
	}
}

// FuzzDocument makes requests of the document's operations: whatever the values,
// the answer is one that the document has, and never the program's fault.
func FuzzDocument(f *testing.F) {
	j := newJudge(f)
	routes := (&rest{}).routes()
	f.Add(0, "erp", "limit=3&after=1", "")
	f.Add(5, "erp", "", `{"reason":"x"}`)
	f.Add(12, "x", "since=2026-01-01T00:00:00Z&state=failed", "")
	f.Add(8, "erp", "", `{"replay":true}`)
	f.Add(17, "", "", `{"subscription":"erp","since":"2026-01-01T00:00:00Z","dry_run":true}`)
	f.Add(1, "", "prune=true", `{"subscriptions":[{"id":"a","url":"https://b.example"}]}`)
	f.Fuzz(func(t *testing.T, op int, id, query, body string) {
		w := newWorld(t)
		rt := routes[uint(op)%uint(len(routes))]
		r := httptest.NewRequest(rt.method, "http://localhost"+Prefix+strings.ReplaceAll(rt.path, "{id}", "erp"), strings.NewReader(body))
		r.Header.Set("Authorization", "Bearer "+writeToken)
		r.Header.Set("Content-Type", "application/json")
		r.URL.RawQuery = query
		if strings.Contains(rt.path, "{id}") && id != "" && id != "." && id != ".." && !strings.Contains(id, "/") {
			r.URL.Path = Prefix + strings.ReplaceAll(rt.path, "{id}", id)
			r.URL.RawPath = ""
		}
		resp, answer := w.ask(r)
		if resp.StatusCode >= 500 {
			t.Errorf("%s %s: %d %s", r.Method, r.URL, resp.StatusCode, answer)
		}
		if resp.StatusCode == http.StatusTemporaryRedirect || resp.StatusCode == http.StatusMovedPermanently {
			return // the path was cleaned
		}
		if err := j.answer(rt.method, rt.path, resp, answer); err != nil {
			t.Error(err)
		}
	})
}

// A catch-up that takes its time is answered as far as it is.
func TestCatchUpIsAnsweredBeforeItsEnd(t *testing.T) {
	j := newJudge(t)
	synctest.Test(t, func(t *testing.T) {
		f := &fakeReplayer{running: time.Minute}
		w := newWorldWith(t, f)
		const path = "/subscriptions/erp/resume"
		resp, body := w.ask(request("POST", path, writeToken, `{"replay": true}`))
		if resp.StatusCode != 202 || !strings.Contains(body, `"state":"running"`) || !strings.Contains(body, `"waiting":2`) {
			t.Errorf("%d %s", resp.StatusCode, body)
		}
		if err := j.answer("POST", pathOf("POST", path), resp, body); err != nil {
			t.Error(err)
		}
		if resp, body := w.ask(request("POST", path, writeToken, `{"replay": true}`)); resp.StatusCode != 409 {
			t.Errorf("once more: %d %s", resp.StatusCode, body)
		}
		time.Sleep(2 * time.Minute)
		if _, body := w.ask(request("GET", path, readToken, "")); !strings.Contains(body, `"state":"done"`) {
			t.Errorf("at its end: %s", body)
		}
	})
}
