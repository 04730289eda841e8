package filter

import (
	"errors"
	"reflect"
	"strconv"
	"unsafe"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"

	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// errNative is all that becomes of a conversion to a Go type: nobody asks.
var errNative = errors.New("converting a value of the payload: not supported")

// value makes a CEL value of a JSON one. Objects and arrays are looked into only
// where an expression does; strings alias the payload where they can.
//
// A number without fraction and exponent is an int if it fits 64 bits, else an
// uint, else a double; every other number is a double. CEL compares them by
// their value: 1 == 1.0.
func (e *Evaluation) value(v jsonscan.Value) ref.Val { return e.valueFor(v, false) }

// valueFor is value; held: for a loop's variable.
func (e *Evaluation) valueFor(v jsonscan.Value, held bool) ref.Val {
	switch v.Kind() {
	case jsonscan.Object:
		return &object{e, v}
	case jsonscan.Array:
		return &array{e, v}
	case jsonscan.String:
		text := v.Text()
		if from, to := v.Span(); to-from-2 != len(text) {
			e.charge((to - from) * decoding / bytesPerUnit)
		}
		e.chargeText(len(text), held)
		// The payload does not change, and nothing of it outlives the evaluation.
		return types.String(unsafe.String(unsafe.SliceData(text), len(text)))
	case jsonscan.Number:
		raw := v.Raw()
		e.charge(len(raw) / bytesPerUnit)
		return number(raw)
	case jsonscan.True:
		return types.True
	case jsonscan.False:
		return types.False
	case jsonscan.Null:
		return types.NullValue
	case jsonscan.Missing:
	}
	return types.NewErr("no such value")
}

func number(raw []byte) ref.Val {
	s := unsafe.String(unsafe.SliceData(raw), len(raw))
	if i, err := strconv.ParseInt(s, 10, 64); err == nil {
		return types.Int(i)
	}
	if u, err := strconv.ParseUint(s, 10, 64); err == nil {
		return types.Uint(u)
	}
	f, _ := strconv.ParseFloat(s, 64) // the scanner has refused what is out of range
	return types.Double(f)
}

// object is a JSON object as a CEL map.
type object struct {
	e *Evaluation
	v jsonscan.Value
}

// decoding is how much dearer a byte of a string with escapes is: the string is
// decoded each time.
const decoding = 16

// walked is how many members are compared one by one before a table is made.
const walked = 24

// member finds a member; a missing value where there is none.
func (o *object) member(name string) jsonscan.Value {
	children := o.v.Children()
	for i := range walked {
		m := children.Next()
		if m.Kind() == jsonscan.Missing {
			o.e.charge(i / 8)
			return m
		}
		key := m.Name()
		if string(key) == name {
			o.e.charge(i / 8)
			return m
		}
		o.e.charge(len(key) * decoding / bytesPerUnit) // names with escapes are decoded each time
	}
	o.e.charge(walked / 8)
	return o.e.table(o.v)[name]
}

func (o *object) Find(key ref.Val) (ref.Val, bool) {
	name, ok := key.(types.String)
	if !ok {
		return nil, false // JSON has no other keys
	}
	m := o.member(string(name))
	if m.Kind() == jsonscan.Missing {
		return nil, false
	}
	return o.e.value(m), true
}

func (o *object) Get(key ref.Val) ref.Val {
	if v, ok := o.Find(key); ok {
		return v
	}
	return types.NewErr("no such key")
}

func (o *object) Contains(key ref.Val) ref.Val {
	name, ok := key.(types.String)
	return types.Bool(ok && o.member(string(name)).Kind() != jsonscan.Missing)
}

func (o *object) Size() ref.Val { return types.Int(o.e.length(o.v)) }

func (o *object) Iterator() traits.Iterator {
	return &iterator{e: o.e, children: o.v.Children(), names: true}
}

func (o *object) Equal(other ref.Val) ref.Val {
	m, ok := other.(traits.Mapper)
	if !ok {
		return types.False
	}
	if same, ok := other.(*object); ok && same.v == o.v {
		return types.True
	}
	if o.Size().Equal(m.Size()) != types.True {
		return types.False
	}
	children := o.v.Children()
	for c := children.Next(); c.Kind() != jsonscan.Missing; c = children.Next() {
		o.e.charge(1)
		there, ok := m.Find(types.String(c.Name()))
		if !ok || types.Equal(o.e.value(c), there) != types.True {
			return types.False
		}
	}
	return types.True
}

func (o *object) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }

