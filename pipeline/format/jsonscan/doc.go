// Package jsonscan reads one JSON text in one pass: it checks it strictly and
// leaves a flat tape of its values, from which formats take their fields.
//
// Strict means RFC 8259 with nothing left to taste (RFC 7493, I-JSON): valid
// UTF-8, no byte order mark, no duplicate names, no lone surrogates, no number
// outside the range of a float64, at most MaxDepth levels, nothing after the
// value. A Doc is reused from text to text and then allocates nothing.
package jsonscan

// MaxDepth is the deepest nesting of arrays and objects that Scan accepts.
const MaxDepth = 512

// MaxBytes is the longest text that Scan accepts: offsets are kept in 32 bits.
const MaxBytes = 1 << 30

// Kind is the kind of a JSON value: the first byte of its spelling, '0' for
// every number.
type Kind byte

// The kinds. Missing stands for a value that is not there.
const (
	Missing Kind = 0
	Object  Kind = '{'
	Array   Kind = '['
	String  Kind = '"'
	Number  Kind = '0'
	True    Kind = 't'
	False   Kind = 'f'
	Null    Kind = 'n'
)

// String names the kind as an error message does, with its article.
func (k Kind) String() string {
	switch k {
	case Missing:
		return "nothing"
	case Object:
		return "an object"
	case Array:
		return "an array"
	case String:
		return "a string"
	case Number:
		return "a number"
	case True, False:
		return "a boolean"
	case Null:
		return "null"
	}
	return "an unknown kind"
}

// node is one value on the tape. A container's children follow it; next is the
// index of the node after its last descendant.
type node struct {
	keyFrom, keyTo uint32 // a member's name between its quotes
	from, to       uint32 // the value's bytes; a string's with its quotes
	next           uint32
	kind           Kind
	keyEscaped     bool
	escaped        bool // a string with a backslash
}

// Doc is the tape of one JSON text. Not safe for concurrent use; the zero value
// is ready. It points into the scanned bytes until the next Scan or Reset.
type Doc struct {
	src   []byte
	nodes []node
	names []name   // the members of the objects that are open
	table []uint32 // scratch for duplicate names in large objects
	arena []byte   // decoded names that have escapes
	depth int
	err   *Error
}

// Value is one value of a Doc; the zero Value is a missing one. Valid until the
// Doc is scanned again.
type Value struct {
	doc *Doc
	at  uint32
}

// Reset drops the references to the scanned bytes and keeps the buffers, unless
// one unusually large text has blown them up.
func (d *Doc) Reset() {
	const keepNodes = 1 << 14 // 400 KiB: a hundred times an ordinary event's
	d.src = nil
	clear(d.names[:cap(d.names)])
	d.names = d.names[:0]
	d.nodes = d.nodes[:0]
	d.arena = d.arena[:0]
	if cap(d.nodes) > keepNodes {
		d.nodes, d.names, d.table, d.arena = nil, nil, nil, nil
	}
}

// Root is the text's value; only after a successful Scan.
func (d *Doc) Root() Value {
	if len(d.nodes) == 0 {
		return Value{}
	}
	return Value{doc: d}
}

// Kind tells what the value is.
func (v Value) Kind() Kind {
	if v.doc == nil {
		return Missing
	}
	return v.doc.nodes[v.at].kind
}

// Span gives the value's place in the scanned bytes.
func (v Value) Span() (from, to int) {
	if v.doc == nil {
		return 0, 0
	}
	n := &v.doc.nodes[v.at]
	return int(n.from), int(n.to)
}

// Raw is the value as it is spelled, aliasing the scanned bytes.
func (v Value) Raw() []byte {
	if v.doc == nil {
		return nil
	}
	n := &v.doc.nodes[v.at]
	return v.doc.src[n.from:n.to:n.to]
}

// Get is the member of that name; missing where v is no object or has none.
func (v Value) Get(name string) Value {
	if v.Kind() != Object {
		return Value{}
	}
	d := v.doc
	end := d.nodes[v.at].next
	for i := v.at + 1; i < end; i = d.nodes[i].next {
		n := &d.nodes[i]
		if n.keyEscaped {
			if string(appendUnquoted(nil, d.src[n.keyFrom:n.keyTo])) == name {
				return Value{d, i}
			}
		} else if string(d.src[n.keyFrom:n.keyTo]) == name {
			return Value{d, i}
		}
	}
	return Value{}
}

// Name is the member's name, decoded; nil for what is no object's member. It
// aliases the scanned bytes unless the name has escapes.
func (v Value) Name() []byte {
	if v.doc == nil {
		return nil
	}
	n := &v.doc.nodes[v.at]
	name := v.doc.src[n.keyFrom:n.keyTo]
	if n.keyEscaped {
		return appendUnquoted(nil, name)
	}
	return name
}

// Children steps through the members or elements of a value, in their order.
type Children struct {
	doc     *Doc
	at, end uint32
}

// Children starts in front of the first member or element; there is none in
// anything but an object or an array.
func (v Value) Children() Children {
	if k := v.Kind(); k != Object && k != Array {
		return Children{}
	}
	return Children{v.doc, v.at + 1, v.doc.nodes[v.at].next}
}

// Next gives the next one; missing behind the last.
func (c *Children) Next() Value {
	if c.at >= c.end {
		return Value{}
	}
	v := Value{c.doc, c.at}
	c.at = c.doc.nodes[c.at].next
	return v
}

// Index is the array's element i; missing where v is no array or is shorter.
func (v Value) Index(i int) Value {
	if v.Kind() != Array || i < 0 {
		return Value{}
	}
	d := v.doc
	end := d.nodes[v.at].next
	for at := v.at + 1; at < end; at = d.nodes[at].next {
		if i == 0 {
			return Value{d, at}
		}
		i--
	}
	return Value{}
}

// Len is the number of members or elements; 0 for anything else.
func (v Value) Len() int {
	n := 0
	if k := v.Kind(); k == Object || k == Array {
		d := v.doc
		end := d.nodes[v.at].next
		for at := v.at + 1; at < end; at = d.nodes[at].next {
			n++
		}
	}
	return n
}

// AppendString appends a string's decoded text; nothing for other kinds.
func (v Value) AppendString(dst []byte) []byte {
	if v.Kind() != String {
		return dst
	}
	n := &v.doc.nodes[v.at]
	text := v.doc.src[n.from+1 : n.to-1]
	if n.escaped {
		return appendUnquoted(dst, text)
	}
	return append(dst, text...)
}

// Text is a string's decoded text: it aliases the scanned bytes unless the
// string has escapes; nil for other kinds.
func (v Value) Text() []byte {
	if v.Kind() != String {
		return nil
	}
	n := &v.doc.nodes[v.at]
	text := v.doc.src[n.from+1 : n.to-1]
	if n.escaped {
		return appendUnquoted(nil, text)
	}
	return text
}
