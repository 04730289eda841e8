package format

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
)

// badRecord is a fixture with one thing wrong: old is replaced by new, once.
type badRecord struct{ fixture, old, new, pointer, what string }

var badGoflow = []badRecord{
	{"goflow_wait_timed_out", `"type"`, `"Type"`, "/type", "missing field"},
	{"goflow_wait_timed_out", `"wait_timed_out"`, `"wait_timed_in"`, "/type", "unknown type"},
	{"goflow_wait_timed_out", `"wait_timed_out"`, `7`, "/type", "wrong type (a number)"},
	{"goflow_wait_timed_out", `"wait_timed_out"`, `"Wait_timed_out"`, "/type", "unknown type"},
	{"goflow_wait_timed_out", "created_on", "created", "/created_on", "missing field"},
	{"goflow_wait_timed_out", "2018-10-18T14", "2018-10-18 14", "/created_on", "not a time"},
	{"goflow_wait_timed_out", "-05:00", "", "/created_on", "not a time"},
	{"goflow_wait_timed_out", "2018-10-18", "2018-02-30", "/created_on", "not a time"},
	{"goflow_wait_timed_out", "433e", "133e", "/step_uuid", "not a UUID v4"},
	{"goflow_wait_timed_out", "8d1a", "cd1a", "/step_uuid", "not a UUID v4"},
	{"goflow_wait_timed_out", "8d1a-", "8d1a0", "/step_uuid", "not a UUID v4"},
	{"goflow_wait_timed_out", "1ae96956", "1ae9695g", "/step_uuid", "not a UUID v4"},
	{"goflow_wait_timed_out", "1ae96956-", "", "/step_uuid", "not a UUID v4"},
	{"goflow_broadcast_created", `"translations"`, `"t"`, "/translations", "missing field"},
	{"goflow_broadcast_created", `{"fra":`, `{}, "x": {"fra":`, "/translations", "empty value"},
	{"goflow_broadcast_created", `{"fra":`, `[], "x": {"fra":`, "/translations", "wrong type (an array)"},
	{"goflow_broadcast_created", `"base_language"`, `"b"`, "/base_language", "missing field"},
	{"goflow_broadcast_created", `"base_language":"fra"`, `"base_language":""`, "/base_language", "empty string"},
	{"goflow_contact_field_changed", `"field"`, `"f"`, "/field", "missing field"},
	{"goflow_contact_field_changed", `"key"`, `"k"`, "/field/key", "missing field"},
	{"goflow_contact_field_changed", `"name":"Age"`, `"name":null`, "/field/name", "wrong type (null)"},
	{"goflow_contact_field_changed", `"value": null`, `"value": 7`, "/value", "wrong type (a number)"},
	{"goflow_contact_urns_changed", `"urns"`, `"u"`, "/urns", "missing field"},
	{"goflow_contact_urns_changed", `[]`, `"tel:1"`, "/urns", "wrong type (a string)"},
	{"goflow_email_created", `"addresses"`, `"a"`, "/addresses", "missing field"},
	{"goflow_email_created", `["ana@example.com", "ops@example.com"]`, `[]`, "/addresses", "empty value"},
	{"goflow_email_created", `"subject"`, `"s"`, "/subject", "missing field"},
	{"goflow_error", `"text"`, `"t"`, "/text", "missing field"},
	{"goflow_error", `true`, `"true"`, "/fatal", "wrong type (a string)"},
	{"goflow_flow_entered", `"flow":`, `"f":`, "/flow", "missing field"},
	{"goflow_flow_entered", `"c34b6c7d`, `"x34b6c7d`, "/parent_run_uuid", "not a UUID v4"},
	{"goflow_flow_entered", `"terminal"`, `"t"`, "/terminal", "missing field"},
	{"goflow_flow_entered", `"terminal": true`, `"terminal": null`, "/terminal", "wrong type (null)"},
	{"goflow_ivr_created", `"msg"`, `"m"`, "/msg", "missing field"},
	{"goflow_msg_created", `"msg"`, `"m"`, "/msg", "missing field"},
	{"goflow_msg_received", `"msg":`, `"msg": "x", "m":`, "/msg", "wrong type (a string)"},
	{"goflow_input_labels_added", `"input_uuid"`, `"i"`, "/input_uuid", "missing field"},
	{"goflow_input_labels_added", `"labels":`, `"labels":[],"l":`, "/labels", "empty value"},
	{"goflow_run_expired", `"run_uuid"`, `"r"`, "/run_uuid", "missing field"},
	{"goflow_run_result_changed", `"name"`, `"n"`, "/name", "missing field"},
	{"goflow_session_triggered", `"flow"`, `"f"`, "/flow", "missing field"},
	{"goflow_webhook_called", `"url"`, `"u"`, "/url", "missing field"},
	{"goflow_webhook_called", `"status":`, `"s":`, "/status", "missing field"},
	{"goflow_webhook_called", `"request"`, `"r"`, "/request", "missing field"},
	{"goflow_resthook_called", `"resthook"`, `"r"`, "/resthook", "missing field"},
	{"goflow_resthook_called", `"new-survey"`, `""`, "/resthook", "empty string"},
	{"goflow_resthook_called", `"new-survey"`, `"a\nb"`, "/resthook", "control character"},
	{"goflow_resthook_called", `"payload"`, `"p"`, "/payload", "missing field"},
	{"goflow_airtime_sent_allowed", `"created_on"`, `"c"`, "/created_on", "missing field"},
	{"goflow_airtime_sent_allowed", `"airtime_sent"`, `""`, "/type", "empty string"},
}

