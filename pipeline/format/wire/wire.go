// Package wire holds what all format packages share: the record they read, the
// options of its topic, and the error by which they refuse it.
package wire

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// Header is one header of a Kafka record.
type Header struct {
	Key   string
	Value []byte
}

// Record is one Kafka record as a format sees it. Its bytes must not change
// afterwards: an event's payload aliases them.
type Record struct {
	Key, Value []byte
	Headers    []Header
	Timestamp  time.Time
}

// Header gives the value of the first header of that name, compared without
// regard to case.
func (r *Record) Header(name string) (value []byte, ok bool) {
	for i := range r.Headers {
		if h := &r.Headers[i]; len(h.Key) == len(name) && strings.EqualFold(h.Key, name) {
			return h.Value, true
		}
	}
	return nil, false
}

// HeaderTenant is the record header that names the tenant, for formats whose
// events do not.
const HeaderTenant = "tenant"

// TopicOptions says how the records of one topic are read. The zero value means:
// formats are told by header or by shape.
type TopicOptions struct {
	// Format of records that do not say it themselves; empty: by shape.
	Format pipeline.Format
	// DefaultTenant of records that name none; empty: none.
	DefaultTenant string
	// MaxBytes is the largest value that is read; 0: no limit but the scanner's.
	MaxBytes int
	// AllowUnknownTypes lets goflow events of types outside the published list
	// pass (option unknown-types=allow).
	AllowUnknownTypes bool
	// DedupeWindow is for how long an event's id is remembered, by the records'
	// timestamps, 1 s to 24 h (options dedupe=event_id,window=10m); 0: not at
	// all. Reading a record does not look at it.
	DedupeWindow time.Duration
	// Type, Tenant, ID, Entity and Time are the pointers of format json; one
	// that is not set leaves its attribute empty.
	Type, Tenant, ID, Entity, Time jsonscan.Pointer
}

// Error says why a record is not an event. Its text is one line of valid UTF-8
// and quotes nothing of the record but member names: it goes into a header.
type Error struct {
	What    string // "missing field", "truncated JSON", ...
	Pointer string // RFC 6901; "" is the whole value
	Want    string // what was expected; may be empty
}

// Error gives the line: what, where, what was expected.
func (e *Error) Error() string {
	s := e.What
	if e.Pointer != "" {
		s += " at " + e.Pointer
	}
	if e.Want != "" {
		s += ": want " + e.Want
	}
	return s
}

// Scratch is what one parse needs and the next one uses again. Not safe for
// concurrent use.
type Scratch struct {
	Doc jsonscan.Doc
	// Buf gathers an event's strings, so that they cost one allocation.
	Buf []byte
}

// Required gives v where it is of that kind, else the error that says so.
func Required(v jsonscan.Value, kind jsonscan.Kind, pointer, want string) error {
	got := v.Kind()
	if got == kind {
		return nil
	}
	if got == jsonscan.Missing {
		return &Error{What: "missing field", Pointer: pointer, Want: want}
	}
	return &Error{What: "wrong type (" + got.String() + ")", Pointer: pointer, Want: want}
}

// Present tells whether an optional value is there: neither missing nor null.
func Present(v jsonscan.Value) bool {
	return v.Kind() != jsonscan.Missing && v.Kind() != jsonscan.Null
}

// RequiredText refuses v unless it is a string that is not empty.
func RequiredText(v jsonscan.Value, pointer, want string) error {
	if err := Required(v, jsonscan.String, pointer, want); err != nil {
		return err
	}
	if len(v.Raw()) == len(`""`) {
		return &Error{What: "empty string", Pointer: pointer, Want: want}
	}
	return nil
}

// Optional refuses v unless it is missing, null or of that kind.
func Optional(v jsonscan.Value, kind jsonscan.Kind, pointer, want string) error {
	if !Present(v) {
		return nil
	}
	return Required(v, kind, pointer, want)
}

// OptionalName is AppendName for what may be missing, null or empty; then it
// appends nothing.
func OptionalName(dst []byte, v jsonscan.Value, pointer, want string) ([]byte, error) {
	if !Present(v) {
		return dst, nil
	}
	if err := Required(v, jsonscan.String, pointer, want); err != nil {
		return dst, err
	}
	from := len(dst)
	dst = v.AppendString(dst)
	return dst, CheckName(dst[from:], pointer)
}

// AppendText appends a required string that is not empty.
func AppendText(dst []byte, v jsonscan.Value, pointer, want string) ([]byte, error) {
	if err := Required(v, jsonscan.String, pointer, want); err != nil {
		return dst, err
	}
	from := len(dst)
	if dst = v.AppendString(dst); len(dst) == from {
		return dst, &Error{What: "empty string", Pointer: pointer, Want: want}
	}
	return dst, nil
}

// AppendName appends a required string that names something (a type, a tenant):
// not empty, and without control characters, since it becomes a header's value.
func AppendName(dst []byte, v jsonscan.Value, pointer, want string) ([]byte, error) {
	from := len(dst)
	dst, err := AppendText(dst, v, pointer, want)
	if err != nil {
		return dst, err
	}
	return dst, CheckName(dst[from:], pointer)
}

// CheckName refuses control characters in what becomes a header's value.
func CheckName(name []byte, pointer string) error {
	for _, c := range name {
		if c < ' ' || c == 0x7f {
			return &Error{What: "control character", Pointer: pointer, Want: "printable text"}
		}
	}
	return nil
}

// ParseTime reads an RFC 3339 time with any offset and up to nine digits of a
// second; the result is in UTC.
func ParseTime(v jsonscan.Value, pointer string) (time.Time, error) {
	const want = "an RFC 3339 time such as 2022-05-05T19:54:29.924Z"
	if err := Required(v, jsonscan.String, pointer, want); err != nil {
		return time.Time{}, err
	}
	var t time.Time
	if err := t.UnmarshalText(v.Text()); err != nil {
		return time.Time{}, &Error{What: "not a time", Pointer: pointer, Want: want}
	}
	return t.UTC(), nil
}

// AppendTenant appends the tenant of formats whose events name none: the header
// "tenant", else the topic's default.
func AppendTenant(dst []byte, rec *Record, opts *TopicOptions) ([]byte, error) {
	h, ok := rec.Header(HeaderTenant)
	if !ok || len(h) == 0 {
		return append(dst, opts.DefaultTenant...), nil
	}
	if !utf8.Valid(h) {
		return dst, &Error{What: "invalid UTF-8 in header " + HeaderTenant, Want: "UTF-8"}
	}
	if err := CheckName(h, ""); err != nil {
		return dst, &Error{What: "control character in header " + HeaderTenant, Want: "printable text"}
	}
	return append(dst, h...), nil
}
