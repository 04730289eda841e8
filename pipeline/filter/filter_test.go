package filter

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

const cot = `{"company":"625bcbdcc9a8e3a86dbf041c","type":"COTTask","event":"update","createdAt":"2024-05-05T10:11:12.345Z",
"data":{"_id":"62742b7562f37034d9399914","isActive":true,"weight":3,"ratio":1.5,"big":9007199254740993,"huge":18446744073709551615,
"one":1.0,"exp":1e3,"name":"Pump \u00e9 7","closedAt":null,"tags":["red","blue"],"nums":[1,2,3.0],"odd-name":true,"esc\u0061ped":"yes",
"items":[{"sku":"A-1","price":10},{"sku":"B-2","price":25.5}],"owner":{"id":"u1","roles":["admin"]},"dates":{"start":"2024-05-05T10:00:00Z","end":"2024-05-05T12:30:00Z"}}}`

func cotEvent() *pipeline.Event {
	return &pipeline.Event{
		Format: pipeline.FormatCotalker, Type: "COTTask.update", TypeAlias: "COTTask", Tenant: "625bcbdcc9a8e3a86dbf041c",
		Entity: "62742b7562f37034d9399914", ID: "evt_1", Source: pipeline.Position{Topic: "cotalker.events"},
		Time: time.Date(2024, 5, 5, 10, 11, 12, 345e6, time.UTC), Payload: []byte(cot),
	}
}

func eval(t testing.TB, expr string, ev *pipeline.Event) Result {
	t.Helper()
	p, err := Compile(expr, nil)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	e := Begin(ev)
	defer e.End()
	return e.Eval(p)
}

