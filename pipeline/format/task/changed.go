package task

import (
	"bytes"
	"sync"

	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// Change is one field that differs between data.previous and data.current. All
// bytes are JSON as it was produced, and alias the payload.
type Change struct {
	Field         string
	Before, After []byte // nil: the field was not there
	// Added and Removed are the elements of an array that are in one state only;
	// an element that occurs several times counts each time. Null and a missing
	// field count as an array without elements, if the other state has an array.
	Added, Removed [][]byte
}

var docs = sync.Pool{New: func() any { return new(jsonscan.Doc) }}

// Changed compares the fields of data.current and data.previous in a task
// event, in the order of the current state; fields that are gone come last. A
// state that is missing or null has no fields: after a creation all fields are
// changed.
//
// Values are compared by what they mean: not by spacing, order of members, or
// spelling of strings and numbers. A missing field is the same as null. An array
// has changed when its elements have, not when they only changed places.
//
// The error is a *wire.Error: the payload is not a task event. Safe for
// concurrent use.
func Changed(payload []byte) ([]Change, error) {
	doc := docs.Get().(*jsonscan.Doc)
	defer func() {
		doc.Reset()
		docs.Put(doc)
	}()
	if err := doc.Scan(payload); err != nil {
		return nil, &wire.Error{What: err.What, Pointer: err.Pointer, Want: err.Want}
	}
	return ChangedIn(doc.Root())
}

// ChangedIn is Changed for a payload that is scanned already.
func ChangedIn(root jsonscan.Value) ([]Change, error) {
	data := root.Get("data")
	if err := wire.Required(data, jsonscan.Object, "/data", wantObject); err != nil {
		return nil, err
	}
	current, previous := data.Get("current"), data.Get("previous")
	if err := wire.Optional(current, jsonscan.Object, currentAt.state, wantState); err != nil {
		return nil, err
	}
	if err := wire.Optional(previous, jsonscan.Object, previousAt.state, wantState); err != nil {
		return nil, err
	}
	var out []Change
	before := fieldsOf(previous)
	for c := current.Children(); ; {
		now := c.Next()
		if now.Kind() == jsonscan.Missing {
			break
		}
		out = appendChange(out, now.Name(), before.get(now.Name()), now)
	}
	after := fieldsOf(current)
	for c := previous.Children(); ; {
		was := c.Next()
		if was.Kind() == jsonscan.Missing {
			break
		}
		if after.get(was.Name()).Kind() == jsonscan.Missing {
			out = appendChange(out, was.Name(), was, jsonscan.Value{})
		}
	}
	return out, nil
}

// fields finds the members of an object by name, quickly in large ones too.
type fields struct {
	object jsonscan.Value
	byName map[string]jsonscan.Value // nil: few
}

func fieldsOf(object jsonscan.Value) fields {
	const few = 32
	f := fields{object: object}
	if n := object.Len(); n > few {
		f.byName = make(map[string]jsonscan.Value, n)
		for c := object.Children(); ; {
			v := c.Next()
			if v.Kind() == jsonscan.Missing {
				break
			}
			f.byName[string(v.Name())] = v
		}
	}
	return f
}

func (f *fields) get(name []byte) jsonscan.Value {
	if f.byName != nil {
		return f.byName[string(name)]
	}
	return f.object.Get(string(name))
}

func appendChange(out []Change, name []byte, was, now jsonscan.Value) []Change {
	if bytes.Equal(was.Raw(), now.Raw()) || !wire.Present(was) && !wire.Present(now) {
		return out
	}
	if !listLike(was) || !listLike(now) {
		if string(appendCanonical(nil, was)) == string(appendCanonical(nil, now)) {
			return out
		}
		return append(out, Change{Field: string(name), Before: was.Raw(), After: now.Raw()})
	}
	added, removed := compareElements(was, now)
	if len(added)+len(removed) == 0 && was.Kind() == now.Kind() {
		return out
	}
	return append(out, Change{Field: string(name), Before: was.Raw(), After: now.Raw(), Added: added, Removed: removed})
}

// listLike tells whether v can be compared by elements. Two values without an
// array among them do not come here as null or missing both.
func listLike(v jsonscan.Value) bool { return v.Kind() == jsonscan.Array || !wire.Present(v) }

func compareElements(was, now jsonscan.Value) (added, removed [][]byte) {
	count := make(map[string]int, was.Len())
	var b []byte
	for c := was.Children(); ; {
		v := c.Next()
		if v.Kind() == jsonscan.Missing {
			break
		}
		b = appendCanonical(b[:0], v)
		count[string(b)]++
	}
	for c := now.Children(); ; {
		v := c.Next()
		if v.Kind() == jsonscan.Missing {
			break
		}
		b = appendCanonical(b[:0], v)
		if count[string(b)] == 0 {
			added = append(added, v.Raw())
			continue
		}
		count[string(b)]--
	}
	// What is left over was removed; of equal elements the last ones.
	for c := was.Children(); ; {
		v := c.Next()
		if v.Kind() == jsonscan.Missing {
			break
		}
		b = appendCanonical(b[:0], v)
		if count[string(b)] > 0 {
			count[string(b)]--
			removed = append(removed, v.Raw())
		}
	}
	return added, removed
}
