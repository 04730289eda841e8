package format

import (
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
)

// cotEvent has the shape of the published COTEvent sample.
const cotEvent = `{
  "company": "625bcbdcc9a8e3a86dbf041c",
  "type": "COTTask",
  "extraData": null,
  "createdAt": "2022-05-05T19:54:29.924Z",
  "data": {
    "public": {"isActive": false, "language": "english", "title": ""},
    "answers": ["62742b57612dc2ecc1219d98"],
    "indentation": 0, "isActive": true, "isValid": false,
    "activeSlas": [], "validators": [],
    "editors": ["6261612d9fa3b40007c2ecc1"],
    "userList": ["6261612d9fa3b40007c2ecc1"],
    "color": "none", "formMessage": [], "language": "english",
    "_id": "62742b7562f37034d9399914",
    "name": " Equipment sector 1 - Equipment 1-A",
    "relativeWeight": 1,
    "assignee": "6261612d9fa3b40007c2ecc1",
    "startDate": "2022-05-05T19:54:29.117Z",
    "endDate": "2022-05-19T13:00:00.000Z",
    "channel": "62742b759d46b3000797f1a0",
    "status1": "6261612a8f1e997b825c8c10",
    "createdBy": "6261612a8f1e99b1875c8bed",
    "company": "625bcbdcc9a8e3a86dbf041c",
    "weight": 1.50, "projectCode": "62742b759d46b3000797f201"
  },
  "event": "create"
}`

var position = pipeline.Position{Cluster: "c1", TopicID: [16]byte{1, 2, 3}, Topic: "cotalker.events", Partition: 3, Offset: 42}

func mustOptions(t testing.TB, s string) *TopicOptions {
	t.Helper()
	o, err := ParseTopicOptions(s)
	if err != nil {
		t.Fatal(err)
	}
	return &o
}

func TestParseCotalker(t *testing.T) {
	for _, options := range []string{"", "cotalker"} {
		rec := Record{Value: []byte(cotEvent), Timestamp: time.UnixMilli(1700000000000)}
		var ev pipeline.Event
		if err := Parse(&rec, mustOptions(t, options), &position, &ev); err != nil {
			t.Fatal(err)
		}
		if &ev.Payload[0] != &rec.Value[0] || len(ev.Payload) != len(rec.Value) {
			t.Error("the payload is not the produced bytes")
		}
		ev.Payload = nil
		want := pipeline.Event{
			Source: position, Format: "cotalker", ID: pipeline.DerivedID(&position), Tenant: "625bcbdcc9a8e3a86dbf041c",
			Type: "COTTask.create", TypeAlias: "COTTask", Entity: "62742b7562f37034d9399914",
			Time: time.Date(2022, 5, 5, 19, 54, 29, 924e6, time.UTC), ProducedAt: rec.Timestamp,
		}
		if !equal(&ev, &want) {
			t.Errorf("options %q: got %+v, want %+v", options, ev, want)
		}
	}
}

// equal compares all but the payload.
func equal(a, b *pipeline.Event) bool {
	return a.Source == b.Source && a.Format == b.Format && a.ID == b.ID && a.Tenant == b.Tenant && a.Type == b.Type &&
		a.TypeAlias == b.TypeAlias && a.Entity == b.Entity && a.Correlation == b.Correlation && a.Target == b.Target &&
		a.Resthook == b.Resthook && a.Time.Equal(b.Time) && a.ProducedAt.Equal(b.ProducedAt) && a.ContentType == b.ContentType
}

