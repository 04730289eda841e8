package sender

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/content"
)

// receive runs a receiver that keeps what it gets, for the length of the test.
func receive(t *testing.T) *receiver.Receiver {
	t.Helper()
	r, err := receiver.New(receiver.Config{KeepBodies: true, KeepHeaders: true})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() {
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return r
}

func signl4Envelope() *pipeline.Envelope {
	return &pipeline.Envelope{
		Source: pipeline.Position{Cluster: "c", Topic: "s4"}, Format: pipeline.FormatSIGNL4, EventType: "duty.began", Tenant: "team",
	}
}

// TestReceiverGetsWhatIsSpecified sends one event of each kind in each content
// mode, twice, and looks at what arrived.
func TestReceiverGetsWhatIsSpecified(t *testing.T) {
	const signl4 = `{ "eventType": 300,"id" : "f56a6b59", "team":{"id":"t"} }`
	spliced := signl4Envelope()
	at := strings.Index(signl4, `"f56a6b59"`)
	spliced.Splice = &pipeline.Splice{InsertAt: 1, IDFrom: at, IDTo: at + len(`"f56a6b59"`)}
	ids := `{"subscription":{"id":"sub-1"}, "eventType": 300,"id" : "` + content.NotificationID("dlv_test") + `", "team":{"id":"t"} }`
	event := &pipeline.Envelope{
		Format: pipeline.FormatCloudEvents, ContentType: "text/plain",
		Attributes: []pipeline.Attribute{{Name: "specversion", Value: "1.0"}, {Name: "id", Value: "é 1"}, {Name: "source", Value: "/s"}, {Name: "type", Value: "x"}},
	}
	attributes := map[string]string{"ce-specversion": "1.0", "ce-id": "%C3%A9%201", "ce-source": "/s", "ce-type": "x"}
	id := pipeline.DerivedID(&spliced.Source)
	own := map[string]string{"ce-specversion": "1.0", "ce-id": id, "ce-source": "/hookline/c/s4", "ce-type": "duty.began", "ce-tenant": "team"}
	wrapped := `{"specversion":"1.0","id":"` + id + `","source":"/hookline/c/s4","type":"duty.began","tenant":"team","datacontenttype":"application/json","data":`
	large := `{"pad":"` + strings.Repeat("x", 2*joinBytes) + `"}`
	for _, env := range []*pipeline.Envelope{spliced, event} {
		env.EventID = id
	}
	for _, tc := range []struct {
		name    string
		mode    pipeline.ContentMode
		env     *pipeline.Envelope
		payload string
		body    string
		typ     string
		ce      map[string]string
	}{
		{"raw", "raw", &pipeline.Envelope{}, " {\"b\":1.0,\n\"a\":[]}", " {\"b\":1.0,\n\"a\":[]}", "application/json", nil},
		{"raw, large", "raw", &pipeline.Envelope{}, large, large, "application/json", nil},
		{"splice", "raw", spliced, signl4, ids, "application/json", nil},
		{"splice, structured", "structured", spliced, signl4, wrapped + ids + "}", "application/cloudevents+json", nil},
		{"splice, binary", "binary", spliced, signl4, ids, "application/json", own},
		{"binary event", "", event, "text", "text", "text/plain", attributes},
		{
			"binary event, structured", "structured", event, "text",
			`{"specversion":"1.0","id":"é 1","source":"/s","type":"x","datacontenttype":"text/plain","data_base64":"dGV4dA=="}`, "application/cloudevents+json", nil,
		},
		{
			"structured event, binary", "binary", &pipeline.Envelope{Format: pipeline.FormatCloudEvents},
			`{"specversion":"1.0","id":"é 1","source":"/s","type":"x","datacontenttype":"text/plain","data":"text"}`, "text", "text/plain", attributes,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := receive(t)
			c := newClient(t, localConfig(), Deps{})
			req := request(r.URL())
			req.Envelope, req.Payload, req.Subscription.ContentMode = tc.env, []byte(tc.payload), tc.mode
			for attempt := 1; attempt <= 2; attempt++ {
				req.Attempt = attempt
				if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess || res.RequestBytes != len(tc.body) || res.AckID != "" {
					t.Fatalf("%s %q, %d bytes", res.Outcome, res.Error, res.RequestBytes)
				}
			}
			for _, got := range r.Requests() {
				ce := map[string]string{}
				for name, value := range got.Headers {
					if strings.HasPrefix(name, "ce-") {
						ce[name] = value
					}
				}
				if got.Body != tc.body || got.Headers["content-type"] != tc.typ || !maps.Equal(ce, tc.ce) {
					t.Errorf("attempt %d got %.500q\nwant %.500q\nas %q with %v", got.Attempt, got.Body, tc.body, got.Headers["content-type"], ce)
				}
			}
		})
	}
}