// expressions are over cotEvent.
var expressions = map[string]Result{
	`data.isActive == true`: ResultTrue,
	`data.isActive`:         ResultTrue,
	`!data.isActive`:        ResultFalse,
	`data.name`:             ResultNotBool,
	`true`:                  ResultTrue,
	// Names.
	`type == "COTTask" && event == "update"`:                    ResultTrue,
	`type(data.weight) == int`:                                  ResultTrue,
	`type(data.tags) == list && type(data.owner) == map`:        ResultTrue,
	`type(data.closedAt) == null_type && data.closedAt == null`: ResultTrue,
	"data.`odd-name`":                                ResultTrue,
	`data["odd-name"]`:                               ResultTrue,
	`data.escaped == "yes"`:                          ResultTrue,
	`data.name == "Pump é 7"`:                        ResultTrue,
	`.data.isActive`:                                 ResultTrue,
	`hookline.payload.data.isActive`:                 ResultTrue,
	`hookline.payload["company"] == hookline.tenant`: ResultTrue,
	// Attributes.
	`hookline.type == "COTTask.update" && hookline.alias == "COTTask" && hookline.format == "cotalker"`: ResultTrue,
	`hookline.entity == data._id && hookline.id == "evt_1" && hookline.topic == "cotalker.events"`:      ResultTrue,
	`hookline.time == timestamp(createdAt) && hookline.correlation == "" && hookline.resthook == ""`:    ResultTrue,
	`hookline.time.getFullYear() == 2024 && hookline.time.getDayOfWeek() == 0`:                          ResultTrue,
	// Missing members.
	`data.nope == 1`:                            ResultError,
	`nope.data == 1`:                            ResultError,
	`has(data.nope)`:                            ResultFalse,
	`has(data.nope) && data.nope == 1`:          ResultFalse,
	`has(data.owner.id)`:                        ResultTrue,
	`has(hookline.payload.nope)`:                ResultFalse,
	`data.nope == 1 || data.isActive`:           ResultTrue,
	`"weight" in data && !("nope" in data)`:     ResultTrue,
	`data.name.nope == 1`:                       ResultError,
	`data.tags[2] == "x"`:                       ResultError,
	`data.tags[-1] == "x"`:                      ResultError,
	`data.tags["x"] == "x"`:                     ResultError,
	`data[1] == "x"`:                            ResultError,
	`(has(data.nope) ? data.nope : "x") == "x"`: ResultTrue,
	// Numbers.
	`data.one == 1 && data.one == 1.0 && data.weight == 3.0`: ResultTrue,
	`data.exp == 1000 && type(data.exp) == double`:           ResultTrue,
	`data.big == 9007199254740993`:                           ResultTrue,
	`data.big == 9007199254740992`:                           ResultFalse,
	`data.huge == 18446744073709551615u`:                     ResultTrue,
	`data.weight > 2 && data.ratio > 1 && data.ratio < 1.6`:  ResultTrue,
	`data.weight > 2.5 && 1 < 1.5`:                           ResultTrue,
	`data.weight + 1 == 4 && data.weight % 2 == 1`:           ResultTrue,
	`data.ratio + 1 > 2`:                                     ResultError,
	`double(data.ratio) + 1.0 == 2.5`:                        ResultTrue,
	`data.weight / 0 == 1`:                                   ResultError,
	`data.weight == "3"`:                                     ResultFalse,
	`data.weight < "3"`:                                      ResultError,
	`data.weight in [1, 2, 3] && data.one in [1]`:            ResultTrue,
	// Strings.
	`data.name.startsWith("Pump") && data.name.endsWith("7") && data.name.contains("é")`: ResultTrue,
	`size(data.name) == 8 && data.name.size() == 8`:                                      ResultTrue,
	`data.name.matches("^Pump . [0-9]$")`:                                                ResultTrue,
	`matches(data.name, "^pump")`:                                                        ResultFalse,
	`data.weight.matches("3")`:                                                           ResultError,
	`string(data.weight) + data.tags[0] == "3red"`:                                       ResultTrue,
	// Lists and objects.
	`"red" in data.tags && size(data.tags) == 2`:                                     ResultTrue,
	`data.tags == ["red", "blue"] && ["red", "blue"] == data.tags`:                   ResultTrue,
	`data.tags != ["blue", "red"]`:                                                   ResultTrue,
	`data.nums == [1, 2, 3] && 3 in data.nums`:                                       ResultTrue,
	`data.owner == {"id": "u1", "roles": ["admin"]}`:                                 ResultTrue,
	`{"roles": ["admin"], "id": "u1"} == data.owner`:                                 ResultTrue,
	`data.owner == data.dates || data.tags == data.nums`:                             ResultFalse,
	`data.owner == data.owner && data.items == data.items`:                           ResultTrue,
	`data.tags + ["x"] == ["red", "blue", "x"]`:                                      ResultError,
	`["x"] + ["y"] == ["x", "y"]`:                                                    ResultTrue,
	`data.items.exists(i, data.tags.exists(t, i.sku.startsWith("B") && t == "red"))`: ResultTrue,
	`data.items.exists(i, i.price > 20)`:                                             ResultTrue,
	`data.items.all(i, i.price > 20)`:                                                ResultFalse,
	`data.items.exists_one(i, i.sku == "B-2")`:                                       ResultTrue,
	`data.owner.exists(k, k == "roles")`:                                             ResultTrue,
	`data.items.exists(data, data.sku == "A-1")`:                                     ResultTrue,
	`["red", "green"].exists(c, data.tags.exists(t, t == c))`:                        ResultTrue,
	`data.items[1].sku == "B-2" && data.owner.roles[0] == "admin"`:                   ResultTrue,
	`timestamp(data.dates.end) - timestamp(data.dates.start) > duration("2h")`:       ResultTrue,
	`timestamp(data.name) > timestamp(0)`:                                            ResultError,
	// changed is for tasks.
	`changed.name`: ResultError,
	`hookline.format != "task" || changed.name`: ResultTrue,
}