func TestParseJSON(t *testing.T) {
	const all = "json:type=/kind,tenant=/shop/id,id=/ids/0,entity=/order/id,time=/at,default-tenant=acme"
	tests := []struct {
		name, options, value    string
		headers                 []Header
		typ, tenant, id, entity string
	}{
		{"all", all, `{"kind":"paid","shop":{"id":"s1"},"ids":["x-1"],"order":{"id":"o\u0031"},"at":"2024-01-02T03:04:05+02:00"}`, nil, "paid", "s1", "x-1", "o1"},
		{"numbers", all, `{"kind":200,"shop":{"id":7},"ids":[12],"order":{"id":1.50}}`, nil, "200", "7", "12", "1.50"},
		{"optional ones missing", all, `{"kind":"a","shop":{"id":"s"},"order":{"id":null},"at":null}`, nil, "a", "s", "", ""},
		{"unsafe id", all, `{"kind":"a","shop":{"id":"s"},"ids":["a.b\r\n"]}`, nil, "a", "s", pipeline.SafeID("a.b\r\n"), ""},
		{"tenant by default", "json:default-tenant=acme", `[1,2]`, nil, "", "acme", "", ""},
		{"tenant by header", "json:default-tenant=acme", `1`, []Header{{Key: "tenant", Value: []byte("t9")}}, "", "t9", "", ""},
		{"format by header", "cotalker", `{"x":1}`, []Header{{Key: "Hookline-Format", Value: []byte("json")}}, "", "", "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			rec := Record{Value: []byte(tt.value), Headers: tt.headers}
			var ev pipeline.Event
			if err := Parse(&rec, mustOptions(t, tt.options), &position, &ev); err != nil {
				t.Fatal(err)
			}
			if tt.id == "" {
				tt.id = pipeline.DerivedID(&position)
			}
			got := [...]string{string(ev.Format), ev.Type, ev.Tenant, ev.ID, ev.Entity, string(ev.Payload)}
			if want := [...]string{"json", tt.typ, tt.tenant, tt.id, tt.entity, tt.value}; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	edit := func(old, replacement string) string {
		if !strings.Contains(cotEvent, old) {
			t.Fatalf("the fixture has no %s", old)
		}
		return strings.Replace(cotEvent, old, replacement, 1)
	}
	tests := []struct{ name, options, value, header, want string }{
		{"empty", "cotalker", "", "", "empty value: want a JSON text"},
		{"not json", "cotalker", "hello", "", "not JSON (byte 0): want a value"},
		{"truncated", "cotalker", cotEvent[:100], "", "truncated JSON (byte 100) at /createdAt: want a value"},
		{"bom", "cotalker", "\xef\xbb\xbf" + cotEvent, "", "byte order mark (byte 0): want JSON without one"},
		{"utf-8", "", edit("none", "n\xffne"), "", "invalid UTF-8 (byte 460) at /data/color: want UTF-8"},
		{"lone surrogate", "", edit("none", `\udc00`), "", "lone surrogate (byte 459) at /data/color: want surrogates in pairs"},
		{"duplicate", "", edit(`"isValid"`, `"isActive"`), "", "duplicate name"},
		{"deep", "json", strings.Repeat("[", 513) + strings.Repeat("]", 513), "", "nested too deep (byte 512)"},
		{"too deep by far", "json", strings.Repeat(`{"a":`, 10000), "", "nested too deep"},
		{"no company", "cotalker", edit(`"company"`, `"Company"`), "", "missing field at /company: want a string of 24 hex digits"},
		{"short company", "cotalker", edit("625b", "62"), "", "not an ObjectId at /company: want a string of 24 hex digits"},
		{"company a number", "cotalker", edit(`"625bcbdcc9a8e3a86dbf041c"`, "1"), "", "wrong type (a number) at /company: want a string of 24 hex digits"},
		{"empty type", "cotalker", edit(`"COTTask"`, `""`), "", `empty string at /type: want a string such as "COTTask"`},
		{"control character", "cotalker", edit(`"create"`, `"cre\r\nate"`), "", "control character at /event: want printable text"},
		{"no data", "cotalker", edit(`"data"`, `"date"`), "", "missing field at /data: want an object"},
		{"entity an object", "cotalker", edit(`"62742b7562f37034d9399914"`, "{}"), "", "wrong type (an object) at /data/_id: want a string"},
		{"bad time", "cotalker", edit("2022-05-05T19:54:29.924Z", "yesterday"), "", "not a time at /createdAt: want an RFC 3339 time"},
		{"no object", "cotalker", "[]", "", "wrong type (an array): want an object"},
		{"unknown shape", "", `{"a":1}`, "", "unknown shape: want a format named by the topic or by header hookline-format"},
		{"cloudevents", "cotalker", "{}", "ce_specversion=1.0", "missing attribute id (header ce_id): want the event's id"},
		{"structured", "", "{}", "Content-Type=application/CloudEvents+json; charset=utf-8", "missing attribute specversion at /specversion: want \"1.0\""},
		{"unknown header", "", "{}", "hookline-format=xml", "unknown format in header hookline-format: want one of " + Names()},
		{"pointer to nothing", "json:type=/kind", "{}", "", "missing field at /kind: want a string or a number"},
		{"pointer to null", "json:tenant=/t", `{"t":null}`, "", "wrong type (null) at /t: want a string or a number"},
		{"entity a list", "json:entity=/e", `{"e":[]}`, "", "wrong type (an array) at /e: want a string or a number"},
		{"too large", "json", `"` + strings.Repeat("x", 5000) + `"`, "", "too large: 5002 bytes: want at most 5000 bytes (EVENT_MAX_BYTES)"},
		{"bad tenant header", "json", "{}", "tenant=a\nb", "control character in header tenant: want printable text"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := mustOptions(t, tt.options)
			o.MaxBytes = 5000
			if tt.name == "too deep by far" {
				o.MaxBytes = 0
			}
			rec := Record{Value: []byte(tt.value)}
			if key, value, ok := strings.Cut(tt.header, "="); ok {
				rec.Headers = []Header{{Key: key, Value: []byte(value)}}
			}
			var ev pipeline.Event
			checkRefused(t, Parse(&rec, o, &position, &ev), tt.want)
			if want := (pipeline.Event{Source: position}); !equal(&ev, &want) {
				t.Errorf("a refused record left %+v", ev)
			}
		})
	}
}

func checkRefused(t *testing.T, err error, want string) {
	t.Helper()
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, want an *Error", err)
	}
	if !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got  %q\nwant %q", err, want)
	}
	if strings.ContainsAny(err.Error(), "\r\n\x00") || !utf8.ValidString(err.Error()) {
		t.Errorf("%q is not one line of UTF-8", err)
	}
}

