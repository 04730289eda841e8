// Package cloudevents reads CloudEvents 1.0 by the Kafka protocol binding:
// structured mode (content-type application/cloudevents+json, the value is the
// whole event) and binary mode (attributes in ce_* headers, the value is the
// data).
package cloudevents

import (
	"bytes"
	"strings"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// ContentType is the media type of structured mode.
const ContentType = "application/cloudevents+json"

const (
	family        = "application/cloudevents"
	batchPrefix   = "application/cloudevents-batch"
	headerContent = "content-type"
	specVersion   = "1.0"
)

// mode is how a record carries an event.
type mode int

const (
	modeNone       mode = iota // the record does not say
	modeStructured             // +json
	modeForeign                // structured in a format that is not read
	modeBatch
	modeBinary
)

// modeOf knows the structured mode by its content type, which counts first, and
// the binary one by the attribute that every event has: ce_specversion in
// Kafka's binding, ce-specversion where a bridge kept HTTP's spelling.
func modeOf(rec *wire.Record) mode {
	if h, ok := rec.Header(headerContent); ok {
		media := mediaType(h)
		switch {
		case foldEqual(media, ContentType):
			return modeStructured
		case foldEqual(media, batchPrefix), foldPrefix(media, batchPrefix+"+"):
			return modeBatch
		case foldEqual(media, family), foldPrefix(media, family+"+"):
			return modeForeign
		}
	}
	for _, name := range [...]string{"ce_specversion", "ce-specversion"} {
		if _, ok := rec.Header(name); ok {
			return modeBinary
		}
	}
	return modeNone
}

// Declared tells whether the record's headers say that it is a CloudEvent.
func Declared(rec *wire.Record) bool { return modeOf(rec) != modeNone }

// Opaque tells whether the record's value is not to be read as JSON: the data of
// an event in binary mode whose content type is not JSON.
func Opaque(rec *wire.Record) bool {
	switch resolve(rec) {
	case modeBatch, modeForeign:
		return true
	case modeBinary:
		return !isJSON(mediaType(contentType(rec)))
	case modeNone, modeStructured:
	}
	return false
}

// resolve is modeOf for a record that is known to be a CloudEvent: one that does
// not say is in binary mode if it has any attribute among its headers.
func resolve(rec *wire.Record) mode {
	if m := modeOf(rec); m != modeNone {
		return m
	}
	for i := range rec.Headers {
		if _, ok := attributeName(rec.Headers[i].Key); ok {
			return modeBinary
		}
	}
	return modeStructured
}

// Parse fills ev from the record, which is scanned unless it is Opaque. The
// entity is the attribute subject, the tenant the extension tenant, else the
// record's header "tenant", else the topic's default. The payload is the record's
// value in both modes. Batches, and events that lack a required attribute, are
// refused.
func Parse(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	switch resolve(rec) {
	case modeBatch:
		return errBatch("")
	case modeForeign:
		return &wire.Error{What: "unknown CloudEvents format in header " + headerContent, Want: ContentType}
	case modeBinary:
		return parseBinary(rec, s, opts, ev)
	case modeNone, modeStructured:
	}
	return parseStructured(rec, s, opts, ev)
}

func errBatch(detail string) error {
	return &wire.Error{What: "CloudEvents batch mode is not supported" + detail, Want: "one event per record"}
}

// missing says that a required attribute is not there, or is empty.
func missing(name, pointer, want string) error {
	return &wire.Error{What: "missing attribute " + name, Pointer: pointer, Want: want}
}

// wants says what the required attributes are, in the order they are looked for.
var wants = [...]struct{ name, pointer, want string }{
	{"specversion", "/specversion", `"` + specVersion + `"`},
	{"id", "/id", "the event's id"},
	{"source", "/source", "a URI reference of where the event comes from"},
	{"type", "/type", "the event's type"},
}

func errVersion(pointer string) error {
	return &wire.Error{What: "unsupported specversion", Pointer: pointer, Want: wants[0].want}
}

// contentType is the data's content type in binary mode; nil: none.
func contentType(rec *wire.Record) []byte {
	if h, ok := rec.Header(headerContent); ok && len(h) > 0 {
		return h
	}
	for _, name := range [...]string{"ce_datacontenttype", "ce-datacontenttype"} {
		if h, ok := rec.Header(name); ok && len(h) > 0 {
			return h
		}
	}
	return nil
}

// mediaType is a content type without its parameters.
func mediaType(contentType []byte) []byte {
	media, _, _ := bytes.Cut(contentType, []byte(";"))
	return bytes.TrimSpace(media)
}

func isJSON(media []byte) bool {
	const suffix = "+json"
	return foldEqual(media, "application/json") || foldEqual(media, "text/json") ||
		len(media) > len(suffix) && foldEqual(media[len(media)-len(suffix):], suffix)
}

func foldEqual(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }

func foldPrefix(b []byte, s string) bool { return len(b) >= len(s) && foldEqual(b[:len(s)], s) }

// isName tells whether an attribute's name is [a-z0-9]+, which is all that it
// may be.
func isName[T string | []byte](name T) bool {
	for i := range len(name) {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9') {
			return false
		}
	}
	return len(name) > 0
}

const wantName = "attribute names of a-z and 0-9"

// appendContentType appends a content type that becomes an HTTP header's value.
func appendContentType(dst, value []byte) ([]byte, error) {
	for _, c := range value {
		if c < ' ' || c >= 0x7f {
			return dst, &wire.Error{What: "not visible ASCII in header " + headerContent, Want: "a media type"}
		}
	}
	return append(dst, bytes.TrimSpace(value)...), nil
}

// checkData checks that a structured event has its data once.
func checkData(root jsonscan.Value) error {
	encoded := root.Get("data_base64")
	if !wire.Present(encoded) {
		return nil
	}
	const pointer, want = "/data_base64", "a string in base64"
	if err := wire.Required(encoded, jsonscan.String, pointer, want); err != nil {
		return err
	}
	if root.Get("data").Kind() != jsonscan.Missing {
		return &wire.Error{What: "data is there twice", Pointer: pointer, Want: "either data or data_base64"}
	}
	if !isBase64(encoded.Text()) {
		return &wire.Error{What: "not base64", Pointer: pointer, Want: want}
	}
	return nil
}

func isBase64(b []byte) bool {
	if len(b)%4 != 0 {
		return false
	}
	b = bytes.TrimSuffix(bytes.TrimSuffix(b, []byte("=")), []byte("="))
	for _, c := range b {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}