func TestExpressions(t *testing.T) {
	for expr, want := range expressions {
		if got := eval(t, expr, cotEvent()); got != want {
			t.Errorf("%s: got %v, want %v", expr, got, want)
		}
	}
}

func TestErrorsHavePositions(t *testing.T) {
	for _, tt := range []struct{ expr, want string }{
		{``, "the expression is empty"},
		{"  \n", "the expression is empty"},
		{`data.isActive ==`, "line 1, column 17: Syntax error: mismatched input '<EOF>'"},
		{"data.isActive &&\n  data.weight = 3", "line 2, column 15: Syntax error: token recognition error at: '= '"},
		{`data.x == "unclosed`, "line 1, column 11: Syntax error: token recognition error at: '\"unclosed'"},
		{`hookline.typo == "x"`, "line 1, column 1: hookline.typo is not known (known: alias, correlation, entity, format, id, payload, resthook, tenant, time, topic, type)"},
		{`data.a && hookline == 1`, "line 1, column 11: hookline is not a value: write hookline.type (known: alias, correlation, entity, format, id, payload, resthook, tenant, time, topic, type)"},
		{`hookline.type == 1`, "line 1, column 15: found no matching overload for '_==_' applied to '(string, int)'"},
		{`data.a && lower(data.b) == "x"`, "line 1, column 16: undeclared reference to 'lower'"},
		{`data.name.lower() == "x"`, "line 1, column 16: undeclared reference to 'lower'"},
		{`"text"`, "it gives string, not true or false"},
		{`size(data.tags)`, "it gives int, not true or false"},
		{`data.name.matches("(")`, "line 1, column 19: not a regular expression (RE2): missing closing ): `(`"},
		{`data.name.matches("(?=x)")`, "line 1, column 19: not a regular expression (RE2): invalid or unsupported Perl syntax: `(?=`"},
		{`data.name.matches(data.pattern)`, "line 1, column 23: the regular expression of matches must be written out as a string"},
		{`data.name.matches("((a{50}){50}){50}")`, "line 1, column 19: not a regular expression (RE2): invalid repeat count: `{50}`"},
		{`data.name.matches("(a{30}){30}")`, "line 1, column 19: a regular expression of 962 instructions is over the limit of 500 (counted repetitions multiply)"},
		{`data.items.map(i, i.x) == [1]`, "line 1, column 15: undeclared reference to 'map'"},
		{`data.items.filter(i, i.x).size() > 1`, "line 1, column 18: undeclared reference to 'filter'"},
		{`google.protobuf.Duration{} == data.x`, "line 1, column 25: messages are not supported"},
		{`b"bytes" == bytes(data.x)`, "line 1, column 18: undeclared reference to 'bytes'"},
		{`hookline.time.getHours("Europe/Berlin") == 1`, "line 1, column 23: found no matching overload for 'getHours' applied to 'timestamp.(string)'"},
		{`has(hookline.type)`, `line 1, column 5: every event has hookline.type: compare it with "" instead of has()`},
		{`has(data)`, "line 1, column 5: invalid argument to has() macro"},
		{`changed.name == "x"`, "line 1, column 14: found no matching overload for '_==_' applied to '(bool, string)'"},
		{"\xff", "it is not UTF-8 text"},
		{strings.Repeat("a", MaxExpressionBytes+1), "4097 bytes are over the limit of 4096"},
		{`data.a.exists(x, data.b.exists(y, data.c.exists(z, x.id == y.id && y.id == z.id)))`, "over the limit of 100000"},
		{"é == 1 && hookline.no", "token recognition error at: 'é'"},
	} {
		p, err := Compile(tt.expr, nil)
		var typed *Error
		if !errors.As(err, &typed) || p != nil {
			t.Errorf("%q: got %v, %v", tt.expr, p, err)
			continue
		}
		if !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\r\n") {
			t.Errorf("%q:\n got %s\nwant %s", tt.expr, err, tt.want)
		}
	}
}
