package cloudevents

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

func parseStructured(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	if root.Kind() == jsonscan.Array {
		return errBatch(" (an array)")
	}
	if err := wire.Required(root, jsonscan.Object, "", "an object"); err != nil {
		return err
	}
	if err := checkMembers(root); err != nil {
		return err
	}
	var err error
	if at := root.Get("time"); wire.Present(at) {
		if ev.Time, err = wire.ParseTime(at, "/time"); err != nil {
			return err
		}
	}
	b := root.Get("id").AppendString(s.Buf[:0])
	idEnd := len(b)
	b = root.Get("type").AppendString(b)
	typeEnd := len(b)
	if b, err = wire.OptionalName(b, root.Get("subject"), "/subject", "a string"); err != nil {
		return err
	}
	subjectEnd := len(b)
	if b, err = wire.OptionalName(b, root.Get("tenant"), "/tenant", "a string"); err != nil {
		return err
	}
	if len(b) == subjectEnd {
		if b, err = wire.AppendTenant(b, rec, opts); err != nil {
			return err
		}
	}
	tenantEnd := len(b)
	ev.ContentType = ContentType
	if h, ok := rec.Header(headerContent); ok && foldPrefix(h, ContentType) && string(h) != ContentType {
		if b, err = appendContentType(b, h); err != nil { // with parameters
			return err
		}
	}
	s.Buf = b
	all := string(b)
	ev.ID = pipeline.SafeID(all[:idEnd])
	ev.Type = all[idEnd:typeEnd]
	ev.Entity = all[typeEnd:subjectEnd]
	ev.Tenant = all[subjectEnd:tenantEnd]
	if tenantEnd < len(all) {
		ev.ContentType = all[tenantEnd:]
	}
	ev.Payload = rec.Value
	return nil
}

// checkMembers checks that the required attributes are there and that the
// event has nothing that an attribute cannot be.
func checkMembers(root jsonscan.Value) error {
	for i := range wants {
		w := &wants[i]
		v := root.Get(w.name)
		if !wire.Present(v) || len(v.Raw()) == len(`""`) && v.Kind() == jsonscan.String {
			return missing(w.name, w.pointer, w.want)
		}
		if err := wire.Required(v, jsonscan.String, w.pointer, w.want); err != nil {
			return err
		}
		if w.name != "id" { // which is hashed where need be
			if err := wire.CheckName(v.Text(), w.pointer); err != nil {
				return err
			}
		}
	}
	if string(root.Get("specversion").Text()) != specVersion {
		return errVersion("/specversion")
	}
	for c := root.Children(); ; {
		m := c.Next()
		if m.Kind() == jsonscan.Missing {
			break
		}
		name := m.Name()
		switch {
		case string(name) == "data", string(name) == "data_base64":
		case !isName(name):
			return &wire.Error{What: "invalid attribute name", Pointer: jsonscan.Token(name), Want: wantName}
		case m.Kind() == jsonscan.Object, m.Kind() == jsonscan.Array:
			return &wire.Error{What: "wrong type (" + m.Kind().String() + ")", Pointer: jsonscan.Token(name), Want: "a string, a number or a boolean"}
		}
	}
	return checkData(root)
}
