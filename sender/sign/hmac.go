package sign

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"hash"
)

// macKey is an HMAC-SHA-256 key as RFC 2104 uses it: what the hash is after it
// has taken in the key's two padded forms. These 64 bytes say all of a key, and
// starting from them saves two of a signature's hash blocks; crypto/hmac keeps
// the same in half a kilobyte for each key. They are as secret as the key.
type macKey struct{ inner, outer [sha256.Size]byte }

// mac makes sums with any key. For one goroutine at a time.
type mac struct {
	hash hash.Hash
	// form is the marshalled form of a hash that has taken in one block: chaining
	// values go into it at chaining.
	form []byte
	room []byte // for another such form
	sum1 [sha256.Size]byte
}

// chaining is where crypto/sha256's marshalled form has the chaining values:
// behind its magic of four bytes. newMAC makes sure that this is so.
const chaining = 4

func newMAC() mac {
	m := mac{hash: sha256.New()}
	m.hash.Write(make([]byte, sha256.BlockSize))
	m.form = m.marshal(nil)
	other := sha256.New()
	other.Write(bytes.Repeat([]byte{1}, sha256.BlockSize))
	form := (&mac{hash: other}).marshal(nil)
	end := chaining + sha256.Size
	if len(form) != len(m.form) || bytes.Equal(form[chaining:end], m.form[chaining:end]) ||
		!bytes.Equal(form[:chaining], m.form[:chaining]) || !bytes.Equal(form[end:], m.form[end:]) {
		panic("BUG: crypto/sha256 keeps its state in another form than the one known here")
	}
	return m
}

func (m *mac) marshal(dst []byte) []byte {
	form, err := m.hash.(encoding.BinaryAppender).AppendBinary(dst)
	if err != nil {
		panic("BUG: crypto/sha256 does not marshal its state: " + err.Error())
	}
	return form
}

// key gives the form of secret in which sum takes it. Longer ones than a block
// stand for their hash (RFC 2104, section 2).
func (m *mac) key(secret []byte) (k macKey) {
	if len(secret) > sha256.BlockSize {
		m.sum1 = sha256.Sum256(secret)
		secret = m.sum1[:]
	}
	k.inner, k.outer = m.absorb(secret, 0x36), m.absorb(secret, 0x5c)
	return k
}

// absorb gives the chaining values behind a block of secret, padded with zeros,
// each byte of which is combined with pad.
func (m *mac) absorb(secret []byte, pad byte) (out [sha256.Size]byte) {
	var block [sha256.BlockSize]byte
	copy(block[:], secret)
	for i := range block {
		block[i] ^= pad
	}
	m.hash.Reset()
	m.hash.Write(block[:])
	m.room = m.marshal(m.room[:0])
	copy(out[:], m.room[chaining:])
	return out
}

// sum appends the HMAC of head and body, one behind the other.
func (m *mac) sum(dst []byte, k *macKey, head, body []byte) []byte {
	m.begin(&k.inner)
	m.hash.Write(head)
	m.hash.Write(body)
	inner := m.hash.Sum(m.sum1[:0])
	m.begin(&k.outer)
	m.hash.Write(inner)
	return m.hash.Sum(dst)
}

func (m *mac) begin(from *[sha256.Size]byte) {
	copy(m.form[chaining:], from[:])
	if err := m.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(m.form); err != nil {
		panic("BUG: crypto/sha256 refuses its own state: " + err.Error())
	}
}
