package format

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/task"
)

// fuzzFormat fuzzes one format's parser with its fixtures as seeds.
func fuzzFormat(f *testing.F, name pipeline.Format, check func(t *testing.T, rec *Record, ev *pipeline.Event)) {
	n := 0
	for _, x := range fixtures(f) {
		if x.want["format"] == string(name) {
			f.Add(x.record.Value, x.record.Key)
			n++
		}
	}
	if n == 0 {
		f.Fatalf("no seeds of %s", name)
	}
	o := mustOptions(f, string(name)+":default-tenant=acme")
	f.Fuzz(func(t *testing.T, value, key []byte) {
		fuzzOne(t, &Record{Key: key, Value: value}, o, check)
	})
}

// fuzzOne parses a record and holds the result to what every event promises.
func fuzzOne(t *testing.T, rec *Record, o *TopicOptions, check func(t *testing.T, rec *Record, ev *pipeline.Event)) {
	t.Helper()
	before := bytes.Clone(rec.Value)
	var ev pipeline.Event
	if err := Parse(rec, o, &position, &ev); err != nil {
		checkRefused(t, err, "")
		return
	}
	if !bytes.Equal(before, rec.Value) || !bytes.Contains(rec.Value, ev.Payload) || len(ev.Payload) == 0 {
		t.Errorf("%q: payload %q", rec.Value, ev.Payload)
	}
	if pipeline.SafeID(ev.ID) != ev.ID || !utf8.ValidString(ev.Type+ev.Tenant+ev.Entity+ev.Correlation+ev.Target+ev.Resthook) {
		t.Errorf("%q: unsafe event %+v", rec.Value, ev)
	}
	if strings.ContainsAny(ev.Type+ev.TypeAlias+ev.Tenant+ev.ContentType, "\x00\r\n\x7f") {
		t.Errorf("%q: control characters in %+v", rec.Value, ev)
	}
	if check != nil {
		check(t, rec, &ev)
	}
}

func FuzzCotalker(f *testing.F) { fuzzFormat(f, pipeline.FormatCotalker, nil) }

func FuzzJSON(f *testing.F) {
	f.Add([]byte(`{"kind":1,"t":"x"}`), "type=/kind,tenant=/t,id=/id,time=/at,entity=/a/0")
	f.Add([]byte(`{}`), "type=/\r")
	f.Fuzz(func(t *testing.T, value []byte, options string) {
		if o, err := ParseTopicOptions("json:" + options); err == nil {
			fuzzOne(t, &Record{Value: value}, &o, nil)
		}
	})
}

func FuzzGoflow(f *testing.F) {
	fuzzFormat(f, pipeline.FormatGoflow, func(t *testing.T, rec *Record, ev *pipeline.Event) {
		if (ev.Type == "resthook_called") != (ev.Resthook != "") || ev.Resthook == "" && !bytes.Equal(ev.Payload, rec.Value) {
			t.Errorf("%q: %+v", rec.Value, ev)
		}
		var doc jsonscan.Doc
		if err := doc.Scan(ev.Payload); err != nil {
			t.Errorf("%q: the payload %q: %v", rec.Value, ev.Payload, err)
		}
	})
}

func FuzzSIGNL4(f *testing.F) {
	fuzzFormat(f, pipeline.FormatSIGNL4, func(t *testing.T, _ *Record, ev *pipeline.Event) {
		if (ev.Splice == nil) != (ev.Target != "") {
			t.Errorf("target %q, splice %+v", ev.Target, ev.Splice)
		}
		if ev.Splice != nil {
			checkSplice(t, ev.Payload, ev.Splice)
		}
	})
}

func FuzzTask(f *testing.F) {
	fuzzFormat(f, pipeline.FormatTask, func(t *testing.T, _ *Record, ev *pipeline.Event) {
		changes, err := task.Changed(ev.Payload)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range changes {
			if c.Before == nil && c.After == nil || bytes.Equal(c.Before, c.After) {
				t.Errorf("no change: %+v", c)
			}
		}
	})
}

func FuzzCloudEvents(f *testing.F) {
	for _, x := range fixtures(f) {
		if x.want["format"] == "cloudevents" {
			var headers strings.Builder
			for _, h := range x.record.Headers {
				headers.WriteString(h.Key + "\x01" + string(h.Value) + "\x00")
			}
			f.Add(x.record.Value, headers.String())
		}
	}
	o := mustOptions(f, "cloudevents")
	f.Fuzz(func(t *testing.T, value []byte, headers string) {
		rec := Record{Value: value}
		for h := range strings.SplitSeq(headers, "\x00") {
			if key, value, ok := strings.Cut(h, "\x01"); ok {
				rec.Headers = append(rec.Headers, Header{Key: key, Value: []byte(value)})
			}
		}
		fuzzOne(t, &rec, o, func(t *testing.T, _ *Record, ev *pipeline.Event) {
			if ev.Type == "" || ev.ContentType == "" {
				t.Errorf("%+v", ev)
			}
			for _, a := range ev.Attributes {
				if a.Name != strings.ToLower(a.Name) || a.Value == "" || !utf8.ValidString(a.Value) || strings.ContainsAny(a.Name+a.Value, "\r\n\x00") {
					t.Errorf("attribute %+v", a)
				}
			}
		})
	})
}

// FuzzParse fuzzes how a record's format is decided.
func FuzzParse(f *testing.F) {
	for _, x := range fixtures(f) {
		f.Add(x.record.Value, x.options, x.want["format"], "")
	}
	f.Add([]byte(`{}`), "", "", "application/cloudevents+json")
	f.Fuzz(func(t *testing.T, value []byte, options, format, contentType string) {
		o, err := ParseTopicOptions(options)
		if err != nil {
			return
		}
		rec := Record{Value: value}
		if format != "" {
			rec.Headers = append(rec.Headers, Header{Key: HeaderFormat, Value: []byte(format)})
		}
		if contentType != "" {
			rec.Headers = append(rec.Headers, Header{Key: "content-type", Value: []byte(contentType)})
		}
		fuzzOne(t, &rec, &o, func(t *testing.T, _ *Record, ev *pipeline.Event) {
			if format != "" && string(ev.Format) != format {
				t.Errorf("header %q, but parsed as %s", format, ev.Format)
			}
		})
	})
}
