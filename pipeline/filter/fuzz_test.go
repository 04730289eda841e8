package filter

import (
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

// FuzzCompile: no text makes Compile panic or take long, and what it accepts
// gives a result for any payload.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		``, `data.isActive == true`, `changed.endAt`, `hookline.type`, `has(data.x) && data.items.exists(i, i.price > 1.5)`, "data.`odd-name`",
		`data.name.matches("^(a|b)+$")`, `[1,2].all(x, x in data.nums)`, `{"a": 1} == data`, `timestamp(data.t) - duration("1h") > timestamp(0)`,
		"\x00", "\xff", `((((`, `a{`, `a ? b : c`, `-9223372036854775808`, `r"\d"`, `'''x'''`, `data[data[data]]`, `1/0 == 1`, `x.y{z: 1}`,
	} {
		f.Add(s, cot)
	}
	f.Add(`data.a == data.b`, `{"data":{"a":{"x":[1,{"y":null}]},"b":{"x":[1.0,{"y":null}]}}}`)
	f.Fuzz(func(t *testing.T, expr, payload string) {
		start := time.Now()
		p, err := Compile(expr, nil)
		if (p == nil) == (err == nil) {
			t.Fatalf("%q: got %v and %v", expr, p, err)
		}
		if err != nil {
			if s := err.Error(); s == "" || len(s) > 600 || strings.ContainsAny(s, "\r\n") {
				t.Fatalf("%q: error %q", expr, s)
			}
			return
		}
		for _, format := range []pipeline.Format{pipeline.FormatJSON, pipeline.FormatTask} {
			e := Begin(&pipeline.Event{Format: format, Payload: []byte(payload)})
			if r := e.Eval(p); r > ResultOverLimit || e.Eval(p) != r {
				t.Fatalf("%q: result %v", expr, r)
			}
			e.End()
		}
		if took := time.Since(start); took > 10*time.Second {
			t.Fatalf("%q took %v", expr, took)
		}
	})
}

// grammar writes expressions that are mostly well formed.
func grammar(t *rapid.T, depth int) string {
	leaf := []string{
		"data", "data.a", "data.b.c", "changed.endAt", "hookline.type", "hookline.payload", "1", "1.5", "2u", `"s"`, "true", "null", "[1, 2]", `{"a": 1}`,
		"type", "x", "hookline", "data.list", `timestamp("2024-01-01T00:00:00Z")`, `duration("1h")`,
	}
	if depth == 0 {
		return rapid.SampledFrom(leaf).Draw(t, "leaf")
	}
	sub := func() string { return grammar(t, depth-1) }
	switch rapid.IntRange(0, 8).Draw(t, "form") {
	case 0:
		return "(" + sub() + rapid.SampledFrom([]string{" == ", " != ", " < ", " >= ", " + ", " - ", " * ", " / ", " % ", " in ", " && ", " || "}).Draw(t, "op") + sub() + ")"
	case 1:
		return rapid.SampledFrom([]string{"!", "-"}).Draw(t, "sign") + sub()
	case 2:
		return "(" + sub() + " ? " + sub() + " : " + sub() + ")"
	case 3:
		return rapid.SampledFrom([]string{"size", "int", "double", "string", "type", "timestamp", "duration", "dyn", "has", "uint"}).Draw(t, "function") + "(" + sub() + ")"
	case 4:
		return sub() + rapid.SampledFrom([]string{".exists", ".all", ".exists_one", ".map", ".filter"}).Draw(t, "macro") + "(x, " + sub() + ")"
	case 5:
		return sub() + "[" + sub() + "]"
	case 6:
		return sub() + rapid.SampledFrom([]string{".contains", ".startsWith", ".endsWith", ".matches"}).Draw(t, "method") + "(" + sub() + ")"
	case 7:
		return sub() + rapid.SampledFrom([]string{".a", ".getHours()", ".size()", "[0]"}).Draw(t, "member")
	}
	return sub()
}

func TestAnyExpressionCompilesOrNot(t *testing.T) {
	payloads := []string{cot, taskEvent, `{"data":{"a":[1,"s",null,true,{"a":1}],"b":{"c":-1.5e3},"list":[[1],[2]]},"x":{},"type":[]}`, `[]`, `"s"`, `{`}
	compiled := 0
	rapid.Check(t, func(t *rapid.T) {
		p, err := Compile(grammar(t, rapid.IntRange(0, 4).Draw(t, "depth")), nil)
		if (p == nil) == (err == nil) {
			t.Fatalf("got %v and %v", p, err)
		}
		if err != nil {
			return
		}
		compiled++
		ev := &pipeline.Event{Format: pipeline.FormatTask, Payload: []byte(rapid.SampledFrom(payloads).Draw(t, "payload"))}
		e := Begin(ev)
		defer e.End()
		if r := e.Eval(p); r > ResultOverLimit {
			t.Fatalf("%s: %v", p, r)
		}
	})
	if compiled == 0 {
		t.Error("nothing compiled: the grammar is no good")
	}
}

func TestCacheKeepsNothingAlive(t *testing.T) {
	var c Cache
	a, err := c.Compile(`data.a == 1`, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Compile(`data.a == 1`, nil)
	if err != nil || a != b || c.Len() != 1 {
		t.Errorf("two programs for one text: %v, %d kept", err, c.Len())
	}
	if _, err := c.Compile(`data.a ==`, nil); err == nil || c.Len() != 1 {
		t.Errorf("got %v, %d kept", err, c.Len())
	}
	runtime.KeepAlive(b)
	a, b = nil, nil
	for deadline := time.Now().Add(10 * time.Second); c.Len() > 0; runtime.Gosched() {
		runtime.GC()
		if time.Now().After(deadline) {
			t.Fatalf("%d programs nobody uses", c.Len())
		}
	}
	_ = a
}
