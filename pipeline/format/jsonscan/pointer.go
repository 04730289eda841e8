package jsonscan

import (
	"fmt"
	"strconv"
	"strings"
)

// Pointer is a compiled JSON Pointer (RFC 6901). The zero Pointer is not set.
type Pointer struct {
	text   string
	tokens []token
	set    bool
}

type token struct {
	name  string
	index int // -1: no array index
}

// CompilePointer compiles a pointer: "" is the whole text, else it starts with
// a slash.
func CompilePointer(text string) (Pointer, error) {
	p := Pointer{text: text, set: true}
	if text == "" {
		return p, nil
	}
	if text[0] != '/' {
		return Pointer{}, fmt.Errorf("compiling JSON Pointer %q: it must start with / (as in /order/id)", text)
	}
	for part := range strings.SplitSeq(text[1:], "/") {
		for i := 0; i < len(part); i++ {
			if part[i] == '~' && (i+1 == len(part) || part[i+1] != '0' && part[i+1] != '1') {
				return Pointer{}, fmt.Errorf("compiling JSON Pointer %q: ~ must be followed by 0 or 1", text)
			}
		}
		t := token{name: strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~"), index: -1}
		if n, err := strconv.ParseUint(t.name, 10, 31); err == nil && strconv.FormatUint(n, 10) == t.name {
			t.index = int(n)
		}
		p.tokens = append(p.tokens, t)
	}
	return p, nil
}

// IsSet tells whether the pointer was compiled.
func (p *Pointer) IsSet() bool { return p.set }

// String is the pointer as written.
func (p *Pointer) String() string { return p.text }

// In is the value that the pointer leads to from v; missing where it leads
// nowhere.
func (p *Pointer) In(v Value) Value {
	for i := range p.tokens {
		t := &p.tokens[i]
		if v.Kind() == Array && t.index >= 0 {
			v = v.Index(t.index)
		} else {
			v = v.Get(t.name)
		}
	}
	return v
}