func TestWhatCannotBeRenderedIsBlocked(t *testing.T) {
	srv := serveRaw(t, answer(ok200))
	c := newClient(t, localConfig(), Deps{})
	req := request(srv.url())
	req.Envelope.Splice = &pipeline.Splice{InsertAt: 9}
	if res := send(c, req); res.Outcome != pipeline.OutcomeBlocked || !strings.HasPrefix(res.Error, "rendering the payload: ") || res.RequestWritten || res.RequestBytes != 0 {
		t.Errorf("%s %q", res.Outcome, res.Error)
	}
	if srv.conns.Load() != 0 {
		t.Error("a connection was made")
	}
}

// counted counts the headers that were left out.
type counted struct {
	mu    sync.Mutex
	names []string
}

func (c *counted) HeaderOmitted(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.names = append(c.names, name)
}

func TestExternalID(t *testing.T) {
	for _, tc := range []struct {
		format  pipeline.Format
		id      string
		sent    bool
		omitted int
	}{
		{pipeline.FormatSIGNL4, "Content you passed in the X-S4-ExternalID parameter", true, 0},
		{pipeline.FormatSIGNL4, "a~!", true, 0},
		{pipeline.FormatSIGNL4, "", false, 0},
		{pipeline.FormatSIGNL4, "a\tb", false, 1},
		{pipeline.FormatSIGNL4, "é", false, 1},
		{pipeline.FormatSIGNL4, "a\r\nHost: b", false, 1},
		{pipeline.FormatSIGNL4, " a", false, 1},
		{pipeline.FormatSIGNL4, "a ", false, 1},
		{pipeline.FormatSIGNL4, strings.Repeat("a", maxExternalID+1), false, 1},
		{pipeline.FormatCotalker, "a", false, 0},
	} {
		r, m := receive(t), &counted{}
		c := newClient(t, localConfig(), Deps{Metrics: m})
		req := request(r.URL())
		req.Envelope = signl4Envelope()
		req.Envelope.Format, req.Envelope.Correlation = tc.format, tc.id
		if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
			t.Fatalf("%q: %s %q", tc.id, res.Outcome, res.Error)
		}
		got, sent := r.Requests()[0].Headers["x-s4-externalid"]
		if sent != tc.sent || sent && got != tc.id || len(m.names) != tc.omitted {
			t.Errorf("%.80q: sent %v %q, omitted %q", tc.id, sent, got, m.names)
		}
	}
}

func TestLoopsAreBlocked(t *testing.T) {
	r := receive(t)
	cfg := localConfig()
	cfg.InboundWebhooks = []string{"signl4=127.0.0.1/webhook/{tenant}"}
	c := newClient(t, cfg, Deps{})
	for _, tc := range []struct {
		path, tenant string
		format       pipeline.Format
		blocked      bool
	}{
		{"/webhook/team", "team", pipeline.FormatSIGNL4, true},
		{"/Webhook//te%61m?x", "team", pipeline.FormatSIGNL4, true},
		{"/webhook/team", "other", pipeline.FormatSIGNL4, false},
		{"/webhook/team", "team", pipeline.FormatCotalker, false},
		{"/elsewhere", "team", pipeline.FormatSIGNL4, false},
	} {
		before := r.Total()
		req := request(r.URL() + tc.path)
		req.Envelope = &pipeline.Envelope{Format: tc.format, Tenant: tc.tenant}
		res := send(c, req)
		blocked := res.Outcome == pipeline.OutcomeBlocked && strings.Contains(res.Error, "127.0.0.1 is an inbound webhook of format signl4: the event would come back")
		if blocked != tc.blocked || !blocked && res.Outcome != pipeline.OutcomeSuccess || (r.Total() == before) != tc.blocked || res.RequestWritten == tc.blocked {
			t.Errorf("%s of %s, %s: %s %q, %d requests", tc.path, tc.tenant, tc.format, res.Outcome, res.Error, r.Total()-before)
		}
	}
}

