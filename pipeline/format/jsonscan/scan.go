package jsonscan

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/bits"
	"strconv"
	"unicode/utf8"
	"unsafe"
)

// Error says why a text was refused.
type Error struct {
	What    string // "truncated JSON", "duplicate name", ...
	Pointer string // RFC 6901, of the value being read; "" is the whole text
	Offset  int    // in bytes
	Want    string // what was expected there
}

// Error gives one line.
func (e *Error) Error() string {
	return e.What + " at byte " + strconv.Itoa(e.Offset) + ", " + strconv.Quote(e.Pointer) + ": want " + e.Want
}

// Scan reads src, which must not change while d is in use. On an error the tape
// is empty.
func (d *Doc) Scan(src []byte) *Error {
	d.src, d.err, d.depth = src, nil, 0
	d.nodes, d.names, d.arena = d.nodes[:0], d.names[:0], d.arena[:0]
	switch {
	case len(src) == 0:
		return &Error{What: "empty value", Want: "a JSON text"}
	case len(src) > MaxBytes:
		return &Error{What: "too large", Want: "at most 1 GiB"}
	case bytes.HasPrefix(src, []byte("\xef\xbb\xbf")):
		return &Error{What: "byte order mark", Want: "JSON without one"}
	}
	i := d.value(d.space(0), node{})
	if i >= 0 {
		if i = d.space(i); i == len(src) {
			return nil
		}
		d.fail("not JSON", i, "nothing after the value")
	}
	d.nodes = d.nodes[:0]
	if d.err.Pointer != "" {
		d.err.Pointer = cutPointer(d.err.Pointer)
	}
	return d.err
}

// fail notes the error; -1 is what every step returns to unwind.
func (d *Doc) fail(what string, at int, want string) int {
	d.err = &Error{What: what, Offset: at, Want: want}
	return -1
}

// failAt is fail for an unexpected byte, or the end of the text, at i.
func (d *Doc) failAt(i int, want string) int {
	if i >= len(d.src) {
		return d.fail("truncated JSON", len(d.src), want)
	}
	return d.fail("not JSON", i, want)
}

func (d *Doc) space(i int) int {
	for i < len(d.src) {
		if c := d.src[i]; c > ' ' || c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			break
		}
		i++
	}
	return i
}

// value reads the value at i; n has its name already. It returns the offset
// behind it.
func (d *Doc) value(i int, n node) int {
	if i >= len(d.src) {
		return d.failAt(i, "a value")
	}
	at := len(d.nodes)
	n.from, n.next = uint32(i), uint32(at+1)
	var end int
	switch c := d.src[i]; c {
	case '"':
		n.kind = String
		end, n.escaped = d.str(i + 1)
	case '{', '[':
		n.kind = Kind(c)
		d.nodes = append(d.nodes, n)
		return d.container(i, at)
	case 't':
		n.kind = True
		end = d.literal(i, "true")
	case 'f':
		n.kind = False
		end = d.literal(i, "false")
	case 'n':
		n.kind = Null
		end = d.literal(i, "null")
	default:
		n.kind = Number
		end = d.number(i)
	}
	if end < 0 {
		return -1
	}
	n.to = uint32(end)
	d.nodes = append(d.nodes, n)
	return end
}

func (d *Doc) container(i, at int) int {
	if d.depth++; d.depth > MaxDepth {
		return d.fail("nested too deep", i, "at most "+strconv.Itoa(MaxDepth)+" levels")
	}
	var end int
	if d.src[i] == '{' {
		end = d.object(i + 1)
	} else {
		end = d.array(i + 1)
	}
	if end < 0 {
		return -1
	}
	d.depth--
	n := &d.nodes[at]
	n.to, n.next = uint32(end), uint32(len(d.nodes))
	return end
}

func (d *Doc) object(i int) int {
	base := len(d.names)
	if i = d.space(i); i < len(d.src) && d.src[i] == '}' {
		return i + 1
	}
	for {
		if i >= len(d.src) || d.src[i] != '"' {
			return d.failAt(i, "a name in quotes")
		}
		var n node
		n.keyFrom = uint32(i + 1)
		if i, n.keyEscaped = d.str(i + 1); i < 0 {
			return -1
		}
		n.keyTo = uint32(i - 1)
		d.pushName(&n)
		if i = d.space(i); i >= len(d.src) || d.src[i] != ':' {
			return d.failAt(i, "a colon after the name")
		}
		key := d.src[n.keyFrom:n.keyTo]
		if i = d.value(d.space(i+1), n); i < 0 {
			return d.under(string(key))
		}
		if i = d.space(i); i >= len(d.src) || d.src[i] != ',' {
			break
		}
		i = d.space(i + 1)
	}
	if i >= len(d.src) || d.src[i] != '}' {
		return d.failAt(i, "a comma or the object's end")
	}
	if !d.closeNames(base) {
		return -1
	}
	return i + 1
}

func (d *Doc) array(i int) int {
	if i = d.space(i); i < len(d.src) && d.src[i] == ']' {
		return i + 1
	}
	for element := 0; ; element++ {
		if i = d.value(i, node{}); i < 0 {
			return d.under(strconv.Itoa(element))
		}
		if i = d.space(i); i >= len(d.src) || d.src[i] != ',' {
			break
		}
		i = d.space(i + 1)
	}
	if i >= len(d.src) || d.src[i] != ']' {
		return d.failAt(i, "a comma or the array's end")
	}
	return i + 1
}

