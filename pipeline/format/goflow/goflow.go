// Package goflow reads the events of goflow, a flow engine:
// {type, created_on, step_uuid?, ...}. What each type must have stands in the
// table in types.go.
package goflow

import (
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// TypeResthookCalled is the type of the event that is not sent itself: the
// subscribers of its resthook get its payload.
const TypeResthookCalled = "resthook_called"

// Shape tells whether the text looks like an event of a type in the table.
func Shape(root jsonscan.Value) bool {
	return root.Get("created_on").Kind() != jsonscan.Missing && lookup(root.Get("type").Text()) != nil
}

// Parse fills ev from the scanned record. The tenant is the record's header
// "tenant", else the topic's default; the entity is step_uuid, else the record's
// key; the id is derived from the position. A type outside the table is refused
// unless the topic allows unknown types; then only created_on and step_uuid are
// checked.
//
// For resthook_called the event's payload is the member payload alone, and only
// the subscriptions of that resthook take it.
func Parse(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	if err := wire.Required(root, jsonscan.Object, "", "an object"); err != nil {
		return err
	}
	b, err := wire.AppendName(s.Buf[:0], root.Get("type"), "/type", wantType)
	if err != nil {
		return err
	}
	typeEnd := len(b)
	known := lookup(b)
	if known == nil && !opts.AllowUnknownTypes {
		return &wire.Error{What: "unknown type", Pointer: "/type", Want: wantType + " (or the topic option unknown-types=allow)"}
	}
	if ev.Time, err = wire.ParseTime(root.Get("created_on"), "/created_on"); err != nil {
		return err
	}
	if err = optionalUUID(root.Get("step_uuid"), "/step_uuid"); err != nil {
		return err
	}
	if err = known.check(root); err != nil {
		return err
	}
	if b, err = wire.AppendTenant(b, rec, opts); err != nil {
		return err
	}
	tenantEnd := len(b)
	b = appendEntity(b, root.Get("step_uuid"), rec.Key)
	entityEnd := len(b)
	b = pipeline.AppendDerivedID(b, &ev.Source)
	idEnd := len(b)
	ev.Payload = rec.Value
	if string(b[:typeEnd]) == TypeResthookCalled {
		if b, err = wire.AppendName(b, root.Get("resthook"), "/resthook", "a resthook's name"); err != nil {
			return err
		}
		ev.Payload = root.Get("payload").Raw()
	}
	s.Buf = b
	all := string(b)
	ev.Type = all[:typeEnd]
	ev.Tenant = all[typeEnd:tenantEnd]
	ev.Entity = all[tenantEnd:entityEnd]
	ev.ID = all[entityEnd:idEnd]
	ev.Resthook = all[idEnd:]
	return nil
}

const wantType = "one of goflow's event types"

// appendEntity appends step_uuid, else the record's key. A key that is not text
// is hashed: it has to tell entities apart, nobody reads it.
func appendEntity(dst []byte, step jsonscan.Value, key []byte) []byte {
	if wire.Present(step) {
		return step.AppendString(dst)
	}
	if !utf8.Valid(key) || wire.CheckName(key, "") != nil {
		return append(dst, pipeline.SafeID(string(key))...)
	}
	return append(dst, key...)
}
