package filter

import (
	"bytes"
	"reflect"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// changes is the variable changed: a map in which every name has a value, true
// where data.current.<name> differs from data.previous.<name>. A field that only
// one of them has differs. Values are compared as JSON values: the order of an
// object's members and the spelling of numbers do not count, that of an array's
// elements does.
type changes struct {
	e                 *Evaluation
	current, previous *object
}

func (e *Evaluation) changed() ref.Val {
	if e.ev.Format != pipeline.FormatTask {
		return types.NewErr("changed is for events of format task")
	}
	if !e.scan() {
		return types.NewErr("the payload is not JSON")
	}
	if e.changes == nil {
		data := e.doc.Root().Get("data")
		e.changes = &changes{e, &object{e, data.Get("current")}, &object{e, data.Get("previous")}}
	}
	return e.changes
}

func (c *changes) differs(name string) bool {
	a, b := c.current.member(name), c.previous.member(name)
	if a.Kind() == jsonscan.Missing || b.Kind() == jsonscan.Missing {
		return a.Kind() != b.Kind()
	}
	if bytes.Equal(a.Raw(), b.Raw()) {
		c.e.charge(len(a.Raw()) / bytesPerUnit)
		return false
	}
	return types.Equal(c.e.value(a), c.e.value(b)) != types.True
}

func (c *changes) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false
	}
	return types.Bool(c.differs(string(name))), true
}

func (c *changes) Get(key ref.Val) ref.Val {
	if v, ok := c.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

// Contains tells whether the field has changed.
func (c *changes) Contains(key ref.Val) ref.Val {
	v, ok := c.Find(key)
	return types.Bool(ok && v == types.True)
}

// names lists the fields that have changed: those of current first.
func (c *changes) names() []ref.Val {
	var out []ref.Val
	for _, o := range []*object{c.current, c.previous} {
		children := o.v.Children()
		for m := children.Next(); m.Kind() != jsonscan.Missing; m = children.Next() {
			c.e.charge(1)
			name := string(m.Name())
			if o == c.previous && c.current.member(name).Kind() != jsonscan.Missing {
				continue // seen
			}
			if c.differs(name) {
				out = append(out, types.String(name))
			}
		}
	}
	return out
}

// Size is the number of fields that have changed.
func (c *changes) Size() ref.Val { return types.Int(len(c.names())) }

// Iterator gives the names of the fields that have changed.
func (c *changes) Iterator() traits.Iterator {
	return types.NewRefValList(types.DefaultTypeAdapter, c.names()).Iterator()
}

func (c *changes) Equal(other ref.Val) ref.Val               { return types.Bool(other == ref.Val(c)) }
func (c *changes) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (c *changes) ConvertToType(ref.Type) ref.Val            { return types.NewErr("type conversion error") }
func (c *changes) Type() ref.Type                            { return types.MapType }
func (c *changes) Value() any                                { return c }
