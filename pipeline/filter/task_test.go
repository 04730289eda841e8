package filter

import (
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

// taskEvent has endAt changed, an assignee added, a note added, a color taken
// away, and what only looks changed.
const taskEvent = `{"entityId":"t1","type":"TASK_EDITED","createdAt":"2025-03-04T05:06:07.000Z","data":{"operation":"UPDATE",
"current":{"id":"t1","organizationId":"o1","name":"Paint","startAt":"2025-03-04T08:00:00Z","endAt":"2025-03-04T16:00:00Z","assigneeIds":["a","b"],"watchers":["x","y"],"effort":1.0,"meta":{"a":1,"b":2},"recurrenceRule":null,"note":"new"},
"previous":{"id":"t1","organizationId":"o1","name":"P\u0061int","startAt":"2025-03-04T08:00:00Z","endAt":"2025-03-04T12:00:00Z","assigneeIds":["a"],"watchers":["y","x"],"effort":1,"meta":{"b":2,"a":1},"color":"red"}}}`

func TestChanged(t *testing.T) {
	ev := &pipeline.Event{Format: pipeline.FormatTask, Type: "TASK_EDITED", Payload: []byte(taskEvent)}
	for expr, want := range map[string]Result{
		`changed.endAt`:                  ResultTrue,
		`changed["endAt"]`:               ResultTrue,
		`changed.name`:                   ResultFalse,
		`changed.startAt || changed.id`:  ResultFalse,
		`changed.assigneeIds`:            ResultTrue,
		`changed.watchers`:               ResultFalse, // only their places
		`changed.effort || changed.meta`: ResultFalse,
		`changed.recurrenceRule`:         ResultFalse, // null and missing are the same
		`changed.note && changed.color`:  ResultTrue,
		`changed.no_such_field`:          ResultFalse,
		`"endAt" in changed`:             ResultTrue,
		`"name" in changed`:              ResultFalse,
		`size(changed) == 4`:             ResultTrue,
		`changed.all(f, f in ["endAt", "assigneeIds", "note", "color"])`:                  ResultTrue,
		`changed.exists(f, f.startsWith("end"))`:                                          ResultTrue,
		`changed.endAt && timestamp(data.current.endAt) > timestamp(data.previous.endAt)`: ResultTrue,
		`hookline.payload.data.operation == "UPDATE" && type == "TASK_EDITED"`:            ResultTrue,
	} {
		if got := eval(t, expr, ev); got != want {
			t.Errorf("%s: got %v, want %v", expr, got, want)
		}
	}
	if got := eval(t, `changed.endAt`, &pipeline.Event{Format: pipeline.FormatTask, Payload: []byte(`{"data":7}`)}); got != ResultError {
		t.Errorf("no task: got %v", got)
	}
	if got := eval(t, `changed.endAt`, &pipeline.Event{Format: pipeline.FormatTask, Payload: []byte(`{`)}); got != ResultNotJSON {
		t.Errorf("not JSON: got %v", got)
	}
}

func TestChangedNeedsTasks(t *testing.T) {
	if _, err := Compile(`changed.endAt`, []pipeline.Format{pipeline.FormatCotalker}); err == nil || !strings.Contains(err.Error(), "format task") {
		t.Errorf("got %v", err)
	}
	for _, formats := range [][]pipeline.Format{nil, {pipeline.FormatTask}, {pipeline.FormatJSON, pipeline.FormatTask}} {
		if _, err := Compile(`changed.endAt`, formats); err != nil {
			t.Errorf("%v: %v", formats, err)
		}
	}
	var c Cache
	if _, err := c.Compile(`changed.endAt`, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Compile(`changed.endAt`, []pipeline.Format{pipeline.FormatCotalker}); err == nil {
		t.Error("the cache forgot the formats")
	}
}
