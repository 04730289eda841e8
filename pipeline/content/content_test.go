package content

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func request(mode pipeline.ContentMode, env *pipeline.Envelope, payload string) *pipeline.Request {
	return &pipeline.Request{
		DeliveryID: "dlv_one", Attempt: 1, Envelope: env, Payload: []byte(payload),
		Subscription: &pipeline.Subscription{ID: "sub-1", ContentMode: mode},
	}
}

func plainEnvelope() *pipeline.Envelope {
	return &pipeline.Envelope{
		Source: pipeline.Position{Cluster: "c/1", TopicID: [16]byte{1}, Topic: "cotalker.events", Partition: 3, Offset: 7},
		Format: pipeline.FormatCotalker, EventID: "625bcb", Tenant: "acmé \"x\"", EventType: "COTTask.create", Entity: "50%\x01",
		Correlation: "order 1", Time: time.Date(2022, 4, 26, 19, 54, 29, 924_000_000, time.UTC),
	}
}

func binaryEvent() *pipeline.Envelope {
	return &pipeline.Envelope{
		Format: pipeline.FormatCloudEvents, EventID: "h_hash", EventType: "com.example", ContentType: "application/json; charset=utf-8",
		Attributes: []pipeline.Attribute{
			{Name: "specversion", Value: "1.0"},
			{Name: "id", Value: "A 1"},
			{Name: "source", Value: "/s"},
			{Name: "type", Value: "com.example"},
			{Name: "my_ext", Value: "Euro € 😀"},
			{Name: "id", Value: "twice"},
			{Name: "x\r\nhost", Value: "evil"},
			{Name: "data", Value: "evil"},
		},
	}
}

const structuredEvent = `{ "specversion" : "1.0", "type":"com.example","source":"/s","id":"A \"1\"","time":"2020-01-01T00:00:00Z",
 "datacontenttype":"application/vnd.x+json", "count": 42,"yes":true,"none":null, "data": {"b": 1.0,  "a":[]} }`

// show writes a message as a test's want: content type, headers, body.
func show(m *Message) string {
	var b strings.Builder
	b.WriteString(m.ContentType + "\n")
	for _, h := range m.Headers {
		b.WriteString(h.Name + ": " + h.Value + "\n")
	}
	return b.String() + string(m.Body)
}

const (
	wantAttributes = `{"specversion":"1.0","id":"evt_kforukx5nkrbximxaub465vcvu","source":"/hookline/c%2F1/cotalker.events",` +
		`"type":"COTTask.create","subject":"50%` + "\ufffd" + `","time":"2022-04-26T19:54:29.924Z","tenant":"acmé \"x\"","correlationid":"order 1","eventid":"625bcb",`
	wantHeaders = "ce-specversion: 1.0\nce-id: evt_kforukx5nkrbximxaub465vcvu\nce-source: /hookline/c%252F1/cotalker.events\n" +
		"ce-type: COTTask.create\nce-subject: 50%25%EF%BF%BD\nce-time: 2022-04-26T19:54:29.924Z\nce-tenant: acm%C3%A9%20%22x%22\n" +
		"ce-correlationid: order%201\nce-eventid: 625bcb\n"
	ceHeaders = "ce-specversion: 1.0\nce-id: A%201\nce-source: /s\nce-type: com.example\nce-my_ext: Euro%20%E2%82%AC%20%F0%9F%98%80\n"
)

// rendering is a golden test: what becomes of a payload.
type rendering struct {
	name    string
	mode    pipeline.ContentMode
	env     *pipeline.Envelope
	payload string
	want    string // as show writes it
}

func (tc *rendering) check(t *testing.T) {
	req := request(tc.mode, tc.env, tc.payload)
	dst, m, err := Render([]byte("kept"), req)
	if err != nil {
		t.Fatal(err)
	}
	if got := show(&m); got != tc.want {
		t.Errorf("got\n%s\nwant\n%s", got, tc.want)
	}
	if !bytes.HasPrefix(dst, []byte("kept")) || string(req.Payload) != tc.payload {
		t.Errorf("dst %q, payload %q", dst, req.Payload)
	}
	if m.ContentType == TypeStructured && !json.Valid(m.Body) {
		t.Error("the body is not JSON")
	}
	again, same, err := Render(make([]byte, 0, 4096), req)
	if err != nil || show(&same) != show(&m) {
		t.Errorf("the second time: %v, %q", err, again)
	}
}