var badSIGNL4 = []badRecord{
	{"signl4_300", `"eventType"`, `"e"`, "/eventType", "missing field"},
	{"signl4_300", `300`, `304`, "/eventType", "unknown type"},
	{"signl4_300", `300`, `3e2`, "/eventType", "unknown type"},
	{"signl4_300", `300`, `"300"`, "/eventType", "wrong type (a string)"},
	{"signl4_300", `"eventRaisedUtc"`, `"e"`, "/eventRaisedUtc", "missing field"},
	{"signl4_300", `67Z"`, `67"`, "/eventRaisedUtc", "not a time"},
	{"signl4_300", `"id":"b0000000`, `"i":"b0000000`, "/id", "missing field"},
	{"signl4_300", `"id":"b0000000-0000-4000-8000-000000000300"`, `"id":""`, "/id", "empty string"},
	{"signl4_300", `"id":"b0000000-0000-4000-8000-000000000300"`, `"id":7`, "/id", "wrong type (a number)"},
	{"signl4_300", `{"id":"c0ffee11`, `{"id":"\u0000c0ffee11`, "/team/id", "control character"},
	{"signl4_300", `"team":`, `"team":[],"t":`, "/team", "wrong type (an array)"},
	{"signl4_202", `{"id":"5a1c`, `{"id":7,"i":"5a1c`, "/subscription/id", "wrong type (a number)"},
	{"signl4_202", `"subscription":`, `"subscription":"s","s":`, "/subscription", "wrong type (a string)"},
	{"signl4_203", `"annotation":`, `"annotation":"a","a":`, "/annotation", "wrong type (a string)"},
	{"signl4_203", `"user":`, `"user":"u","u":`, "/user", "wrong type (a string)"},
	{"signl4_203", `"externalEventId":null`, `"externalEventId":7`, "/alert/externalEventId", "wrong type (a number)"},
	{"signl4_201_resolved", `"alert"`, `"a"`, "/alert", "missing field"},
	{"signl4_201_resolved", `"statusCode"`, `"s"`, "/alert/statusCode", "missing field"},
	{"signl4_201_resolved", `"statusCode":4`, `"statusCode":"4"`, "/alert/statusCode", "wrong type (a string)"},
}

