package task

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline/format/wire"
)

// show lists changes one by one: field before>after +added -removed.
func show(changes []Change) string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = fmt.Sprintf("%s %s>%s", c.Field, c.Before, c.After)
		for _, e := range c.Added {
			lines[i] += " +" + string(e)
		}
		for _, e := range c.Removed {
			lines[i] += " -" + string(e)
		}
	}
	return strings.Join(lines, "; ")
}

func TestChanged(t *testing.T) {
	tests := []struct{ name, previous, current, want string }{
		{"nothing", `{"a":1,"b":[1]}`, `{"a":1,"b":[1]}`, ""},
		{"spelling", `{"a":{"x":1.50,"y":"\u0041"},"b":1e2,"c":0,"d":12}`, `{ "d":0.12e2, "c":-0.0, "b" : 100.0,"a":{"y":"A", "x":15e-1}}`, ""},
		{"one", `{"a":1,"b":"x"}`, `{"a":1,"b":"y"}`, `b "x">"y"`},
		{"null and missing", `{"a":null,"b":1,"c":2}`, `{"b":null,"d":null,"e":3}`, `b 1>null; e >3; c 2>`},
		{"large numbers", `{"a":90071992547409931,"b":1e-5000}`, `{"a":90071992547409932,"b":1e-5001}`, `a 90071992547409931>90071992547409932; b 1e-5000>1e-5001`},
		{"numbers and their text", `{"a":1,"b":"true"}`, `{"a":"1","b":true}`, `a 1>"1"; b "true">true`},
		{"elements", `{"a":["x","y","z"]}`, `{"a":["z","n","x"]}`, `a ["x","y","z"]>["z","n","x"] +"n" -"y"`},
		{"order of elements", `{"a":["x","y"]}`, `{"a":["y","x"]}`, ""},
		{"repeated elements", `{"a":["x","x"]}`, `{"a":["x"]}`, `a ["x","x"]>["x"] -"x"`},
		{"objects as elements", `{"a":[{"id":1,"n":2},[1]]}`, `{"a":[[1],{"n":2.0,"id":1},[1,1]]}`, `a [{"id":1,"n":2},[1]]>[[1],{"n":2.0,"id":1},[1,1]] +[1,1]`},
		{"array from nothing", `{"b":null}`, `{"a":["x"],"b":["y"]}`, `a >["x"] +"x"; b null>["y"] +"y"`},
		{"array to nothing", `{"a":["x"],"b":["y"]}`, `{"a":null}`, `a ["x"]>null -"x"; b ["y"]> -"y"`},
		{"empty array and null", `{"a":null}`, `{"a":[]}`, `a null>[]`},
		{"array and text", `{"a":["x"]}`, `{"a":"x"}`, `a ["x"]>"x"`},
		{"nested order counts", `{"a":{"l":[1,2]}}`, `{"a":{"l":[2,1]}}`, `a {"l":[1,2]}>{"l":[2,1]}`},
		{"text that looks like structure", `{"a":{"x":"1,\"y\":2"}}`, `{"a":{"x":"1","y":2}}`, `a {"x":"1,\"y\":2"}>{"x":"1","y":2}`},
		{"escaped name", `{"\u0061":1}`, `{"a":2}`, `a 1>2`},
		{"created", `null`, `{"a":1,"b":null,"c":["x"]}`, `a >1; c >["x"] +"x"`},
		{"deleted", `{"a":1,"b":null}`, `null`, `a 1>`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Changed([]byte(`{"data":{"previous":` + tt.previous + `,"current":` + tt.current + `}}`))
			if err != nil || show(got) != tt.want {
				t.Errorf("got  %s (%v)\nwant %s", show(got), err, tt.want)
			}
		})
	}
}

func TestChangedInAnEditedTask(t *testing.T) {
	for name, want := range map[string]string{
		"TASK_EDITED":     `endAt "2025-02-03T12:00:00.000Z">"2025-02-03T15:30:00.000Z"`,
		"TASK_REASSIGNED": `startAt "2025-02-03T08:00:00.000Z">null; assigneeIds ["u-1", "u-2"]>["u-2","u-3"] +"u-3" -"u-1"`,
	} {
		payload, err := os.ReadFile("../testdata/task_" + name + ".json")
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Changed(payload); err != nil || show(got) != want {
			t.Errorf("got  %s (%v)\nwant %s", show(got), err, want)
		}
	}
}

func TestChangedRefuses(t *testing.T) {
	for payload, want := range map[string]string{
		"":                             "empty value: want a JSON text",
		"[]":                           "missing field at /data: want an object",
		`{"data":{"current":1}}`:       "wrong type (a number) at /data/current: want the task's state",
		`{"data":{"previous":[]}}`:     "wrong type (an array) at /data/previous: want the task's state",
		`{"data":{"current":{"a":{}}}`: "truncated JSON: want a comma or the object's end",
	} {
		_, err := Changed([]byte(payload))
		var refused *wire.Error
		if !errors.As(err, &refused) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", payload, err, want)
		}
	}
}

// TestChangedIsNotQuadratic compares states whose size would take minutes if
// each field or element were looked for among all others.
func TestChangedIsNotQuadratic(t *testing.T) {
	const n = 60_000
	var was, now strings.Builder
	for i := range n {
		fmt.Fprintf(&was, `"f%d":0,`, i)
		fmt.Fprintf(&now, `"f%d":0,`, n-1-i)
	}
	list := strings.Repeat(`"x",`, n)
	got, err := Changed([]byte(`{"data":{"previous":{` + was.String() + `"l":[` + list + `1]},"current":{` + now.String() + `"l":[2,` + list + `2]}}}`))
	if err != nil || len(got) != 1 || len(got[0].Added) != 2 || len(got[0].Removed) != 1 {
		t.Errorf("%d changes, %v", len(got), err)
	}
}

func BenchmarkChanged(b *testing.B) {
	payload, err := os.ReadFile("../testdata/task_TASK_EDITED.json")
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if got, err := Changed(payload); err != nil || len(got) != 1 {
			b.Fatal(got, err)
		}
	}
}
