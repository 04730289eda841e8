package logshape

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func sample() *pipeline.Attempt {
	return &pipeline.Attempt{
		AttemptID: "a1", DeliveryID: "dlv_1", SubscriptionID: "s\"1", URL: "https://x.example:8443/h?key=[redacted]", Attempt: 4,
		Outcome: pipeline.OutcomeTimeout, Error: "connect ETIMEDOUT 67.225.146.248:443",
		StartedAt: time.Date(2026, 3, 1, 20, 4, 38, 84_999_999, time.FixedZone("x", 3600)), Elapsed: 1999*time.Millisecond + 999*time.Nanosecond,
		RequestHeaders: []byte("Host: x.example:8443\r\nA: b\r\n"), RequestBytes: 7, RequestWritten: true,
		Envelope: &pipeline.Envelope{Tenant: "625bcbdcc9a8e3a86dbf041c", EventID: "e1"},
	}
}

func TestCOTWebhookLog(t *testing.T) {
	a := sample()
	event := "{\r\n\t\"b\": 1.50,\n  \"a\": \"<\\n>\"}\n"
	const head = `{"_id":"69a48dc8f55ff16f66f43360","company":"625bcbdcc9a8e3a86dbf041c","createdAt":"2026-03-01T19:04:40.083Z",`
	const tail = `,"subscription":"s\"1","__v":0}`
	for _, c := range []struct {
		name, want string
		change     func()
		event      string
	}{
		{"no answer", head + `"status":409,"retry":3,"response":"connect ETIMEDOUT 67.225.146.248:443","event":{"b": 1.50,"a": "<\n>"}` + tail, func() {}, event},
		{"event not stored yet", head + `"status":409,"retry":3,"response":"connect ETIMEDOUT 67.225.146.248:443","event":{}` + tail, func() {}, ""},
		{"answer", head + `"status":500,"retry":0,"response":"<b>\u0000�\n","event":{}` + tail, func() {
			a.StatusCode, a.Outcome, a.Error, a.Attempt, a.ResponseBody = 500, pipeline.OutcomeResponseError, "status 500", 1, []byte("<b>\x00\xff\xfe\n")
		}, " "},
		{"a 409 of the receiver's own", head + `"status":409,"retry":0,"response":"","event":{}` + tail, func() { a.StatusCode, a.ResponseBody = 409, nil }, ""},
	} {
		c.change()
		got := AppendCOTWebhookLog([]byte("x"), a, []byte(c.event))
		if string(got) != "x"+c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got[1:], c.want)
		}
		if !json.Valid(got[1:]) || bytes.ContainsAny(got, "\r\n") {
			t.Errorf("%s: not one line of JSON", c.name)
		}
	}
	b := *a
	b.AttemptID = "a2"
	if COTWebhookID(a) == COTWebhookID(&b) || COTWebhookID(a)[:8] != COTWebhookID(&b)[:8] {
		t.Errorf("ids %s and %s of attempts at one moment", COTWebhookID(a), COTWebhookID(&b))
	}
}

func TestLogged(t *testing.T) {
	for _, o := range pipeline.Outcomes {
		a := &pipeline.Attempt{Attempt: 1, Outcome: o}
		if Logged(a) != (o != pipeline.OutcomeCancelled && o != pipeline.OutcomeLocalError) {
			t.Errorf("%s: %v", o, Logged(a))
		}
		if a.Attempt = 0; Logged(a) {
			t.Errorf("%s without a try", o)
		}
	}
}

