package secret

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KeyBytes is the length of a key that seals: AES-256.
const KeyBytes = 32

// maxKeyID is the longest name of a key.
const maxKeyID = 32

// Errors of opening. All mean that the secret is not to be had.
var (
	// ErrUnknownKey: sealed with a key that this process does not have.
	ErrUnknownKey = errors.New("sealed with a key that HOOKLINE_SECRET_KEYS does not have")
	// ErrTampered: the sealed text was changed, or belongs to another
	// subscription or key.
	ErrTampered = errors.New("the sealed secret was changed, or sealed for another subscription or with another key of that name")
	// ErrNoKeys: there is no key to seal with.
	ErrNoKeys = errors.New("HOOKLINE_SECRET_KEYS is not set")
)

// Keyring has the keys that seal secrets. The first one seals, all open. A nil
// Keyring has none. Immutable and safe for concurrent use.
type Keyring struct {
	ids   []string
	aeads map[string]cipher.AEAD
}

// ParseKeys reads HOOKLINE_SECRET_KEYS: id:base64,id:base64 or file:/path with
// the same, where lines may stand for commas. The first key seals. Empty: nil.
// No error quotes a key.
func ParseKeys(text string) (*Keyring, error) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, filePrefix) {
		if err := checkRef(text); err != nil {
			return nil, err
		}
		read, _, err := readFile(strings.TrimPrefix(text, filePrefix))
		if err != nil {
			return nil, err
		}
		text = read.Reveal()
	}
	if text == "" {
		return nil, nil //nolint:nilnil // no keys is a keyring too
	}
	k := &Keyring{aeads: map[string]cipher.AEAD{}}
	n := 0
	for entry := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == ',' || r == '\n' || r == '\r' }) {
		if entry = strings.TrimSpace(entry); entry == "" || strings.HasPrefix(entry, "#") {
			continue
		}
		n++
		if err := k.add(entry); err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
	}
	if n == 0 {
		return nil, errors.New("there is no key (write id:base64 of 32 random bytes)")
	}
	return k, nil
}

func (k *Keyring) add(entry string) error {
	id, encoded, ok := strings.Cut(entry, ":")
	switch {
	case !ok:
		return errors.New("not id:base64 (make one with: openssl rand -base64 32)")
	case !isKeyID(id):
		return errors.New("the id before the colon is 1 to 32 of A-Z a-z 0-9 _ -")
	case k.aeads[id] != nil:
		return fmt.Errorf("id %s is there twice", id)
	}
	key, err := base64.StdEncoding.DecodeString(encoded)
	switch {
	case err != nil:
		return fmt.Errorf("key %s is not base64 (make one with: openssl rand -base64 32)", id)
	case len(key) != KeyBytes:
		return fmt.Errorf("key %s has %d bytes, not %d (make one with: openssl rand -base64 32)", id, len(key), KeyBytes)
	case allSame(key):
		return fmt.Errorf("key %s is one byte over and over (make one with: openssl rand -base64 32)", id)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return fmt.Errorf("key %s: %w", id, err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return fmt.Errorf("key %s: %w", id, err)
	}
	k.ids, k.aeads[id] = append(k.ids, id), aead
	return nil
}

func isKeyID(id string) bool {
	for i := range len(id) {
		c := id[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return id != "" && len(id) <= maxKeyID
}

func allSame(b []byte) bool { return bytes.Count(b, b[:1]) == len(b) }

// Primary names the key that seals; empty without keys.
func (k *Keyring) Primary() string {
	if k == nil {
		return ""
	}
	return k.ids[0]
}

// String names the keys.
func (k *Keyring) String() string {
	if k == nil {
		return "no keys"
	}
	return "keys " + strings.Join(k.ids, ", ")
}

// GoString is for %#v, which would show the expanded keys.
func (k *Keyring) GoString() string { return k.String() }

// Seal seals s for one subscription with the first key.
func (k *Keyring) Seal(subscription string, s Secret) (Value, error) {
	if k == nil {
		return Value{}, ErrNoKeys
	}
	if s.IsZero() || len(s.Reveal()) > MaxBytes {
		return Value{}, fmt.Errorf("sealing a secret: it is empty or over %d bytes", MaxBytes)
	}
	id := k.Primary()
	aead := k.aeads[id]
	nonce := make([]byte, aead.NonceSize(), aead.NonceSize()+len(s.Reveal())+aead.Overhead())
	if _, err := rand.Read(nonce); err != nil {
		return Value{}, fmt.Errorf("sealing a secret: %w", err)
	}
	box := aead.Seal(nonce, nonce, []byte(s.Reveal()), boundTo(subscription, id))
	return Value{stored: sealedPrefix + "v1:" + id + ":" + base64.RawURLEncoding.EncodeToString(box)}, nil
}

// Open opens a sealed value of one subscription. The error is ErrUnknownKey,
// ErrTampered, or about the form of the text.
func (k *Keyring) Open(subscription string, v Value) (Secret, error) {
	s, err := parseSealed(v.stored)
	if err != nil {
		return Secret{}, err
	}
	if k == nil || k.aeads[s.keyID] == nil {
		return Secret{}, fmt.Errorf("key %s: %w", s.keyID, ErrUnknownKey)
	}
	aead := k.aeads[s.keyID]
	if len(s.box) < aead.NonceSize() {
		return Secret{}, ErrTampered
	}
	text, err := aead.Open(nil, s.box[:aead.NonceSize()], s.box[aead.NonceSize():], boundTo(subscription, s.keyID))
	if err != nil || len(text) == 0 {
		return Secret{}, ErrTampered
	}
	return New(string(text)), nil
}

// boundTo is the additional data: the sealed text opens only for the
// subscription and the key that it was made for. Ids have no NUL.
func boundTo(subscription, keyID string) []byte {
	return []byte("hookline secret v1\x00" + subscription + "\x00" + keyID)
}

type sealed struct {
	keyID string
	box   []byte // nonce, then what GCM made
}

func parseSealed(text string) (sealed, error) {
	rest, ok := strings.CutPrefix(text, sealedPrefix+"v1:")
	if !ok {
		return sealed{}, errors.New("the secret is sealed in a form that this version does not know")
	}
	id, encoded, ok := strings.Cut(rest, ":")
	if !ok || !isKeyID(id) || len(encoded) > 2*MaxBytes {
		return sealed{}, ErrTampered
	}
	// Strict, so that one sealed secret has one text.
	box, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return sealed{}, ErrTampered
	}
	return sealed{id, box}, nil
}
