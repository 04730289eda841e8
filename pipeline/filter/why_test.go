package filter

import (
	"testing"

	"github.com/hookline/hookline/pipeline"
)

// Why a filter failed is told by what stands in the filter, never by what the event
// has: here that is "canary".
func TestWhyAFilterFailed(t *testing.T) {
	payload := []byte(`{"data":{"x":true,"l":[1],"z":0,"k":"canary"}}`)
	for expr, want := range map[string]string{
		"data.foo.bar == 1": "the event has no member foo",
		"nope.x == 1":       "the event has no member nope",
		"data[data.k] == 1": "the event has no such member",
		`{"a":1}[data.k] == 1 || data.k == "canary-eu"`: "the event has no such member",
		`data["foo"] == 1`:               "the event has no member foo",
		"data.x > 'a'":                   "operands do not go together",
		"data.l[7] == 1":                 "an index is out of range",
		"1 / data.z == 1":                "division by zero",
		"int(data.k) == 1":               "",
		"data.x == true":                 "",
		"data.x":                         "",
		"data.k":                         "",
		"data.foo == 1 || data.x":        "",
		"has(data.foo) && data.foo == 1": "",
	} {
		p, err := Compile(expr, nil)
		if err != nil {
			t.Fatal(err)
		}
		e := Begin(&pipeline.Event{Payload: payload})
		if got := e.Why(p); got != want {
			t.Errorf("%s: %q, want %q (%s)", expr, got, want, e.Eval(p))
		}
		e.End()
	}
}