func TestRender(t *testing.T) {
	const spaced = " {\"z\": 1.00,\n\"a\":\"\\u00e9\"} "
	bare := &pipeline.Envelope{Format: pipeline.FormatJSON, Source: pipeline.Position{Topic: "t"}}
	bare.EventID = pipeline.DerivedID(&bare.Source)
	odd := plainEnvelope()
	odd.ContentType = "text/x\r\nHost: evil"
	for _, tc := range []rendering{
		{"raw", pipeline.ContentRaw, plainEnvelope(), spaced, "application/json\n" + spaced},
		{"default mode", "", plainEnvelope(), spaced, "application/json\n" + spaced},
		{"content type that no header carries", "", odd, spaced, "application/json\n" + spaced},
		{"structured", pipeline.ContentStructured, plainEnvelope(), spaced, "application/cloudevents+json\n" + wantAttributes + `"datacontenttype":"application/json","data":` + spaced + "}"},
		{"binary", pipeline.ContentBinary, plainEnvelope(), spaced, "application/json\n" + wantHeaders + spaced},
		{"least", pipeline.ContentStructured, bare, "1", `application/cloudevents+json` + "\n" + `{"specversion":"1.0","id":"` + bare.EventID +
			`","source":"/hookline//t","type":"json","datacontenttype":"application/json","data":1}`},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestRenderCloudEvents(t *testing.T) {
	text := binaryEvent()
	text.ContentType = "text/plain"
	untyped := binaryEvent()
	untyped.ContentType = ""
	ce := &pipeline.Envelope{Format: pipeline.FormatCloudEvents}
	declared := &pipeline.Envelope{Format: pipeline.FormatCloudEvents, ContentType: "application/cloudevents+json; charset=UTF-8"}
	for _, tc := range []rendering{
		{"binary event, raw", "", binaryEvent(), "[1]", "application/json; charset=utf-8\n" + ceHeaders + "[1]"},
		{"binary event, binary", pipeline.ContentBinary, binaryEvent(), "[1]", "application/json; charset=utf-8\n" + ceHeaders + "[1]"},
		{"binary event, structured", pipeline.ContentStructured, binaryEvent(), "[1]", "application/cloudevents+json\n" +
			`{"specversion":"1.0","id":"A 1","source":"/s","type":"com.example","my_ext":"Euro € 😀","datacontenttype":"application/json; charset=utf-8","data":[1]}`},
		{"binary event that is not JSON, structured", pipeline.ContentStructured, binaryEvent(), "[1", "application/cloudevents+json\n" +
			`{"specversion":"1.0","id":"A 1","source":"/s","type":"com.example","my_ext":"Euro € 😀","datacontenttype":"application/json; charset=utf-8","data_base64":"WzE="}`},
		{"text event, structured", pipeline.ContentStructured, text, "17", "application/cloudevents+json\n" +
			`{"specversion":"1.0","id":"A 1","source":"/s","type":"com.example","my_ext":"Euro € 😀","datacontenttype":"text/plain","data_base64":"MTc="}`},
		{"untyped event without data, structured", pipeline.ContentStructured, untyped, "", "application/cloudevents+json\n" +
			`{"specversion":"1.0","id":"A 1","source":"/s","type":"com.example","my_ext":"Euro € 😀"}`},

		{"structured event, raw", "", ce, structuredEvent, "application/cloudevents+json\n" + structuredEvent},
		{"structured event, structured", pipeline.ContentStructured, declared, structuredEvent, "application/cloudevents+json; charset=UTF-8\n" + structuredEvent},
		{"structured event, binary", pipeline.ContentBinary, ce, structuredEvent, "application/vnd.x+json\n" +
			"ce-specversion: 1.0\nce-type: com.example\nce-source: /s\nce-id: A%20%221%22\nce-time: 2020-01-01T00:00:00Z\nce-count: 42\nce-yes: true\n" +
			`{"b": 1.0,  "a":[]}`},
		{"base64 data, binary", pipeline.ContentBinary, ce, `{"id":"1","datacontenttype":"image/png","data_base64":"AP8="}`, "image/png\nce-id: 1\n\x00\xff"},
		{"text data, binary", pipeline.ContentBinary, ce, `{"id":"1","datacontenttype":"text/plain","data":"a\u00e9"}`, "text/plain\nce-id: 1\naé"},
		{"JSON text data, binary", pipeline.ContentBinary, ce, `{"id":"1","data":"a\u00e9"}`, "application/json\nce-id: 1\n" + `"a\u00e9"`},
		{"null data, binary", pipeline.ContentBinary, ce, `{"id":"1","data":null}`, "application/json\nce-id: 1\nnull"},
		{"no data, binary", pipeline.ContentBinary, ce, `{"id":"1"}`, "application/json\nce-id: 1\n"},
	} {
		t.Run(tc.name, tc.check)
	}
}

func TestRenderRawNeitherCopiesNorAllocates(t *testing.T) {
	req := request("", plainEnvelope(), `{"a":1}`)
	dst := make([]byte, 0, 1024)
	allocs := testing.AllocsPerRun(100, func() {
		_, m, err := Render(dst, req)
		if err != nil || &m.Body[0] != &req.Payload[0] {
			t.Fatal("it was copied", err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestRenderRefuses(t *testing.T) {
	spliced := func(s pipeline.Splice) *pipeline.Envelope {
		return &pipeline.Envelope{Format: pipeline.FormatSIGNL4, Splice: &s}
	}
	ce := &pipeline.Envelope{Format: pipeline.FormatCloudEvents}
	const payload = `{"id":"hush","subscription":null}` // id 6..12, subscription 28..32
	for name, tc := range map[string]struct {
		env     *pipeline.Envelope
		payload string
	}{
		"no brace":               {spliced(pipeline.Splice{InsertAt: 2}), payload},
		"insert at 0":            {spliced(pipeline.Splice{}), payload},
		"insert beyond":          {spliced(pipeline.Splice{InsertAt: 99}), payload},
		"id beyond":              {spliced(pipeline.Splice{InsertAt: 1, IDFrom: 6, IDTo: 99}), payload},
		"id backwards":           {spliced(pipeline.Splice{InsertAt: 1, IDFrom: 12, IDTo: 6}), payload},
		"subscription beyond":    {spliced(pipeline.Splice{InsertAt: 1, Sub: pipeline.SubValue, SubFrom: 28, SubTo: 99}), payload},
		"subscription before":    {spliced(pipeline.Splice{InsertAt: 1, Sub: pipeline.SubValue}), payload},
		"overlap":                {spliced(pipeline.Splice{InsertAt: 1, IDFrom: 6, IDTo: 12, Sub: pipeline.SubValue, SubFrom: 8, SubTo: 32}), payload},
		"unknown way":            {spliced(pipeline.Splice{InsertAt: 1, Sub: 9, SubFrom: 28, SubTo: 32}), payload},
		"empty payload":          {spliced(pipeline.Splice{InsertAt: 1}), ""},
		"structured: not JSON":   {ce, `{"hush"`},
		"structured: an array":   {ce, `["hush"]`},
		"structured: cut":        {ce, `{"id":"hush"`},
		"structured: bad base64": {ce, `{"data_base64":"hush?"}`},
	} {
		t.Run(name, func(t *testing.T) {
			dst, m, err := Render([]byte("kept"), request(pipeline.ContentBinary, tc.env, tc.payload))
			if err == nil || strings.Contains(err.Error(), "hush") || m.Body != nil || string(dst) != "kept" {
				t.Errorf("%v; %q; %q", err, m.Body, dst)
			}
			if tc.env.Splice != nil {
				if dst, m, err := Render(nil, request(pipeline.ContentStructured, tc.env, tc.payload)); err == nil || m.Body != nil || len(dst) > 0 {
					t.Errorf("structured: %v; %q", err, dst)
				}
			}
		})
	}
}

func TestNotificationID(t *testing.T) {
	one, two := NotificationID("dlv_one"), NotificationID("dlv_two")
	// As Python's uuid.uuid5 makes it.
	if one != "6ceced60-0e82-5158-a76f-d21b4713cdf6" || one == two {
		t.Errorf("%s, %s", one, two)
	}
}

func BenchmarkRender(b *testing.B) {
	for _, mode := range []pipeline.ContentMode{pipeline.ContentRaw, pipeline.ContentStructured, pipeline.ContentBinary} {
		b.Run(string(mode), func(b *testing.B) {
			req := request(mode, plainEnvelope(), fmt.Sprintf(`{"pad":"%s"}`, strings.Repeat("x", 1000)))
			var dst []byte
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if dst, _, err = Render(dst[:0], req); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
