package registry

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

func testPolicy() *Policy {
	ports, err := endpoint.ParsePorts([]string{"443", "8080"})
	if err != nil {
		panic(err)
	}
	inbound, err := endpoint.ParseInbounds([]string{"json=in.example.com/hook/*"})
	if err != nil {
		panic(err)
	}
	return &Policy{URL: endpoint.Policy{Ports: ports, Inbound: inbound}, MaxTimeout: 15 * time.Second}
}

const fullYAML = `subscriptions:
  - id: 62685990918555799920e123    # digits and one e: a number to YAML
    tenant: 625bcbdcc9a8e3a86dbf041c
    description: ERP mirror
    url: https://erp.example.com/hooks/tasks
    format: json
    events: ["COTTask.*", 200]
    resthook: ""
    filter: ''
    ordering: entity
    on_exhausted: block
    timeout: 10s
    retries: 0
    concurrency: 4
    headers: {X-Team: ops, X-Build: 17}
    content_mode: binary
    state: paused
---
- {id: b, tenant: "*", url: "https://b.example.com/"}
---
id: c
tenant: t
url: https://c.example.com:8080/x
format: [cotalker, json]
`

func TestParseDocuments(t *testing.T) {
	docs, err := ParseDocuments("subs.yaml", []byte(fullYAML), testPolicy())
	if err != nil {
		t.Fatal(err)
	}
	var got []*pipeline.Subscription
	for i := range docs {
		got = append(got, docs[i].Subscription(7, testPolicy()))
	}
	want := []*pipeline.Subscription{
		{
			ID: "62685990918555799920e123", Tenant: "625bcbdcc9a8e3a86dbf041c", Description: "ERP mirror",
			URL: "https://erp.example.com/hooks/tasks", Formats: []pipeline.Format{"json"}, Events: []string{"COTTask.*", "200"},
			Ordering: "entity", OnExhausted: "block", Timeout: 10 * time.Second, Retries: 0, Concurrency: 4,
			Headers: []pipeline.Header{{Name: "X-Build", Value: "17"}, {Name: "X-Team", Value: "ops"}}, ContentMode: "binary", State: "paused", Revision: 7,
		},
		{
			ID: "b", Tenant: "*", URL: "https://b.example.com/", Events: []string{"*"}, Ordering: "subscription",
			OnExhausted: "continue", Retries: 3, Concurrency: 16, ContentMode: "raw", State: "active", Revision: 7,
		},
		{
			ID: "c", Tenant: "t", URL: "https://c.example.com:8080/x", Formats: []pipeline.Format{"cotalker", "json"}, Events: []string{"*"},
			Ordering: "subscription", OnExhausted: "continue", Retries: 3, Concurrency: 16, ContentMode: "raw", State: "active", Revision: 7,
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

func TestParseDocumentsJSON(t *testing.T) {
	const src = "{\n\t\"subscriptions\": [\n\t\t{\"id\": \"a\", \"tenant\": \"\\ud83d\\ude00\", \"url\": \"https:\\/\\/a.example.com\\/\", \"retries\": 1}\n\t]\n}\n"
	docs, err := ParseDocuments("subs.json", []byte(src), testPolicy())
	if err != nil {
		t.Fatal(err)
	}
	if len(docs) != 1 || docs[0].Tenant != "😀" || docs[0].URL != "https://a.example.com/" || *docs[0].Retries != 1 {
		t.Errorf("got %+v", docs)
	}
}

const okFields = "tenant: t, url: 'https://a.example.com/'"

// oneDoc is a document with okFields and these.
func oneDoc(fields string) string {
	return "subscriptions:\n  - {id: a, " + okFields + ", " + fields + "}\n"
}

// refusedDocuments are bad texts with all the errors that each must give.
var refusedDocuments = []struct {
	name, src string
	want      []string
}{
	{"all at once", `subscriptions:
  - id: a b
    tenant: t
    url: ftp://x.example.com/
  - id: ok
    tenant: t
    url: https://a.example.com/
    colour: red
    retries: 4
    timeout: 10
  - text
`, []string{
		`f.yaml:11: subscriptions[2]: want a subscription, got text`,
		`f.yaml:8: subscriptions[1].colour: unknown field (known: `,
		`f.yaml:2: subscriptions[0].id: "a b" is not an id (1 to 128 of A-Z a-z 0-9 _ -)`,
		`f.yaml:4: subscriptions[0].url: scheme "ftp" is not https`,
		`f.yaml:10: subscriptions[1].timeout: "10" is not a duration (write 10s or 500ms)`,
		`f.yaml:9: subscriptions[1].retries: 4 is not within 0 to 3`,
	}},
	{"missing", "- description: x\n", []string{
		"f.yaml:1: [0].id: missing", "f.yaml:1: [0].tenant: missing (name the tenant", "f.yaml:1: [0].url: missing (write https://host/path)",
	}},
	{"duplicate id", "- {id: a, " + okFields + "}\n- {id: a, " + okFields + "}\n", []string{`f.yaml:2: [1].id: "a" is there twice (first on line 1)`}},
	{"duplicate field", oneDoc("retries: 1, retries: 2"), []string{"subscriptions[0].retries: the field is there twice"}},
	{"typo", oneDoc("onExhausted: block"), []string{"subscriptions[0].onExhausted: unknown field (did you mean on_exhausted?)"}},
	{"wrong types", oneDoc("retries: two, concurrency: 1.5, events: {a: b}, state: [active], headers: [x], description: null"), []string{
		"retries: want a whole number, got text", "concurrency: want a whole number, got a number", "events: want text or a list of text, got a mapping",
		"state: want text, got a list", "headers: want a mapping of names to values, got a list", "description: want text, got nothing",
	}},
	{"a boolean", oneDoc("description: true"), []string{"description: want text, got true or false"}},
	{"ranges", oneDoc("timeout: 16s, concurrency: 0, retries: -1"), []string{
		"timeout: 16s is more than the request timeout of 15s (lower it", "retries: -1 is not within 0 to 3", "concurrency: 0 is not within 1 to 10000",
	}},
	{"timeout below", oneDoc("timeout: 10us"), []string{"timeout: 10µs is less than 1ms"}},
	{"words", oneDoc("ordering: strict, on_exhausted: stop, content_mode: cloud, state: on"), []string{
		`content_mode: "cloud" is not known (one of raw, structured, binary)`,
		`ordering: "strict" is not known (one of subscription, entity, none)`, `on_exhausted: "stop" is not known (one of continue, block)`,
		`state: "on" is not known (one of active, paused, disabled)`,
	}},
	{"events", oneDoc(`events: ["", "a\nb"]`), []string{"events.0: empty name", "events.1: it has control characters"}},
	{"resthook", oneDoc(`resthook: "a\tb"`), []string{"resthook: it has control characters"}},
	{"no events", oneDoc("events: []"), []string{"events: the list is empty (leave the field out for the default)"}},
	{"format", oneDoc("format: [xml, json, json]"), []string{`format: "xml" is not a format that this version reads (one of cotalker, `, `format: "json" is there twice`}},
	{"tenant pattern", "- {id: a, tenant: 'a*', url: 'https://a.example.com/'}", []string{`tenant: "a*" is a pattern (a tenant is named in full`}},
	{"headers", oneDoc(`headers: {Host: x, "X: Y": z}`), []string{`headers: "Host" is set by hookline or reserved`, `headers: name "X: Y" is not a header name`}},
	{"limits", oneDoc("rate: 50, disable_after: soon"), []string{
		`rate: "50" is not a number per s, m or h (write 50/s, 600/m or 1000/h)`, `disable_after: "soon" is not a duration (write 12h or 5d)`,
	}},
	{"loop", "- {id: a, tenant: t, url: 'https://in.example.com/hook/x'}", []string{"url: in.example.com is an inbound webhook of format json: the event would come back"}},
	{"empty", "", []string{"f.yaml: no subscriptions (write a list under subscriptions:)"}},
	{"text", "hello", []string{"f.yaml:1: want subscriptions, got text"}},
	{"other field", "subscription: []", []string{"f.yaml:1: subscription: unknown field (the document has one field, subscriptions)"}},
	{"not a list", "subscriptions: {}", []string{"f.yaml:1: subscriptions: want a list, got a mapping"}},
	{"yaml", "a: b\n c: d\n", []string{"f.yaml:2: not valid YAML: "}},
	{"json", "{\"subscriptions\": [\n{\"id\": \"a\",, }]}", []string{"f.yaml:2: not valid JSON: "}},
	{"merge", "- &x {id: a, " + okFields + "}\n- {<<: *x, id: b, " + okFields + "}\n", []string{"f.yaml:2: [1].<<: merge keys are not supported (write the fields out)"}},
}

func TestParseDocumentsRefuses(t *testing.T) {
	for _, tt := range refusedDocuments {
		t.Run(tt.name, func(t *testing.T) {
			docs, err := ParseDocuments("f.yaml", []byte(tt.src), testPolicy())
			if err == nil || docs != nil {
				t.Fatalf("accepted: %+v", docs)
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tt.want) {
				t.Errorf("%d errors, want %d:\n%v", len(lines), len(tt.want), err)
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("no %q in\n%v", want, err)
				}
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("a secret is shown: %v", err)
			}
		})
	}
}

func TestParseDocumentsRefusesJSON(t *testing.T) {
	for _, src := range []string{"[\n{\"id\": \"a\", \"id\": \"b\"}]", "[\n{\"id\": a}]", "[\n{\"id\": \"a\"},]"} {
		_, err := ParseDocuments("f.json", []byte(src), testPolicy())
		if err == nil || !strings.HasPrefix(err.Error(), "f.json:2: not valid JSON: ") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v", src, err)
		}
	}
}

func TestAliasesWork(t *testing.T) {
	docs, err := ParseDocuments("f.yaml", []byte("- {id: a, tenant: t, url: &u 'https://a.example.com/'}\n- {id: b, tenant: t, url: *u}\n"), testPolicy())
	if err != nil || docs[1].URL != docs[0].URL {
		t.Errorf("got %+v, %v", docs, err)
	}
}

func FuzzParseDocuments(f *testing.F) {
	f.Add(fullYAML)
	f.Add(`{"subscriptions":[{"id":"a","tenant":"t","url":"https://a.example.com/","retries":1}]}`)
	f.Add("- &x [*x]\n")
	f.Add("a: &a {auth: *a, id: 1}")
	f.Fuzz(func(t *testing.T, src string) {
		pol := testPolicy()
		docs, err := ParseDocuments("f", []byte(src), pol)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		for i := range docs {
			value := encode(&docs[i], 1, time.Unix(0, 0), nil)
			r, err := ParseRecord([]byte(docs[i].ID), value, pol)
			if err != nil || !utf8.Valid(value) || !reflect.DeepEqual(r.Sub, docs[i].Subscription(1, pol)) {
				t.Errorf("%q: stored as %s, read as %+v, %v", src, value, r.Sub, err)
			}
		}
	})
}
