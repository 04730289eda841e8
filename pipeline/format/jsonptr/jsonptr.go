// Package jsonptr reads any JSON text (format name "json"): JSON Pointers per
// topic say where its type, tenant, id, entity and time stand.
package jsonptr

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// Parse fills ev from the scanned record. A type or tenant whose pointer is set
// must be there; id, entity and time may be missing or null. Numbers count as
// the text they are spelled with. Without a tenant pointer the tenant is the
// record's header "tenant", else the topic's default; without an id it is
// derived from the position.
func Parse(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	b, err := appendText(s.Buf[:0], root, &opts.Type, true)
	if err != nil {
		return err
	}
	typeEnd := len(b)
	if opts.Tenant.IsSet() {
		b, err = appendText(b, root, &opts.Tenant, true)
	} else {
		b, err = wire.AppendTenant(b, rec, opts)
	}
	if err != nil {
		return err
	}
	tenantEnd := len(b)
	if b, err = appendText(b, root, &opts.Entity, false); err != nil {
		return err
	}
	entityEnd := len(b)
	if b, err = appendText(b, root, &opts.ID, false); err != nil {
		return err
	}
	if len(b) == entityEnd {
		b = pipeline.AppendDerivedID(b, &ev.Source)
	}
	if at := opts.Time.In(root); opts.Time.IsSet() && wire.Present(at) {
		if ev.Time, err = wire.ParseTime(at, opts.Time.String()); err != nil {
			return err
		}
	}
	s.Buf = b
	all := string(b)
	ev.Type = all[:typeEnd]
	ev.Tenant = all[typeEnd:tenantEnd]
	ev.Entity = all[tenantEnd:entityEnd]
	ev.ID = pipeline.SafeID(all[entityEnd:])
	ev.Payload = rec.Value
	return nil
}

// appendText appends the text that p leads to; nothing where p is not set.
func appendText(dst []byte, root jsonscan.Value, p *jsonscan.Pointer, required bool) ([]byte, error) {
	const want = "a string or a number"
	if !p.IsSet() {
		return dst, nil
	}
	v := p.In(root)
	switch {
	case v.Kind() == jsonscan.Number:
		return append(dst, v.Raw()...), nil
	case !required && !wire.Present(v):
		return dst, nil
	case !required && v.Kind() == jsonscan.String && len(v.Raw()) == len(`""`):
		return dst, nil
	}
	if required {
		return wire.AppendName(dst, v, p.String(), want)
	}
	return wire.AppendText(dst, v, p.String(), want)
}