var badTask = []badRecord{
	{"task_TASK_EDITED", `"entityId"`, `"e"`, "/entityId", "missing field"},
	{"task_TASK_EDITED", `"type"`, `"t"`, "/type", "missing field"},
	{"task_TASK_EDITED", `TASK_EDITED`, `TASK`, "/type", "unknown type"},
	{"task_TASK_EDITED", `TASK_EDITED`, `Task_Edited`, "/type", "unknown type"},
	{"task_TASK_EDITED", `TASK_EDITED`, `TASK_`, "/type", "unknown type"},
	{"task_TASK_EDITED", `"createdAt"`, `"c"`, "/createdAt", "missing field"},
	{"task_TASK_EDITED", `2025-02-01T10`, `2025-02-01T25`, "/createdAt", "not a time"},
	{"task_TASK_EDITED", `"data"`, `"d"`, "/data", "missing field"},
	{"task_TASK_EDITED", `"operation"`, `"o"`, "/data/operation", "missing field"},
	{"task_TASK_EDITED", `"current"`, `"c"`, "/data/current", "missing field"},
	{"task_TASK_EDITED", `"previous"`, `"p"`, "/data/previous", "missing field"},
	{"task_TASK_EDITED", `"previous":`, `"previous":null,"p":`, "/data/previous", "wrong type (null)"},
	{"task_TASK_EDITED", `"current": {"id": "0a`, `"current": {"id": "1a`, "/data/current/id", "another task's id"},
	{"task_TASK_EDITED", `"current": {"id"`, `"current": {"i"`, "/data/current/id", "missing field"},
	{"task_TASK_EDITED", `"previous": {"id": "0a`, `"previous": {"id": "1a`, "/data/previous/id", "another task's id"},
	{"task_TASK_EDITED", `"organizationId"`, `"o"`, "/data/current/organizationId", "missing field"},
	{"task_TASK_EDITED", `2025-02-03T15:30`, `tomorrow`, "/data/current/endAt", "not a time"},
	{"task_TASK_EDITED", `2025-02-03T12:00`, `tomorrow`, "/data/previous/endAt", "not a time"},
	{"task_TASK_CREATED", `"2025-02-03T08:00:00.000Z"`, `0`, "/data/current/startAt", "wrong type (a number)"},
	{"task_TASK_CREATED", `"current"`, `"c"`, "/data/current", "missing field"},
	{"task_TASK_DELETED", `"previous":`, `"previous":[],"p":`, "/data/previous", "wrong type (an array)"},
	{"task_TASK_DELETED", `"organizationId"`, `"o"`, "/data/previous/organizationId", "missing field"},
}

var badCloudEvents = []badRecord{
	{"cloudevents_structured", `"specversion"`, `"specversio"`, "/specversion", "missing attribute specversion"},
	{"cloudevents_structured", `"1.0"`, `"0.3"`, "/specversion", "unsupported specversion"},
	{"cloudevents_structured", `"id"`, `"i"`, "/id", "missing attribute id"},
	{"cloudevents_structured", `"id":"A-1 2"`, `"id":""`, "/id", "missing attribute id"},
	{"cloudevents_structured", `"id":"A-1 2"`, `"id":7`, "/id", "wrong type (a number)"},
	{"cloudevents_structured", `"source"`, `"s"`, "/source", "missing attribute source"},
	{"cloudevents_structured", `"type":"com.example.order.paid"`, `"type":null`, "/type", "missing attribute type"},
	{"cloudevents_structured", `2024-06-07T08`, `2024-06-07`, "/time", "not a time"},
	{"cloudevents_structured", `"tenant":"shop-7"`, `"tenant":"a\tb"`, "/tenant", "control character"},
	{"cloudevents_structured", `"sequence":12`, `"sequence":{}`, "/sequence", "wrong type (an object)"},
	{"cloudevents_structured", `"sequence"`, `"seq/no~1"`, "/seq~1no~01", "invalid attribute name"},
	{"cloudevents_structured", `"sampled":true`, `"data_base64":"AA=="`, "/data_base64", "data is there twice"},
	{"cloudevents_structured_charset", `AAECAw==`, `AAECAw=`, "/data_base64", "not base64"},
	{"cloudevents_structured_charset", `AAECAw==`, `AA*CAw==`, "/data_base64", "not base64"},
}