func TestWebhookCalled(t *testing.T) {
	const head = `{"type":"webhook_called","created_on":"2026-03-01T19:04:40.083999Z","url":"https://x.example:8443/h?key=[redacted]",`
	const request = `"request":"POST /h?key=[redacted] HTTP/1.1\r\nHost: x.example:8443\r\nA: b\r\n\r\n`
	answer := func(o pipeline.Outcome, status int, body string) func(*pipeline.Attempt, *Called) {
		return func(a *pipeline.Attempt, _ *Called) {
			a.Outcome, a.StatusCode, a.ResponseBody, a.ResponseHeaders = o, status, []byte(body), []byte("C: d\r\n")
		}
	}
	for _, c := range []struct {
		name, want string
		change     func(*pipeline.Attempt, *Called)
	}{
		{"no answer", head + `"status":"connection_error","elapsed_ms":1999,` + request + `{\"a\":1}"}`, func(*pipeline.Attempt, *Called) {}},
		{"resthook, ids", head + `"resthook":"r","status":"connection_error","elapsed_ms":1999,` + request + `{\"a\":1}","subscription_id":"s\"1","event_id":"e1"}`, func(_ *pipeline.Attempt, c *Called) {
			c.Resthook, c.WithIDs = "r", true
		}},
		{"success", head + `"status":"success","status_code":209,"elapsed_ms":1999,` + request + `{\"a\":1}","response":"HTTP/1.1 209 \r\nC: d\r\n\r\nok"}`, answer(pipeline.OutcomeSuccess, 209, "ok")},
		{"gone", head + `"status":"subscriber_gone","status_code":410,"elapsed_ms":1999,` + request + `{\"a\":1}","response":"HTTP/1.1 410 Gone\r\nC: d\r\n\r\n"}`, answer(pipeline.OutcomeGone, 410, "")},
		{"binary", head + `"status":"response_error","status_code":500,"elapsed_ms":1999,` + request + `{\"a\":1}","response":"HTTP/1.1 500 Internal Server Error\r\nC: d\r\n\r\n","body_ignored":true}`, answer(pipeline.OutcomeResponseError, 500, "a\xffb")},
		{"cut within a character", head + `"status":"response_error","status_code":500,"elapsed_ms":1999,` + request + `{\"a\":1}","response":"HTTP/1.1 500 Internal Server Error\r\nC: d\r\n\r\na�","body_ignored":true}`, func(a *pipeline.Attempt, c *Called) {
			answer(pipeline.OutcomeResponseError, 500, "a\xf0\x9f\x98")(a, c)
			a.ResponseTruncated = true
		}},
		{"long request", head + `"status":"connection_error","elapsed_ms":1999,` + request + `{\"a","body_ignored":true}`, func(_ *pipeline.Attempt, c *Called) { c.BodyBytes = 3 }},
		{"event not stored yet", head + `"status":"connection_error","elapsed_ms":1999,` + request + `","body_ignored":true}`, func(_ *pipeline.Attempt, c *Called) { c.Payload = nil }},
		{"another body was sent", head + `"status":"connection_error","elapsed_ms":1999,` + request + `","body_ignored":true}`, func(a *pipeline.Attempt, _ *Called) { a.RequestBytes++ }},
		{"not sent at all", head + `"status":"connection_error","elapsed_ms":1999,"request":"POST /h?key=[redacted] HTTP/1.1\r\nHost: x.example:8443\r\n\r\n{\"a\":1}"}`, func(a *pipeline.Attempt, _ *Called) {
			a.RequestHeaders, a.RequestBytes, a.RequestWritten = nil, 0, false
		}},
		{"dropped", head + `"status":"connection_error","elapsed_ms":1999,` + request + `{\"a\":1}","body_ignored":true}`, func(_ *pipeline.Attempt, c *Called) { c.BodiesDropped = true }},
	} {
		a, called := sample(), Called{Payload: []byte(`{"a":1}`), BodyBytes: 7}
		c.change(a, &called)
		got := AppendWebhookCalled(nil, a, called)
		if string(got) != c.want || !json.Valid(got) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestSplitURL(t *testing.T) {
	for url, want := range map[string]string{
		"https://x/a?b=c": "x /a?b=c", "http://x:80": "x:80 /", "https://[::1]:8443?q": "[::1]:8443 /?q", "[not a valid URL]": " /", "": " /",
	} {
		if authority, target := splitURL(url); authority+" "+target != want {
			t.Errorf("%s: %s %s, want %s", url, authority, target, want)
		}
	}
}

func TestWithoutDumps(t *testing.T) {
	a := sample()
	a.StatusCode, a.Outcome, a.ResponseBody = 500, pipeline.OutcomeResponseError, bytes.Repeat([]byte("x"), 1000)
	long := AppendWebhookCalled(nil, a, Called{Payload: []byte(`{"a":1}`), Resthook: "r", BodyBytes: 100})
	short, err := WithoutDumps(long)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(long[:bytes.Index(long, []byte(`HTTP/1.1`))]) + `HTTP/1.1\r\n\r\n","body_ignored":true}`; string(short) != want {
		t.Errorf("%s\nwant\n%s", short, want)
	}
	if _, err := WithoutDumps([]byte("x")); err == nil {
		t.Error("no JSON, no error")
	}
}

func TestResthookOf(t *testing.T) {
	raw := []byte(`{"type":"resthook_called","Resthook":"wrong","resthook":"new \"x\"","payload":{"resthook":"inner"}}`)
	if got := ResthookOf("resthook_called", raw); got != `new "x"` {
		t.Errorf("resthook %q", got)
	}
	if got := ResthookOf("error", raw) + ResthookOf("resthook_called", []byte("x")); got != "" {
		t.Errorf("resthook %q of no resthook", got)
	}
}