func (o *object) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.MapType:
		return o
	case types.TypeType:
		return types.MapType
	}
	return types.NewErr("type conversion error")
}

func (o *object) Type() ref.Type { return types.MapType }
func (o *object) Value() any     { return o }

// array is a JSON array as a CEL list.
type array struct {
	e *Evaluation
	v jsonscan.Value
}

func (a *array) Get(index ref.Val) ref.Val {
	i, err := types.IndexOrError(index)
	if err != nil {
		return types.WrapErr(err)
	}
	a.e.charge(max(i, 0) / 16) // there is no other way than past the ones before
	v := a.v.Index(i)
	if v.Kind() == jsonscan.Missing {
		return types.NewErr("index out of range")
	}
	return a.e.value(v)
}

func (a *array) Contains(elem ref.Val) ref.Val {
	children := a.v.Children()
	for c := children.Next(); c.Kind() != jsonscan.Missing; c = children.Next() {
		a.e.charge(1)
		if types.Equal(a.e.value(c), elem) == types.True {
			return types.True
		}
	}
	return types.False
}

func (a *array) Size() ref.Val { return types.Int(a.e.length(a.v)) }

func (a *array) Iterator() traits.Iterator {
	return &iterator{e: a.e, children: a.v.Children()}
}

// Add refuses: filters have no use for lists that are made while they run.
func (a *array) Add(other ref.Val) ref.Val { return types.MaybeNoSuchOverloadErr(other) }

func (a *array) Equal(other ref.Val) ref.Val {
	list, ok := other.(traits.Lister)
	if !ok {
		return types.False
	}
	if same, ok := other.(*array); ok && same.v == a.v {
		return types.True
	}
	if a.Size().Equal(list.Size()) != types.True {
		return types.False
	}
	if array, ok := other.(*array); ok {
		return a.equal(array)
	}
	children, it := a.v.Children(), list.Iterator()
	for c := children.Next(); c.Kind() != jsonscan.Missing; c = children.Next() {
		a.e.charge(1)
		if types.Equal(a.e.value(c), it.Next()) != types.True {
			return types.False
		}
	}
	return types.True
}

func (a *array) equal(b *array) ref.Val {
	left, right := a.v.Children(), b.v.Children()
	for x := left.Next(); x.Kind() != jsonscan.Missing; x = left.Next() {
		a.e.charge(1)
		if types.Equal(a.e.value(x), a.e.value(right.Next())) != types.True {
			return types.False
		}
	}
	return types.True
}

func (a *array) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }

func (a *array) ConvertToType(t ref.Type) ref.Val {
	switch t {
	case types.ListType:
		return a
	case types.TypeType:
		return types.ListType
	}
	return types.NewErr("type conversion error")
}

func (a *array) Type() ref.Type { return types.ListType }
func (a *array) Value() any     { return a }

// iterator gives an array's elements or an object's names.
type iterator struct {
	e        *Evaluation
	children jsonscan.Children
	next     jsonscan.Value
	looked   bool // next is the one that Next gives
	names    bool
}

func (it *iterator) HasNext() ref.Val {
	if !it.looked {
		it.next, it.looked = it.children.Next(), true
	}
	return types.Bool(it.next.Kind() != jsonscan.Missing)
}

func (it *iterator) Next() ref.Val {
	if it.HasNext() != types.True {
		return types.NewErr("no more elements")
	}
	it.looked = false
	it.e.chargeTurn()
	if it.names {
		name := it.next.Name()
		it.e.chargeText(len(name), true)
		return types.String(name)
	}
	return it.e.valueFor(it.next, true)
}

func (it *iterator) ConvertToNative(reflect.Type) (any, error) { return nil, errNative }
func (it *iterator) ConvertToType(ref.Type) ref.Val            { return types.NewErr("type conversion error") }
func (it *iterator) Equal(ref.Val) ref.Val                     { return types.False }
func (it *iterator) Type() ref.Type                            { return types.IteratorType }
func (it *iterator) Value() any                                { return nil }
