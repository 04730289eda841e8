package filter

import (
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/task"
)

// changes is the variable changed: a map in which every name has a value, true
// for the fields that task.ChangedIn gives, so that a filter and the audit of a
// task never disagree. Its size and its names are those of the changed fields.
type changes struct {
	e      *Evaluation
	fields map[string]bool
	names  []ref.Val
}

// changed finds out once per event.
func (e *Evaluation) changed() ref.Val {
	if e.changes != nil {
		return e.changes
	}
	if e.ev.Format != pipeline.FormatTask {
		return types.NewErr("changed is for events of format task")
	}
	if !e.scan() {
		return types.NewErr("the payload is not JSON")
	}
	e.charge(len(e.ev.Payload) / bytesPerUnit)
	list, err := task.ChangedIn(e.doc.Root())
	if err != nil {
		return types.NewErr("the payload is no task event")
	}
	c := &changes{e: e, fields: make(map[string]bool, len(list)), names: make([]ref.Val, len(list))}
	for i := range list {
		c.fields[list[i].Field] = true
		c.names[i] = types.String(list[i].Field)
	}
	e.changes = c
	return c
}

func (c *changes) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	return types.Bool(c.fields[string(name)]), true
}

func (c *changes) Get(key ref.Val) ref.Val {
	if v, ok := c.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

// Contains tells whether the field has changed.
func (c *changes) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	return types.Bool(ok && c.fields[string(name)])
}

func (c *changes) Size() ref.Val { return types.Int(len(c.names)) }

func (c *changes) Iterator() traits.Iterator {
	for _, name := range c.names {
		c.e.chargeTurn()
		c.e.chargeText(len(name.(types.String)), true)
	}
	return types.NewRefValList(types.DefaultTypeAdapter, c.names).Iterator()
}

func (c *changes) Equal(other ref.Val) ref.Val               { return types.Bool(other == ref.Val(c)) }
func (c *changes) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (c *changes) ConvertToType(ref.Type) ref.Val            { return types.NewErr("type conversion error") }
func (c *changes) Type() ref.Type                            { return types.MapType }
func (c *changes) Value() any                                { return c }