func TestBadRecords(t *testing.T) {
	byName := map[string]fixture{}
	for _, f := range fixtures(t) {
		byName[f.name] = f
	}
	for _, table := range [][]badRecord{badGoflow, badSIGNL4, badTask, badCloudEvents} {
		for _, bad := range table {
			t.Run(bad.fixture+bad.pointer+" "+bad.what, func(t *testing.T) {
				f, ok := byName[bad.fixture]
				if !ok || !strings.Contains(string(f.record.Value), bad.old) {
					t.Fatalf("no fixture %s with %s", bad.fixture, bad.old)
				}
				f.record.Value = []byte(strings.Replace(string(f.record.Value), bad.old, bad.new, 1))
				if f.options == "" { // not by shape, which it may no longer have
					f.options = f.want["format"]
				}
				err := parseBad(t, &f.record, f.options)
				if err.What != bad.what || err.Pointer != bad.pointer || err.Want == "" {
					t.Errorf("got %q at %q (%v), want %q at %q", err.What, err.Pointer, err, bad.what, bad.pointer)
				}
			})
		}
	}
}

func parseBad(t *testing.T, rec *Record, options string) *Error {
	t.Helper()
	var ev pipeline.Event
	err := Parse(rec, mustOptions(t, options), &position, &ev)
	var refused *Error
	if !errors.As(err, &refused) {
		t.Fatalf("got %v, %+v; want an *Error", err, ev)
	}
	if left := describe(&ev); left["type"]+left["tenant"]+left["payload"]+left["splice"] != "" {
		t.Errorf("a refused record left %v", left)
	}
	checkRefused(t, err, "")
	return refused
}

// TestBadTexts breaks the text of one fixture of each format in every way that
// no format accepts.
func TestBadTexts(t *testing.T) {
	for _, name := range []string{"cotalker_message", "goflow_flow_entered", "signl4_202", "task_TASK_EDITED", "cloudevents_structured", "cloudevents_binary", "json_order"} {
		value, err := os.ReadFile("testdata/" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		text := strings.TrimSpace(string(value))
		member := func(m string) string { return "{" + m + "," + text[1:] }
		for _, tt := range []struct{ name, value, pointer, what string }{
			{"tombstone", "", "", "empty value"},
			{"not JSON", "<event/>", "", "not JSON (byte 0)"},
			{"byte order mark", "\xef\xbb\xbf" + text, "", "byte order mark (byte 0)"},
			{"cut off", text[:len(text)-1], "", "truncated JSON"},
			{"something after it", text + "{}", "", "not JSON"},
			{"UTF-16", "\xff\xfe{\x00}\x00", "", "not JSON (byte 0)"},
			{"not UTF-8", member("\"x\":\"\xc3\x28\""), "/x", "invalid UTF-8"},
			{"duplicate key", member(`"x":{"y":1,"\u0079":2}`), "/x/y", "duplicate name"},
			{"lone surrogate", member(`"x":["\ud800"]`), "/x/0", "lone surrogate"},
			{"deep", member(`"x":` + strings.Repeat("[", 512) + strings.Repeat("]", 512)), "/x" + strings.Repeat("/0", 511), "nested too deep"},
			{"large", member(`"x":"` + strings.Repeat("x", 20_000) + `"`), "", "too large: "},
			{"1e400", member(`"x":1e400`), "/x", "number out of range"},
		} {
			t.Run(name+"/"+tt.name, func(t *testing.T) {
				f := fixture{name: name}
				want, err := os.ReadFile("testdata/" + name + ".want")
				if err != nil {
					t.Fatal(err)
				}
				f.read(t, string(want))
				if f.options == "" {
					f.options = f.want["format"]
				}
				f.record.Value = []byte(tt.value)
				o := mustOptions(t, f.options)
				o.MaxBytes = 20_000
				var ev pipeline.Event
				checkRefused(t, Parse(&f.record, o, &position, &ev), tt.what)
				var refused *Error
				if errors.As(Parse(&f.record, o, &position, &ev), &refused); !strings.HasPrefix(refused.Pointer, cut1024(tt.pointer)) {
					t.Errorf("at %q, want %q", refused.Pointer, tt.pointer)
				}
			})
		}
	}
}

// cut1024 is as much of a pointer as an error keeps.
func cut1024(pointer string) string { return pointer[:min(len(pointer), 1024)] }

func TestBadHeaders(t *testing.T) {
	good := []Header{
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte("1")},
		{Key: "ce_source", Value: []byte("s")},
		{Key: "ce_type", Value: []byte("t")},
		{Key: "content-type", Value: []byte("application/json")},
	}
	with := func(key, value string) []Header {
		out := []Header{}
		for _, h := range good {
			if h.Key != key {
				out = append(out, h)
			}
		}
		return append(out, Header{Key: key, Value: []byte(value)})
	}
	many := with("x", "")
	for i := range 300 {
		many = append(many, Header{Key: "ce_a" + strings.Repeat("x", i), Value: []byte("1")})
	}
	tests := []struct {
		name    string
		headers []Header
		want    string
	}{
		{"no id", with("ce_id", ""), "missing attribute id (header ce_id): want the event's id"},
		{"no source", with("ce_source", ""), "missing attribute source (header ce_source): want a URI reference"},
		{"no type", with("ce_type", ""), "missing attribute type (header ce_type)"},
		{"no version", with("ce_specversion", ""), "missing attribute specversion (header ce_specversion): want \"1.0\""},
		{"other version", with("ce_specversion", "1.1"), "unsupported specversion: want \"1.0\""},
		{"no content type", with("content-type", ""), "missing attribute datacontenttype (header content-type)"},
		{"content type with a line break", with("content-type", "a/b\r\nx: y"), "not visible ASCII in header content-type"},
		{"time", with("ce_time", "now"), "attribute time (header ce_time) is not a time"},
		{"control character", with("ce_subject", "a\nb"), "control character in attribute subject (header ce_subject)"},
		{"not UTF-8", with("ce_subject", "\xff"), "invalid UTF-8 in attribute subject (header ce_subject)"},
		{"twice", append(with("x", ""), Header{Key: "CE-ID", Value: []byte("2")}), "duplicate attribute id (header ce_id)"},
		{"name", with("ce_a-b", "1"), "invalid attribute name in a ce_ header: want attribute names of a-z and 0-9"},
		{"many", many, "too many attributes among the headers: want at most 256"},
		{"batch", with("content-type", "application/cloudevents-batch+json"), "CloudEvents batch mode is not supported: want one event per record"},
		{"another event format", with("content-type", "application/cloudevents+avro"), "unknown CloudEvents format in header content-type: want application/cloudevents+json"},
		{"bad tenant header", with("tenant", "a\x00"), "control character in header tenant"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := parseBad(t, &Record{Value: []byte(`{"a":1}`), Headers: tt.headers}, "cotalker"); !strings.HasPrefix(err.Error(), tt.want) {
				t.Errorf("got %q, want %q", err, tt.want)
			}
		})
	}
	batch := parseBad(t, &Record{Value: []byte(`[{"specversion":"1.0"}]`)}, "cloudevents")
	if batch.What != "CloudEvents batch mode is not supported (an array)" {
		t.Errorf("got %v", batch)
	}
	if e := parseBad(t, &Record{Value: []byte(`{}`), Headers: []Header{{Key: "ce_id", Value: []byte("1")}}}, "cloudevents"); e.What != "missing attribute specversion (header ce_specversion)" {
		t.Errorf("got %v", e)
	}
}

