package filter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// hostileEvent is about 1 MiB of what is dear to look at.
func hostileEvent() *pipeline.Event {
	var b strings.Builder
	b.WriteString(`{"data":{"list":[0`)
	b.WriteString(strings.Repeat(",1", 70_000))
	b.WriteString(`],"list2":[0`)
	b.WriteString(strings.Repeat(", 1", 70_000))
	b.WriteString(`],"text":"` + strings.Repeat("a", 200_000) + `b","texts":["` + strings.Repeat("ab", 25_000) + `","` + strings.Repeat("ba", 25_000) + `"],"text2":"` + strings.Repeat("a", 100_000) + `c","escaped":"` + strings.Repeat(`\u0061`, 20_000) + `","obj":{"k":1`)
	for i := range 15_000 {
		fmt.Fprintf(&b, `,"m%d":1`, i)
	}
	b.WriteString(`},"deep":` + strings.Repeat("[", 400) + "1" + strings.Repeat("]", 400))
	b.WriteString(`,"deep2":` + strings.Repeat("[", 400) + "1.0" + strings.Repeat("]", 400))
	b.WriteString(`}}`)
	return &pipeline.Event{Format: pipeline.FormatCotalker, Payload: []byte(b.String())}
}

// hostile filters pass the limits of Compile. any: the result does not matter.
var hostile = []struct {
	expr string
	want Result
	any  bool
}{
	{expr: `data.list.all(x, x >= 0)`, want: ResultOverLimit},
	{expr: `data.list.all(x, size(data.list) > 0)`, want: ResultOverLimit},
	{expr: `data.list.exists(x, data.list[60000] == 7)`, want: ResultOverLimit},
	{expr: `[1,2,3,4,5,6,7,8,9,10].all(i, data.list == data.list2)`, want: ResultOverLimit},
	{expr: `[1,2,3,4,5,6,7,8,9,10].all(i, !(7 in data.list))`, want: ResultOverLimit},
	{expr: `[data.list + data.list].all(l, l.all(x, x >= 0))`, want: ResultError},
	{expr: `[dyn([0]) + data.list].all(l, l.all(x, x >= 0))`, want: ResultOverLimit},
	{expr: `[data.text].all(s, data.list.all(x, size(s) > 0 && s.contains("zz") || true))`, want: ResultOverLimit},
	{expr: `data.texts.all(s, data.list.all(x, size(s) > 0 && s.contains("zz") || true))`, want: ResultOverLimit},
	{expr: `data.obj.all(k, data.obj[k] == 1)`, want: ResultOverLimit},
	{expr: `data.obj.all(k, data.obj == data.obj)`, any: true},
	{expr: `data.list.all(x, data.text.contains(data.text2) || true)`, want: ResultOverLimit},
	{expr: `data.list.all(x, data.text < data.text2 || true)`, want: ResultOverLimit},
	{expr: `data.list.all(x, size(data.text) > 0)`, want: ResultOverLimit},
	{expr: `data.list.all(x, data.escaped != "")`, want: ResultOverLimit},
	{expr: `data.list.all(x, hookline.payload.data.text.startsWith("b") || true)`, want: ResultOverLimit},
	{expr: `size(` + strings.Repeat("data.text + ", 30) + `"x") > 0`, want: ResultOverLimit},
	{expr: `data.text.matches("(a|aa)*(a|aa)*(a|aa)*$")`, want: ResultOverLimit},
	{expr: `data.text.matches("[ab]*[ab]*[ab]*[ab]*x")`, any: true},
	{expr: `data.text2.matches("a*a*a*c")`, any: true},
	{expr: `timestamp(data.text) > timestamp(0) || duration(data.text) > duration("1s") || int(data.text) > 0`, want: ResultError},
	{expr: `double(data.text) > 0.0`, want: ResultError},
	{expr: `[1,2,3,4,5,6,7,8,9,10].all(i, data.deep == data.deep2)`, want: ResultTrue},
	{expr: `[[data.list, data.list2], [data.list2]] == [[data.list2, data.list], [data.list]]`, want: ResultOverLimit},
}