func TestParseTopicOptionsRefuses(t *testing.T) {
	tests := []struct{ in, want string }{
		{"xml", `format "xml" is unknown (one of ` + Names() + `)`},
		{"cotalker:type=/a", "type: pointers belong to format json"},
		{"json:type=kind", "must start with /"},
		{"json:type=/\r", "type: \"/\\r\" has control characters or is not UTF-8"},
		{"json:kind=/a", "kind: unknown option"},
		{"json:type=/a,type=/b", "type is set twice"},
		{"json:type", `"type" is no option`},
		{"json:default-tenant=*", `"*" is not a tenant`},
		{"goflow:default-tenant=a\x00b", `"a\x00b" is not a tenant`},
		{"goflow:unknown-types=yes", `unknown-types: "yes" is neither allow nor refuse`},
		{"task:unknown-types=allow", "unknown-types: it belongs to format goflow"},
		{"signl4:type=/a", "type: pointers belong to format json"},
		{"signl4:window=10m", "window: it belongs to dedupe=event_id, which is not set"},
		{"signl4:dedupe=payload", `dedupe: "payload" is not event_id`},
		{"signl4:dedupe", `"dedupe" is no option`},
		{"signl4:dedupe=event_id,window=999ms", `window: "999ms" is not a duration of 1s to 24h`},
		{"signl4:window=24h1s,dedupe=event_id", `window: "24h1s" is not a duration of 1s to 24h`},
		{"signl4:dedupe=event_id,window=ten", `window: "ten" is not a duration of 1s to 24h`},
		{"signl4:dedupe=event_id,dedupe=event_id", "dedupe is set twice"},
	}
	for _, tt := range tests {
		if _, err := ParseTopicOptions(tt.in); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", tt.in, err, tt.want)
		}
	}
	if _, err := ParseTopicOptions("json:kind=/a,type=b"); strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("not all errors at once: %v", err)
	}
}

func TestDedupeWindow(t *testing.T) {
	for in, want := range map[string]time.Duration{
		"signl4":                                  0,
		"signl4:dedupe=event_id":                  10 * time.Minute,
		"signl4:dedupe=event_id,window=1s":        time.Second,
		"json:window=24h,id=/id,dedupe=event_id":  24 * time.Hour,
		"cloudevents:window=90m,dedupe=event_id":  90 * time.Minute,
		"cotalker:dedupe=event_id,window=1h30m5s": 90*time.Minute + 5*time.Second,
	} {
		if o := mustOptions(t, in); o.DedupeWindow != want {
			t.Errorf("%s: a window of %v, want %v", in, o.DedupeWindow, want)
		}
	}
}
