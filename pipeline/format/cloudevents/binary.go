package cloudevents

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// maxAttributes bounds the attributes of one event in binary mode.
const maxAttributes = 256

// attributeName is the attribute that a header carries, in the header's spelling.
func attributeName(header string) (name string, ok bool) {
	const prefix = len("ce_")
	if len(header) <= prefix || header[0]|0x20 != 'c' || header[1]|0x20 != 'e' || header[2] != '_' && header[2] != '-' {
		return "", false
	}
	return header[prefix:], true
}

func parseBinary(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	if len(rec.Value) == 0 {
		return &wire.Error{What: "empty value", Want: "the event's data"}
	}
	b, n, err := appendAttributes(s.Buf[:0], rec)
	if err != nil {
		return err
	}
	attributesEnd := len(b)
	if b, err = wire.AppendTenant(b, rec, opts); err != nil {
		return err
	}
	tenantEnd := len(b)
	if b, err = appendContentType(b, contentType(rec)); err != nil {
		return err
	}
	s.Buf = b
	all := string(b)
	ev.Tenant = all[attributesEnd:tenantEnd]
	ev.ContentType = all[tenantEnd:]
	ev.Payload = rec.Value
	ev.Attributes = cut(all, rec, n)
	return fill(ev)
}

// appendAttributes checks the attributes among the headers, appends the name and
// value of each, and counts them.
func appendAttributes(dst []byte, rec *wire.Record) (_ []byte, n int, err error) {
	for i := range rec.Headers {
		h := &rec.Headers[i]
		spelled, ok := attributeName(h.Key)
		if !ok || len(h.Value) == 0 {
			continue
		}
		from := len(dst)
		for k := range len(spelled) {
			c := spelled[k]
			if c >= 'A' && c <= 'Z' {
				c |= 0x20
			}
			dst = append(dst, c)
		}
		if !isName(dst[from:]) {
			return dst, 0, &wire.Error{What: "invalid attribute name in a ce_ header", Want: wantName}
		}
		if n++; n > maxAttributes {
			return dst, 0, &wire.Error{What: "too many attributes among the headers", Want: "at most 256"}
		}
		name := string(dst[from:])
		switch {
		case wire.CheckName(h.Value, "") != nil:
			return dst, 0, &wire.Error{What: "control character in attribute " + name + " (header ce_" + name + ")", Want: "printable text"}
		case !utf8.Valid(h.Value):
			return dst, 0, &wire.Error{What: "invalid UTF-8 in attribute " + name + " (header ce_" + name + ")", Want: "UTF-8"}
		case twice(rec, i, spelled):
			return dst, 0, &wire.Error{What: "duplicate attribute " + name + " (header ce_" + name + ")", Want: "each attribute once"}
		}
		dst = append(dst, h.Value...)
	}
	return dst, n, nil
}

// twice tells whether a header before i carries the same attribute.
func twice(rec *wire.Record, i int, spelled string) bool {
	for k := range i {
		if other, ok := attributeName(rec.Headers[k].Key); ok && len(rec.Headers[k].Value) > 0 && strings.EqualFold(other, spelled) {
			return true
		}
	}
	return false
}

// cut takes the string that appendAttributes made apart again.
func cut(all string, rec *wire.Record, n int) []pipeline.Attribute {
	out := make([]pipeline.Attribute, 0, n)
	for i := range rec.Headers {
		h := &rec.Headers[i]
		spelled, ok := attributeName(h.Key)
		if !ok || len(h.Value) == 0 {
			continue
		}
		at := len(spelled) + len(h.Value)
		if a := (pipeline.Attribute{Name: all[:len(spelled)], Value: all[len(spelled):at]}); a.Name != "datacontenttype" {
			out = append(out, a)
		}
		all = all[at:]
	}
	return out
}

// fill takes the event's fields from its attributes.
func fill(ev *pipeline.Event) error {
	for i := range wants {
		w := &wants[i]
		v := find(ev.Attributes, w.name)
		if v == "" {
			return missing(w.name+" (header ce_"+w.name+")", "", w.want)
		}
		switch w.name {
		case "specversion":
			if v != specVersion {
				return errVersion("")
			}
		case "id":
			ev.ID = pipeline.SafeID(v)
		case "type":
			ev.Type = v
		}
	}
	ev.Entity = find(ev.Attributes, "subject")
	if tenant := find(ev.Attributes, "tenant"); tenant != "" {
		ev.Tenant = tenant
	}
	if at := find(ev.Attributes, "time"); at != "" {
		t, err := time.Parse(time.RFC3339, at)
		if err != nil {
			return &wire.Error{What: "attribute time (header ce_time) is not a time", Want: "an RFC 3339 time such as 2022-05-05T19:54:29.924Z"}
		}
		ev.Time = t.UTC()
	}
	if ev.ContentType == "" {
		return missing("datacontenttype (header content-type)", "", "the media type of the event's data")
	}
	return nil
}

func find(attributes []pipeline.Attribute, name string) string {
	for i := range attributes {
		if attributes[i].Name == name {
			return attributes[i].Value
		}
	}
	return ""
}
