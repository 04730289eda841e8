// Package cotalker reads Cotalker's COTEvent:
// {company, type, extraData, createdAt, data{_id, ...}, event}.
package cotalker

import (
	"bytes"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// Shape tells whether the text looks like a COTEvent.
func Shape(root jsonscan.Value) bool {
	return root.Get("company").Kind() == jsonscan.String &&
		bytes.HasPrefix(root.Get("type").Text(), []byte("COT")) &&
		root.Get("event").Kind() == jsonscan.String &&
		root.Get("data").Kind() == jsonscan.Object
}

// Parse fills ev from the scanned record. The tenant is the company, the type
// "COTTask.create" with the alias "COTTask", the entity data._id, and the id is
// derived from the position.
func Parse(rec *wire.Record, s *wire.Scratch, _ *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	if err := wire.Required(root, jsonscan.Object, "", "an object"); err != nil {
		return err
	}
	b, err := wire.AppendName(s.Buf[:0], root.Get("company"), "/company", wantCompany)
	if err != nil {
		return err
	}
	if !isObjectID(b) {
		return &wire.Error{What: "not an ObjectId", Pointer: "/company", Want: wantCompany}
	}
	tenantEnd := len(b)
	if b, err = wire.AppendName(b, root.Get("type"), "/type", `a string such as "COTTask"`); err != nil {
		return err
	}
	aliasEnd := len(b)
	b = append(b, '.')
	if b, err = wire.AppendName(b, root.Get("event"), "/event", `a string such as "create"`); err != nil {
		return err
	}
	typeEnd := len(b)
	data := root.Get("data")
	if err = wire.Required(data, jsonscan.Object, "/data", "an object"); err != nil {
		return err
	}
	if id := data.Get("_id"); wire.Present(id) {
		if b, err = wire.AppendText(b, id, "/data/_id", "a string"); err != nil {
			return err
		}
	}
	entityEnd := len(b)
	if ev.Time, err = wire.ParseTime(root.Get("createdAt"), "/createdAt"); err != nil {
		return err
	}
	b = pipeline.AppendDerivedID(b, &ev.Source)
	s.Buf = b
	all := string(b)
	ev.Tenant = all[:tenantEnd]
	ev.Type = all[tenantEnd:typeEnd]
	ev.TypeAlias = all[tenantEnd:aliasEnd]
	ev.Entity = all[typeEnd:entityEnd]
	ev.ID = all[entityEnd:]
	ev.Payload = rec.Value
	return nil
}

const wantCompany = "a string of 24 hex digits"

func isObjectID(b []byte) bool {
	if len(b) != 24 {
		return false
	}
	for _, c := range b {
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}
