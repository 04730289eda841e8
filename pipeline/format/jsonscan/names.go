package jsonscan

import (
	"bytes"
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"strings"
	"unicode/utf8"
)

// name is a member's name while its object is open: its decoded bytes, and a
// signature that differs for nearly all short names, so that few comparisons
// look at the bytes.
type name struct {
	text []byte
	sig  uint64
}

// pairwise is the number of members up to which every pair is compared; a table
// is quicker above.
const pairwise = 20

func (d *Doc) pushName(n *node) {
	text := d.src[n.keyFrom:n.keyTo]
	if n.keyEscaped {
		from := len(d.arena)
		d.arena = appendUnquoted(d.arena, text)
		text = d.arena[from:]
	}
	d.names = append(d.names, name{text, signature(text)})
}

func signature(b []byte) uint64 {
	n := uint64(len(b))
	if n >= 8 {
		return binary.LittleEndian.Uint64(b[n-8:]) ^ n<<56 ^ uint64(b[0])<<48
	}
	s := n << 56
	for i, c := range b {
		s |= uint64(c) << (8 * i)
	}
	return s
}

// closeNames looks for a name that occurs twice in the object whose names start
// at base, and forgets them.
func (d *Doc) closeNames(base int) bool {
	names := d.names[base:]
	d.names = d.names[:base]
	if len(names) > pairwise {
		return d.closeMany(names)
	}
	for i := 1; i < len(names); i++ {
		for k := range i {
			if names[i].sig == names[k].sig && bytes.Equal(names[i].text, names[k].text) {
				return d.duplicate(names[i].text)
			}
		}
	}
	return true
}

// seed is random for each process: nobody can make names collide on purpose.
var seed = maphash.MakeSeed()

func (d *Doc) closeMany(names []name) bool {
	size := 1 << bits.Len(uint(2*len(names)))
	if cap(d.table) < size {
		d.table = make([]uint32, size)
	}
	table := d.table[:size]
	clear(table)
	mask := uint64(size - 1)
	for i := range names {
		at := maphash.Bytes(seed, names[i].text) & mask
		for ; table[at] != 0; at = (at + 1) & mask {
			other := &names[table[at]-1]
			if other.sig == names[i].sig && bytes.Equal(other.text, names[i].text) {
				return d.duplicate(names[i].text)
			}
		}
		table[at] = uint32(i + 1)
	}
	return true
}

func (d *Doc) duplicate(text []byte) bool {
	at := len(d.src)
	if i := bytes.LastIndex(d.src, text); i >= 0 {
		at = i
	}
	d.fail("duplicate name", at, "each name once in an object")
	d.under(string(text))
	return false
}

// under puts a token in front of the error's pointer while the scan unwinds.
func (d *Doc) under(token string) int {
	const maxToken = 128 // bytes; a hostile name may be as long as the text
	if len(token) > maxToken {
		token = strings.ToValidUTF8(token[:maxToken], "") + "..."
	}
	d.err.Pointer = "/" + escapeToken(token) + d.err.Pointer
	return -1
}

// Token spells a member's name as an error's pointer has it: a slash, and the
// name by RFC 6901 without control characters.
func Token(name []byte) string { return "/" + escapeToken(string(name)) }

// escapeToken spells a name as a JSON Pointer's token (RFC 6901), without
// control characters: it ends up in one line of text.
func escapeToken(s string) string {
	s = strings.ReplaceAll(strings.ReplaceAll(s, "~", "~0"), "/", "~1")
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// cutPointer bounds a pointer's length: 512 levels of long names would make it
// larger than a Kafka header should be.
func cutPointer(p string) string {
	const maxPointer = 1024 // bytes
	if len(p) <= maxPointer {
		return p
	}
	return strings.ToValidUTF8(p[:maxPointer], "") + "..."
}

// appendUnquoted appends the decoded text of a valid JSON string's inside.
func appendUnquoted(dst, text []byte) []byte {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return append(dst, text...)
		}
		dst = append(dst, text[:i]...)
		c := text[i+1]
		text = text[i+2:]
		switch c {
		case 'b':
			c = '\b'
		case 'f':
			c = '\f'
		case 'n':
			c = '\n'
		case 'r':
			c = '\r'
		case 't':
			c = '\t'
		case 'u':
			r, _ := hex4(text, 0)
			text = text[4:]
			if r >= 0xd800 && r < 0xdc00 {
				low, _ := hex4(text, 2)
				text = text[6:]
				r = (r-0xd800)<<10 | (low - 0xdc00) + 0x10000
			}
			dst = utf8.AppendRune(dst, r)
			continue
		}
		dst = append(dst, c)
	}
}
