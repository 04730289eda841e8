// Package secret keeps what must not be shown: a type that cannot print itself,
// values as the registry stores them (references, or sealed with AES-256-GCM),
// the keys that seal them, and the reading of what references name.
package secret

import (
	"crypto/sha256"
	"crypto/subtle"
	"fmt"
	"io"
	"log/slog"
)

// Redacted is what every printed form of a secret says.
const Redacted = "[redacted]"

// Secret is a text that cannot be printed by accident: every way of fmt, slog
// and the encoders shows Redacted. The zero Secret is empty.
type Secret struct {
	// A pointer, since fmt calls no methods on unexported fields of others'
	// structs: it prints an address there, and would print a string.
	text *string
}

// New makes a secret of text.
func New(text string) Secret {
	if text == "" {
		return Secret{}
	}
	return Secret{&text}
}

// Reveal is the text itself. Whoever calls it must keep it from being shown.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// IsZero tells whether there is no text.
func (s Secret) IsZero() bool { return s.text == nil }

// Equal compares in constant time, lengths included.
func (s Secret) Equal(other Secret) bool {
	a, b := sha256.Sum256([]byte(s.Reveal())), sha256.Sum256([]byte(other.Reveal()))
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

func (Secret) String() string { return Redacted }

// GoString is for %#v.
func (Secret) GoString() string { return Redacted }

// Format is for every verb, %x and %q too.
func (Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, Redacted) }

// MarshalJSON never fails.
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + Redacted + `"`), nil }

// MarshalText never fails.
func (Secret) MarshalText() ([]byte, error) { return []byte(Redacted), nil }

// UnmarshalText takes the text as it is.
func (s *Secret) UnmarshalText(text []byte) error {
	*s = New(string(text))
	return nil
}

// LogValue is for slog.
func (Secret) LogValue() slog.Value { return slog.StringValue(Redacted) }