func (d *Doc) literal(i int, word string) int {
	rest := d.src[i:]
	for k := range len(word) {
		if k >= len(rest) || rest[k] != word[k] {
			return d.failAt(i+k, word)
		}
	}
	return i + len(word)
}

// safe marks the bytes that stand for themselves within a string.
var safe = func() (t [256]bool) {
	for c := 0x20; c < 0x80; c++ {
		t[c] = c != '"' && c != '\\'
	}
	return t
}()

// str reads a string's rest from i, behind its opening quote, to behind its
// closing one.
func (d *Doc) str(i int) (end int, escaped bool) {
	src := d.src
	for {
		i = skipSafe(src, i)
		if i >= len(src) {
			return d.fail("truncated JSON", i, "the string's end"), false
		}
		switch c := src[i]; {
		case c == '"':
			return i + 1, escaped
		case c == '\\':
			escaped = true
			if i = d.escape(i); i < 0 {
				return -1, false
			}
		case c < ' ':
			return d.fail("not JSON", i, "control characters within strings as escapes"), false
		default:
			r, size := utf8.DecodeRune(src[i:])
			if r == utf8.RuneError && size == 1 {
				if !utf8.FullRune(src[i:]) {
					return d.fail("truncated JSON", i, "the string's end"), false
				}
				return d.fail("invalid UTF-8", i, "UTF-8"), false
			}
			i += size
		}
	}
}

// skipSafe advances over bytes that stand for themselves, eight at a time: the
// high bit of a byte is set in the mask where it is a quote, a backslash, a
// control character or not ASCII.
func skipSafe(src []byte, i int) int {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	for i+8 <= len(src) {
		w := binary.LittleEndian.Uint64(src[i:])
		quote := w ^ ones*'"'
		slash := w ^ ones*'\\'
		m := (w | (w - ones*0x20) | (quote - ones) | (slash - ones)) & high
		if m != 0 {
			// Borrows may mark a byte above the first true one, never below.
			return i + bits.TrailingZeros64(m)/8
		}
		i += 8
	}
	for i < len(src) && safe[src[i]] {
		i++
	}
	return i
}

// escape reads the escape sequence at i.
func (d *Doc) escape(i int) int {
	src := d.src
	if i+1 >= len(src) {
		return d.fail("truncated JSON", len(src), "the escape's end")
	}
	switch src[i+1] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 2
	case 'u':
	default:
		return d.fail("not JSON", i, "a valid escape")
	}
	r, ok := hex4(src, i+2)
	if !ok {
		return d.failAt(badHex(src, i+2), "four hex digits")
	}
	if r < 0xd800 || r >= 0xe000 {
		return i + 6
	}
	if low, ok := hex4(src, i+8); r < 0xdc00 && ok && src[i+6] == '\\' && src[i+7] == 'u' && low >= 0xdc00 && low < 0xe000 {
		return i + 12
	}
	return d.fail("lone surrogate", i, "surrogates in pairs")
}

func hex4(src []byte, i int) (rune, bool) {
	if i+4 > len(src) {
		return 0, false
	}
	var r rune
	for _, c := range src[i : i+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c >= 'a' && c <= 'f':
			c -= 'a' - 10
		case c >= 'A' && c <= 'F':
			c -= 'A' - 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}

// badHex is the offset of the first of four bytes that is no hex digit, or the
// end of src.
func badHex(src []byte, i int) int {
	for k := i; k < i+4 && k < len(src); k++ {
		c := src[k] | 0x20
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f') {
			return k
		}
	}
	return len(src)
}

func (d *Doc) number(i int) int {
	src, from := d.src, i
	if src[i] == '-' {
		i++
	}
	switch {
	case i < len(src) && src[i] == '0':
		i++
	case i < len(src) && src[i] >= '1' && src[i] <= '9':
		i = digits(src, i)
	default:
		return d.failAt(i, "a value")
	}
	check := i-from > 300 // digits; only such numbers and exponents can overflow
	if i < len(src) && src[i] == '.' {
		frac := digits(src, i+1)
		if frac == i+1 {
			return d.failAt(frac, "a digit after the point")
		}
		i = frac
	}
	if i < len(src) && src[i]|0x20 == 'e' {
		check = true
		i++
		if i < len(src) && (src[i] == '+' || src[i] == '-') {
			i++
		}
		exp := digits(src, i)
		if exp == i {
			return d.failAt(exp, "a digit in the exponent")
		}
		i = exp
	}
	if check && overflows(src[from:i]) {
		return d.fail("number out of range", from, "a number within the range of a 64-bit float")
	}
	return i
}

func digits(src []byte, i int) int {
	for i < len(src) && src[i] >= '0' && src[i] <= '9' {
		i++
	}
	return i
}

func overflows(num []byte) bool {
	// ParseFloat keeps its argument only in an error, which is dropped here.
	_, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(num), len(num)), 64)
	return errors.Is(err, strconv.ErrRange)
}
