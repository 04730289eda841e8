// Package task reads the events of task systems, such as TASK_EDITED:
// {entityId, type, createdAt, data{operation, current{...}, previous{...}}}.
package task

import (
	"bytes"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// Shape tells whether the text looks like a task event.
func Shape(root jsonscan.Value) bool {
	return root.Get("entityId").Kind() != jsonscan.Missing && root.Get("data").Get("operation").Kind() != jsonscan.Missing
}

// Parse fills ev from the scanned record. The type is of the form TASK_EDITED,
// the tenant data.current.organizationId (of data.previous where there is no
// current one, as after a deletion), the entity entityId, which both states
// must have as their id; the id is derived from the position. An UPDATE has
// both states, any other operation at least one.
func Parse(rec *wire.Record, s *wire.Scratch, _ *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	if err := wire.Required(root, jsonscan.Object, "", wantObject); err != nil {
		return err
	}
	b, err := wire.AppendName(s.Buf[:0], root.Get("type"), "/type", wantType)
	if err != nil {
		return err
	}
	if !isType(b) {
		return &wire.Error{What: "unknown type", Pointer: "/type", Want: wantType}
	}
	typeEnd := len(b)
	if b, err = wire.AppendName(b, root.Get("entityId"), "/entityId", "the task's id"); err != nil {
		return err
	}
	entityEnd := len(b)
	if ev.Time, err = wire.ParseTime(root.Get("createdAt"), "/createdAt"); err != nil {
		return err
	}
	data := root.Get("data")
	if err = checkData(data, b[typeEnd:entityEnd]); err != nil {
		return err
	}
	state, pointer := data.Get("current"), "/data/current/organizationId"
	if !wire.Present(state) {
		state, pointer = data.Get("previous"), "/data/previous/organizationId"
	}
	if b, err = wire.AppendName(b, state.Get("organizationId"), pointer, "the organization's id"); err != nil {
		return err
	}
	tenantEnd := len(b)
	b = pipeline.AppendDerivedID(b, &ev.Source)
	s.Buf = b
	all := string(b)
	ev.Type = all[:typeEnd]
	ev.Entity = all[typeEnd:entityEnd]
	ev.Tenant = all[entityEnd:tenantEnd]
	ev.ID = all[tenantEnd:]
	ev.Payload = rec.Value
	return nil
}

const (
	wantObject = "an object"
	wantType   = "a type such as TASK_EDITED"
	wantState  = "the task's state"
)

// isType tells whether b is [A-Z]+_[A-Z]+.
func isType(b []byte) bool {
	subject, verb, ok := bytes.Cut(b, []byte("_"))
	return ok && isUpper(subject) && isUpper(verb)
}

func isUpper(b []byte) bool {
	for _, c := range b {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return len(b) > 0
}

func checkData(data jsonscan.Value, entity []byte) error {
	if err := wire.Required(data, jsonscan.Object, "/data", wantObject); err != nil {
		return err
	}
	operation := data.Get("operation")
	if err := wire.RequiredText(operation, "/data/operation", "an operation such as UPDATE"); err != nil {
		return err
	}
	current, previous := data.Get("current"), data.Get("previous")
	update := string(operation.Text()) == "UPDATE"
	if update || !wire.Present(previous) {
		if err := wire.Required(current, jsonscan.Object, "/data/current", wantState); err != nil {
			return err
		}
	}
	if update {
		if err := wire.Required(previous, jsonscan.Object, "/data/previous", wantState); err != nil {
			return err
		}
	}
	if err := checkState(current, &currentAt, entity); err != nil {
		return err
	}
	return checkState(previous, &previousAt, entity)
}

// statePointers are where a state's members stand.
type statePointers struct{ state, id, startAt, endAt string }

var (
	currentAt  = statePointers{"/data/current", "/data/current/id", "/data/current/startAt", "/data/current/endAt"}
	previousAt = statePointers{"/data/previous", "/data/previous/id", "/data/previous/startAt", "/data/previous/endAt"}
)

// checkState checks a state that is there.
func checkState(state jsonscan.Value, at *statePointers, entity []byte) error {
	if !wire.Present(state) {
		return nil
	}
	if err := wire.Required(state, jsonscan.Object, at.state, wantState); err != nil {
		return err
	}
	const wantID = "the same id as /entityId"
	id := state.Get("id")
	if err := wire.RequiredText(id, at.id, wantID); err != nil {
		return err
	}
	if !bytes.Equal(id.Text(), entity) {
		return &wire.Error{What: "another task's id", Pointer: at.id, Want: wantID}
	}
	if err := optionalTime(state.Get("startAt"), at.startAt); err != nil {
		return err
	}
	return optionalTime(state.Get("endAt"), at.endAt)
}

func optionalTime(v jsonscan.Value, pointer string) error {
	if !wire.Present(v) {
		return nil
	}
	_, err := wire.ParseTime(v, pointer)
	return err
}
