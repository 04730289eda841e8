package content

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format"
)

// envelope is what the router makes of an event.
func envelope(ev *pipeline.Event) *pipeline.Envelope {
	return &pipeline.Envelope{
		Source: ev.Source, Format: ev.Format, EventID: ev.ID, Tenant: ev.Tenant, EventType: ev.Type, Entity: ev.Entity,
		Correlation: ev.Correlation, ContentType: ev.ContentType, Time: ev.Time, ProducedAt: ev.ProducedAt,
		Splice: ev.Splice, Attributes: ev.Attributes,
	}
}

// checkParsed holds what is made of a parsed event to what was promised.
func checkParsed(t *testing.T, rec *format.Record, opts *format.TopicOptions) {
	t.Helper()
	var ev pipeline.Event
	src := pipeline.Position{Cluster: "c", Topic: "t", Offset: 1}
	if format.Parse(rec, opts, &src, &ev) != nil {
		return
	}
	env := envelope(&ev)
	before := bytes.Clone(ev.Payload)
	for _, mode := range []pipeline.ContentMode{pipeline.ContentRaw, pipeline.ContentStructured, pipeline.ContentBinary} {
		req := request(mode, env, "")
		req.Payload = ev.Payload
		_, m, err := Render(nil, req)
		if err != nil {
			t.Fatalf("%s of %q: %v", mode, rec.Value, err)
		}
		wrapped := mode == pipeline.ContentStructured || isStructured(env) && mode == pipeline.ContentRaw
		switch {
		case wrapped && !json.Valid(m.Body):
			t.Fatalf("%s of %q is not JSON: %q", mode, rec.Value, m.Body)
		case wrapped && m.Headers != nil, mode == pipeline.ContentBinary && m.Headers == nil:
			t.Fatalf("%s of %q has headers %v", mode, rec.Value, m.Headers)
		case mode == pipeline.ContentRaw && ev.Splice == nil && !bytes.Equal(m.Body, before):
			t.Fatalf("%q became %q", before, m.Body)
		case mode == pipeline.ContentRaw && ev.Splice != nil:
			checkIDs(t, before, m.Body)
		}
	}
	if !bytes.Equal(ev.Payload, before) {
		t.Fatalf("the payload changed from %q to %q", before, ev.Payload)
	}
}

func checkIDs(t *testing.T, before, after []byte) {
	t.Helper()
	var was, is map[string]json.RawMessage
	if err := json.Unmarshal(after, &is); err != nil {
		t.Fatalf("%q became %q: %v", before, after, err)
	}
	if err := json.Unmarshal(before, &was); err != nil {
		t.Fatal(err)
	}
	var sub struct{ ID string }
	if err := json.Unmarshal(is["subscription"], &sub); err != nil || sub.ID != "sub-1" || string(is["id"]) != `"`+NotificationID("dlv_one")+`"` {
		t.Fatalf("%q became %q: %v", before, after, err)
	}
	for name := range is {
		if _, ok := was[name]; !ok && name != "id" && name != "subscription" {
			t.Fatalf("%q became %q", before, after)
		}
	}
	for name, value := range was {
		if name != "id" && name != "subscription" && !bytes.Equal(value, is[name]) {
			t.Fatalf("%q became %q: %s differs", before, after, name)
		}
	}
}

// FuzzRenderParsed makes requests of whatever a format lets through.
func FuzzRenderParsed(f *testing.F) {
	paths, err := filepath.Glob("../format/testdata/*.json")
	if err != nil || len(paths) == 0 {
		f.Fatal("no fixtures: ", err)
	}
	for _, p := range paths {
		b, err := os.ReadFile(p)
		if err != nil {
			f.Fatal(err)
		}
		for kind := range 4 {
			f.Add(b, byte(kind))
		}
	}
	f.Add([]byte(`{"eventType":300,"eventRaisedUtc":"2017-09-01T09:16:17Z","id":"a","subscription":{ }}`), byte(0))
	f.Add([]byte(`{"eventType":300,"eventRaisedUtc":"2017-09-01T09:16:17Z","subscription":{"id" : "" },"id":"a"}`), byte(0))
	f.Add([]byte("not JSON"), byte(3))
	f.Fuzz(func(t *testing.T, value []byte, kind byte) {
		rec := format.Record{Value: value, Timestamp: time.UnixMilli(1)}
		opts := format.TopicOptions{Format: [...]pipeline.Format{pipeline.FormatSIGNL4, "", pipeline.FormatCloudEvents, ""}[kind%4]}
		if kind%4 == 3 {
			for name, v := range map[string]string{"ce_specversion": "1.0", "ce_id": "1", "ce_source": "/s", "ce_type": "x", "content-type": "text/plain"} {
				rec.Headers = append(rec.Headers, format.Header{Key: name, Value: []byte(v)})
			}
		}
		checkParsed(t, &rec, &opts)
	})
}