// TestHostileFilters: on an event of 1 MiB no filter takes long, whatever it does.
func TestHostileFilters(t *testing.T) {
	ev := hostileEvent()
	t.Logf("event of %d bytes", len(ev.Payload))
	bound := 500 * time.Millisecond // what MaxCost allows is a tenth of it
	if raceEnabled {
		bound *= 20
	}
	slowest := time.Duration(0)
	for _, tt := range hostile {
		p, err := Compile(tt.expr, nil)
		if err != nil {
			t.Errorf("%.80s: %v", tt.expr, err)
			continue
		}
		took := time.Hour
		for range 3 { // the best of three: other processes have the processor too
			e := Begin(ev)
			start := time.Now()
			r := e.Eval(p)
			took = min(took, time.Since(start))
			e.End()
			if r != tt.want && !tt.any {
				t.Errorf("%.80s: got %v, want %v", tt.expr, r, tt.want)
			}
		}
		t.Logf("%8.3f ms %.80s", float64(took.Microseconds())/1000, tt.expr)
		slowest = max(slowest, took)
		if took > bound {
			t.Errorf("%.80s took %v", tt.expr, took)
		}
	}
	t.Logf("slowest: %v", slowest)
}

func TestRefusedForTheirCost(t *testing.T) {
	for _, expr := range []string{
		`data.a.exists(x, data.b.exists(y, data.c.exists(z, x.id == y.id && y.id == z.id)))`,
		`data.a.all(x, x.name.matches("(a{20}){20}") && data.name.matches("(b{20}){20}"))`,
		`(data.a ? data.b : data.c).all(x, x > 1)`,
		`dyn(data.a).exists(x, x > 1)`,
		strings.Repeat("(", MaxDepth+10) + "true" + strings.Repeat(")", MaxDepth+10),
		strings.Repeat("true && ", 400) + "true",
		"data" + strings.Repeat(".a", 1500) + " == 1",
		"[" + strings.Repeat("1,", 1500) + "1] == data.x",
	} {
		if p, err := Compile(expr, nil); err == nil {
			t.Errorf("%.60s: compiled to %v", expr, p)
		} else {
			t.Logf("%.60s: %v", expr, err)
		}
	}
}

func TestEvaluationIsReused(t *testing.T) {
	yes, _ := Compile(`data.isActive`, nil)
	loop, _ := Compile(`data.list.all(x, x >= 0)`, nil)
	for range 3 {
		e := Begin(hostileEvent())
		if a, b := e.Eval(loop), e.Eval(yes); a != ResultOverLimit || b != ResultError {
			t.Errorf("got %v, %v", a, b)
		}
		e.End()
		e = Begin(cotEvent())
		if a, b := e.Eval(yes), e.Eval(loop); a != ResultTrue || b != ResultError {
			t.Errorf("got %v, %v", a, b)
		}
		e.End()
	}
}

func TestPayloadsThatAreNotJSON(t *testing.T) {
	for _, payload := range []string{"", "<xml/>", `{"data":`, `{"a":1,"a":2}`, "\xff"} {
		ev := &pipeline.Event{Format: pipeline.FormatCloudEvents, Type: "x.y", Payload: []byte(payload)}
		for expr, want := range map[string]Result{
			`hookline.type == "x.y"`:                ResultTrue, // does not look into it
			`hookline.type == "x.y" || data.a == 1`: ResultTrue,
			`data.a == 1`:                           ResultNotJSON,
			`has(data.a)`:                           ResultNotJSON,
		} {
			if got := eval(t, expr, ev); got != want {
				t.Errorf("%q of %q: got %v, want %v", expr, payload, got, want)
			}
		}
	}
	for payload, want := range map[string]Result{`[1,2]`: ResultTrue, `"text"`: ResultFalse, `null`: ResultFalse} {
		ev := &pipeline.Event{Payload: []byte(payload)}
		if got := eval(t, `type(hookline.payload) == list && hookline.payload[0] == 1`, ev); got != want {
			t.Errorf("%s: got %v, want %v", payload, got, want)
		}
	}
}
