// Package format turns a Kafka record into an Event. It decides which wire
// format a record has, checks the record strictly, and lets that format's
// package take out the attributes. A format is one entry in the table below and
// one package beside this one.
package format

import (
	"fmt"
	"strings"
	"sync"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/cloudevents"
	"github.com/hookline/hookline/pipeline/format/cotalker"
	"github.com/hookline/hookline/pipeline/format/goflow"
	"github.com/hookline/hookline/pipeline/format/jsonptr"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/signl4"
	"github.com/hookline/hookline/pipeline/format/task"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// Record is one Kafka record; see wire.Record.
type Record = wire.Record

// Header is one header of a Record.
type Header = wire.Header

// TopicOptions says how a topic's records are read; see wire.TopicOptions.
type TopicOptions = wire.TopicOptions

// Error says why a record is not an event; see wire.Error.
type Error = wire.Error

// HeaderFormat is the record header that names the record's format.
const HeaderFormat = "hookline-format"

// entry is one format.
type entry struct {
	name pipeline.Format
	// shape tells whether a text looks like this format; nil: never detected.
	shape func(root jsonscan.Value) bool
	// opaque tells whether a record's value is not JSON and not to be scanned;
	// nil: it always is.
	opaque func(rec *wire.Record) bool
	// parse fills the event's attributes and payload; Source, Format and
	// ProducedAt are there already.
	parse func(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error
}

// table lists the formats that this version reads.
var table = [...]entry{
	{name: pipeline.FormatCotalker, shape: cotalker.Shape, parse: cotalker.Parse},
	{name: pipeline.FormatGoflow, shape: goflow.Shape, parse: goflow.Parse},
	{name: pipeline.FormatSIGNL4, shape: signl4.Shape, parse: signl4.Parse},
	{name: pipeline.FormatTask, shape: task.Shape, parse: task.Parse},
	{name: pipeline.FormatCloudEvents, opaque: cloudevents.Opaque, parse: cloudevents.Parse},
	{name: pipeline.FormatJSON, parse: jsonptr.Parse},
}

// Known tells whether this version reads the format.
func Known(name pipeline.Format) bool { return lookup(string(name)) != nil }

// Names lists the formats that this version reads, for messages:
// "cotalker, goflow, ..., json".
func Names() string {
	names := make([]string, len(table))
	for i := range table {
		names[i] = string(table[i].name)
	}
	return strings.Join(names, ", ")
}

func lookup[T string | []byte](name T) *entry {
	for i := range table {
		if string(table[i].name) == string(name) {
			return &table[i]
		}
	}
	return nil
}

var scratches = sync.Pool{New: func() any { return new(wire.Scratch) }}

// Parse fills ev, whose former contents are dropped, from the record at src.
// An error is always an *Error, and then ev holds only Source and ProducedAt.
// The event's payload aliases rec.Value. Safe for concurrent use.
func Parse(rec *Record, opts *TopicOptions, src *pipeline.Position, ev *pipeline.Event) error {
	*ev = pipeline.Event{Source: *src, ProducedAt: rec.Timestamp}
	s := scratches.Get().(*wire.Scratch)
	err := parse(rec, s, opts, ev)
	s.Doc.Reset()
	if cap(s.Buf) > maxKeptBuf {
		s.Buf = nil
	}
	scratches.Put(s)
	if err != nil {
		*ev = pipeline.Event{Source: *src, ProducedAt: rec.Timestamp}
	}
	return err
}

// maxKeptBuf bounds what a scratch keeps after a record with huge names, bytes.
const maxKeptBuf = 64 << 10

func parse(rec *Record, s *wire.Scratch, opts *TopicOptions, ev *pipeline.Event) error {
	f, err := declared(rec, opts)
	if err != nil {
		return err
	}
	if opts.MaxBytes > 0 && len(rec.Value) > opts.MaxBytes {
		return &Error{
			What: fmt.Sprintf("too large: %d bytes", len(rec.Value)),
			Want: fmt.Sprintf("at most %d bytes (EVENT_MAX_BYTES)", opts.MaxBytes),
		}
	}
	if f == nil || f.opaque == nil || !f.opaque(rec) {
		if err = scan(rec.Value, &s.Doc); err != nil {
			return err
		}
	}
	if f == nil {
		if f, err = detect(s.Doc.Root()); err != nil {
			return err
		}
	}
	ev.Format = f.name
	return f.parse(rec, s, opts, ev)
}

func scan(value []byte, doc *jsonscan.Doc) error {
	serr := doc.Scan(value)
	if serr == nil {
		return nil
	}
	e := &Error{What: serr.What, Pointer: serr.Pointer, Want: serr.Want}
	if len(value) > 0 {
		e.What += fmt.Sprintf(" (byte %d)", serr.Offset)
	}
	return e
}

// declared gives the format that the record or its topic names; nil: by shape.
func declared(rec *Record, opts *TopicOptions) (*entry, error) {
	if len(rec.Headers) > 0 {
		if h, ok := rec.Header(HeaderFormat); ok {
			if f := lookup(h); f != nil {
				return f, nil
			}
			return nil, &Error{What: "unknown format in header " + HeaderFormat, Want: "one of " + Names()}
		}
		if cloudevents.Declared(rec) {
			return lookup(string(pipeline.FormatCloudEvents)), nil
		}
	}
	if opts.Format == "" {
		return nil, nil //nolint:nilnil // no format is declared: the shape tells
	}
	if f := lookup(string(opts.Format)); f != nil {
		return f, nil
	}
	return nil, &Error{What: "format " + string(opts.Format) + " of the topic is not supported", Want: "one of " + Names()}
}

// detect finds the one format that the text has the shape of. It never guesses.
func detect(root jsonscan.Value) (*entry, error) {
	var found *entry
	for i := range table {
		if f := &table[i]; f.shape != nil && f.shape(root) {
			if found != nil {
				return nil, &Error{
					What: "ambiguous shape: " + string(found.name) + " or " + string(f.name),
					Want: "a format named by the topic or by header " + HeaderFormat,
				}
			}
			found = f
		}
	}
	if found == nil {
		return nil, &Error{What: "unknown shape", Want: "a format named by the topic or by header " + HeaderFormat}
	}
	return found, nil
}