func TestDefaultsRefuseTheKnownLoop(t *testing.T) {
	c := newClient(t, DefaultConfig(), Deps{})
	req := request("https://connect.signl4.com/webhook/secret")
	req.Envelope = signl4Envelope()
	if res := send(c, req); res.Outcome != pipeline.OutcomeBlocked || !strings.Contains(res.Error, "inbound webhook") || strings.Contains(res.Error, "secret") {
		t.Errorf("%s %q", res.Outcome, res.Error)
	}
}

func TestAckID(t *testing.T) {
	const task = `{"entityId":"1d63907b","type":"TASK_EDITED","data":{"operation":"UPDATE","current":{"id":"x"}}`
	for _, tc := range []struct {
		name, answer, want string
		status             int
		format             pipeline.Format
		keep               int // RESPONSE_BODY_BYTES
	}{
		{"the sample", task + `,"id":201}`, "201", 200, pipeline.FormatTask, 16384},
		{"beyond what the log keeps", task + `,"id":201}`, "201", 200, pipeline.FormatTask, 10},
		{"nothing is kept", `{"id":201}`, "201", 209, pipeline.FormatTask, 0},
		{"first and only", " {\"id\": 9007199254740993}\n", "9007199254740993", 201, pipeline.FormatTask, 16384},
		{"as it is spelled", `{"id":-1.50e1}`, "-1.50e1", 200, pipeline.FormatTask, 16384},
		{"a string", `{"id":"201"}`, "", 200, pipeline.FormatTask, 16384},
		{"none", `{"ok":true}`, "", 200, pipeline.FormatTask, 16384},
		{"within", `{"data":{"id":201}}`, "", 200, pipeline.FormatTask, 16384},
		{"an array", `[{"id":201}]`, "", 200, pipeline.FormatTask, 16384},
		{"not JSON", `{"id":201`, "", 200, pipeline.FormatTask, 16384},
		{"twice", `{"id":201,"id":202}`, "", 200, pipeline.FormatTask, 16384},
		{"empty", ``, "", 200, pipeline.FormatTask, 16384},
		{"far too long", `{"pad":"` + strings.Repeat("x", 2*ackRoom) + `","id":201}`, "", 200, pipeline.FormatTask, 16},
		{"a long number", `{"id":` + strings.Repeat("1", maxAckID+1) + `}`, "", 200, pipeline.FormatTask, 16384},
		{"a failure", `{"id":201}`, "", 210, pipeline.FormatTask, 16384},
		{"another format", `{"id":201}`, "", 200, pipeline.FormatJSON, 16384},
	} {
		t.Run(tc.name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = w.Write([]byte(tc.answer))
			}))
			t.Cleanup(srv.Close)
			cfg := localConfig()
			cfg.ResponseBodyBytes = tc.keep
			c := newClient(t, cfg, Deps{})
			req := request(srv.URL)
			req.Envelope, req.Payload = &pipeline.Envelope{Format: tc.format}, []byte(task+"}")
			res := send(c, req)
			kept := tc.answer[:min(len(tc.answer), tc.keep)]
			if res.AckID != tc.want || res.StatusCode != tc.status || string(res.ResponseBody) != kept || res.ResponseTruncated != (len(kept) < len(tc.answer)) {
				t.Errorf("ack %q, %s %q, body %.200q, truncated %v", res.AckID, res.Outcome, res.Error, res.ResponseBody, res.ResponseTruncated)
			}
		})
	}
}

// A subscription cannot make itself look like another event.
func TestCloudEventsHeadersAreOurs(t *testing.T) {
	c := newClient(t, localConfig(), Deps{})
	req := request("http://127.0.0.1:1/")
	req.Subscription.Headers = []pipeline.Header{{Name: "CE-Id", Value: "hush"}}
	if res := send(c, req); res.Outcome != pipeline.OutcomeBlocked || strings.Contains(res.Error, "hush") {
		t.Errorf("%s %q", res.Outcome, res.Error)
	}
}

func TestWhatTheSenderMakesIsJSON(t *testing.T) {
	r := receive(t)
	c := newClient(t, localConfig(), Deps{})
	req := request(r.URL())
	req.Subscription.ContentMode = pipeline.ContentStructured
	req.Envelope = &pipeline.Envelope{Format: pipeline.FormatCotalker, EventType: "a\"\\\n", Entity: "\xff"}
	send(c, req)
	if got := r.Requests()[0].Body; !json.Valid([]byte(got)) {
		t.Errorf("%s", got)
	}
}