// TestAmbiguousShape: two matches are an error, not a choice.
func TestAmbiguousShape(t *testing.T) {
	both := `{"eventType":200,"eventRaisedUtc":"2021-03-04T05:06:07Z","id":"1","entityId":"e","type":"TASK_EDITED","data":{"operation":"UPDATE"}}`
	if err := parseBad(t, &Record{Value: []byte(both)}, ""); err.What != "ambiguous shape: signl4 or task" {
		t.Errorf("got %v", err)
	}
}

// TestKeyAsEntity: a key that is not text still tells entities apart.
func TestKeyAsEntity(t *testing.T) {
	for key, want := range map[string]string{"": "", "k 1/é": "k 1/é", "\xff\x01": pipeline.SafeID("\xff\x01"), "a\nb": pipeline.SafeID("a\nb")} {
		var ev pipeline.Event
		rec := Record{Key: []byte(key), Value: []byte(`{"type":"msg_wait","created_on":"2019-01-02T15:04:05Z","step_uuid":null}`)}
		if err := Parse(&rec, mustOptions(t, "goflow"), &position, &ev); err != nil || ev.Entity != want || !utf8.ValidString(ev.Entity) {
			t.Errorf("key %q: entity %q, %v", key, ev.Entity, err)
		}
	}
}
