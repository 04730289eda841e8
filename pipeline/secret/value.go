package secret

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

const (
	envPrefix    = "env:"
	filePrefix   = "file:"
	sealedPrefix = "sealed:"
)

// MaxBytes is the longest secret: a private key with its chain fits.
const MaxBytes = 16 << 10

// maxName is the longest name of a variable or path.
const maxName = 1024

// ErrPlain says that a stored record holds a secret in clear, or something that
// is no secret at all.
var ErrPlain = errors.New("neither a reference (env:NAME, file:/path) nor sealed")

// Value is one secret of a subscription: a reference, sealed, or, between being
// read from a document and being sealed, in clear. It prints references as they
// are, and of the rest only that it is there.
type Value struct {
	stored string // the reference or the sealed text
	plain  Secret // in clear; then stored is empty
}

// Plain is a value in clear, to be sealed.
func Plain(text string) Value { return Value{plain: New(text)} }

// Ref makes a value of a reference, env:NAME or file:/path.
func Ref(text string) (Value, error) {
	if err := checkRef(text); err != nil {
		return Value{}, err
	}
	return Value{stored: text}, nil
}

// ParseStored reads a value as the registry has it; ErrPlain for anything but
// references and sealed ones. No error quotes the text.
func ParseStored(text string) (Value, error) {
	switch {
	case IsRef(text):
		return Ref(text)
	case strings.HasPrefix(text, sealedPrefix):
		if _, err := parseSealed(text); err != nil {
			return Value{}, err
		}
		return Value{stored: text}, nil
	}
	return Value{}, ErrPlain
}

// IsRef tells whether text is written as a reference, be it a good one or not.
func IsRef(text string) bool {
	return strings.HasPrefix(text, envPrefix) || strings.HasPrefix(text, filePrefix)
}

// IsSealed tells whether text is written as a sealed value.
func IsSealed(text string) bool { return strings.HasPrefix(text, sealedPrefix) }

func checkRef(text string) error {
	if name, ok := strings.CutPrefix(text, envPrefix); ok {
		switch {
		case !isVariable(name):
			return errors.New("env: is followed by the name of a variable (write env:ERP_TOKEN)")
		case strings.HasPrefix(strings.ToUpper(name), "HOOKLINE_"):
			return errors.New("hookline's own variables are not sent to endpoints (give the secret a name of its own)")
		}
		return nil
	}
	path, ok := strings.CutPrefix(text, filePrefix)
	switch {
	case !ok:
		return errors.New("not a reference (write env:NAME or file:/path)")
	case !filepath.IsAbs(path) || len(path) > maxName || filepath.Clean(path) != path:
		return errors.New("file: is followed by an absolute path without . and .. (write file:/run/secrets/erp)")
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return errors.New("the path has control characters")
	}
	return nil
}

func isVariable(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return name != "" && len(name) <= maxName
}

// Stored is the value as the registry has it. Plain ones have none: it panics.
func (v Value) Stored() string {
	if v.IsPlain() {
		panic("BUG: a secret in clear was about to be stored")
	}
	return v.stored
}

// IsPlain tells whether the value is in clear.
func (v Value) IsPlain() bool { return !v.plain.IsZero() }

// IsSealed tells whether the value is sealed.
func (v Value) IsSealed() bool { return IsSealed(v.stored) }

// IsZero tells whether there is no value.
func (v Value) IsZero() bool { return v.stored == "" && v.plain.IsZero() }

// Plaintext is what a plain value holds; empty for others.
func (v Value) Plaintext() Secret { return v.plain }

// KeyID names the key that sealed the value; empty for others.
func (v Value) KeyID() string {
	s, err := parseSealed(v.stored)
	if err != nil {
		return ""
	}
	return s.keyID
}

func (v Value) String() string {
	switch {
	case v.IsZero():
		return ""
	case v.IsPlain():
		return Redacted
	case v.IsSealed():
		return "[sealed with key " + v.KeyID() + "]"
	}
	return v.stored
}

// GoString is for %#v.
func (v Value) GoString() string { return v.String() }

// MarshalJSON gives the form that is shown; see StoredForm.
func (v Value) MarshalJSON() ([]byte, error) { return jsontext.AppendQuote(nil, v.String()) }

// UnmarshalJSON reads the stored form.
func (v *Value) UnmarshalJSON(b []byte) error {
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return errors.New("a secret is text")
	}
	parsed, err := ParseStored(text)
	if err != nil {
		return fmt.Errorf("reading a secret: %w", err)
	}
	*v = parsed
	return nil
}

// StoredForm makes an encoder write values as the registry stores them.
func StoredForm() json.Options {
	return json.WithMarshalers(json.MarshalToFunc(func(e *jsontext.Encoder, v Value) error {
		return e.WriteToken(jsontext.String(v.Stored()))
	}))
}
