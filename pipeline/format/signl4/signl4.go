// Package signl4 reads SIGNL4's outbound notifications:
// {eventType, eventRaisedUtc, id, subscription{id}?, user?, team?, alert?, annotation?}.
package signl4

import (
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// kind is one eventType: the number as it is spelled, and the type's name.
type kind struct{ number, name string }

// kinds are SIGNL4's event types. Number 201 has other names by the alert's
// status; see statuses.
var kinds = [...]kind{
	{"200", "signl.created"},
	{"201", "signl.status_changed"},
	{"202", "signl.escalated"},
	{"203", "signl.annotated"},
	{"300", "duty.began"},
	{"301", "duty.ended"},
	{"302", "duty.punched_in"},
	{"303", "duty.punched_out"},
}

// statuses are the codes of alert.statusCode by which a 201 is called something
// more telling than signl.status_changed.
var statuses = [...]kind{
	{"2", "signl.acknowledged"},
	{"4", "signl.resolved"},
}

// Shape tells whether the text looks like a notification.
func Shape(root jsonscan.Value) bool {
	return root.Get("eventType").Kind() == jsonscan.Number && root.Get("eventRaisedUtc").Kind() != jsonscan.Missing
}

// Parse fills ev from the scanned record. The type is a name such as
// signl.created with its number as the alias; the tenant is team.id, else the
// record's header "tenant", else the topic's default; the entity is alert.id,
// else user.id, else team.id; the correlation id is alert.externalEventId, as it
// is; the id is the notification's. A notification that names no subscription
// gets a Splice; else subscription.id is the Target.
func Parse(rec *wire.Record, s *wire.Scratch, opts *wire.TopicOptions, ev *pipeline.Event) error {
	root := s.Doc.Root()
	if err := wire.Required(root, jsonscan.Object, "", "an object"); err != nil {
		return err
	}
	m, err := read(root)
	if err != nil {
		return err
	}
	if ev.Type, ev.TypeAlias, err = m.kind(root); err != nil {
		return err
	}
	if ev.Time, err = wire.ParseTime(root.Get("eventRaisedUtc"), "/eventRaisedUtc"); err != nil {
		return err
	}
	b := s.Buf[:0]
	if m.team.Kind() != jsonscan.Missing {
		b, err = wire.AppendName(b, m.team, "/team/id", wantID)
	} else {
		b, err = wire.AppendTenant(b, rec, opts)
	}
	if err != nil {
		return err
	}
	tenantEnd := len(b)
	b = m.entity().AppendString(b)
	entityEnd := len(b)
	b = m.external.AppendString(b)
	correlationEnd := len(b)
	b = m.target.AppendString(b)
	targetEnd := len(b)
	if b, err = wire.AppendText(b, root.Get("id"), "/id", wantID); err != nil {
		return err
	}
	s.Buf = b
	all := string(b)
	ev.Tenant = all[:tenantEnd]
	ev.Entity = all[tenantEnd:entityEnd]
	ev.Correlation = all[entityEnd:correlationEnd]
	ev.Target = all[correlationEnd:targetEnd]
	ev.ID = pipeline.SafeID(all[targetEnd:])
	ev.Payload = rec.Value
	if ev.Target == "" {
		ev.Splice = splice(root)
	}
	return nil
}

const wantID = "an id, a string that is not empty"

// members are the values of a notification that attributes are made of. Each
// is a string that is not empty, or missing.
type members struct {
	alert, user, team jsonscan.Value // their ids
	external, target  jsonscan.Value
}

func read(root jsonscan.Value) (m members, err error) {
	if err = wire.Optional(root.Get("annotation"), jsonscan.Object, "/annotation", wantObject); err != nil {
		return m, err
	}
	alert, user, team, sub := root.Get("alert"), root.Get("user"), root.Get("team"), root.Get("subscription")
	if m.alert, err = id(alert, "/alert", "id", "/alert/id"); err != nil {
		return m, err
	}
	if m.external, err = id(alert, "/alert", "externalEventId", "/alert/externalEventId"); err != nil {
		return m, err
	}
	if m.user, err = id(user, "/user", "id", "/user/id"); err != nil {
		return m, err
	}
	if m.team, err = id(team, "/team", "id", "/team/id"); err != nil {
		return m, err
	}
	m.target, err = id(sub, "/subscription", "id", "/subscription/id")
	return m, err
}

// id is an optional id in an optional object; missing where it is empty.
func id(object jsonscan.Value, at, name, pointer string) (jsonscan.Value, error) {
	if err := wire.Optional(object, jsonscan.Object, at, wantObject); err != nil {
		return jsonscan.Value{}, err
	}
	v := object.Get(name)
	if err := wire.Optional(v, jsonscan.String, pointer, "a string"); err != nil {
		return jsonscan.Value{}, err
	}
	if v.Kind() != jsonscan.String || len(v.Raw()) == len(`""`) {
		return jsonscan.Value{}, nil
	}
	return v, nil
}

const wantObject = "an object"

func (m *members) entity() jsonscan.Value {
	for _, v := range [...]jsonscan.Value{m.alert, m.user, m.team} {
		if v.Kind() != jsonscan.Missing {
			return v
		}
	}
	return jsonscan.Value{}
}

// kind gives the type's name and its number.
func (m *members) kind(root jsonscan.Value) (name, number string, err error) {
	const want = "one of 200, 201, 202, 203, 300, 301, 302, 303"
	v := root.Get("eventType")
	if err = wire.Required(v, jsonscan.Number, "/eventType", want); err != nil {
		return "", "", err
	}
	k := lookup(kinds[:], v.Raw())
	if k == nil {
		return "", "", &wire.Error{What: "unknown type", Pointer: "/eventType", Want: want}
	}
	if k.number != "201" {
		return k.name, k.number, nil
	}
	alert := root.Get("alert")
	if err = wire.Required(alert, jsonscan.Object, "/alert", "the alert whose status changed"); err != nil {
		return "", "", err
	}
	code := alert.Get("statusCode")
	if err = wire.Required(code, jsonscan.Number, "/alert/statusCode", "a number"); err != nil {
		return "", "", err
	}
	if status := lookup(statuses[:], code.Raw()); status != nil {
		return status.name, k.number, nil
	}
	return k.name, k.number, nil
}

func lookup(in []kind, number []byte) *kind {
	for i := range in {
		if in[i].number == string(number) {
			return &in[i]
		}
	}
	return nil
}

// splice finds where a subscription's ids go.
func splice(root jsonscan.Value) *pipeline.Splice {
	from, _ := root.Span()
	sp := &pipeline.Splice{InsertAt: from + 1}
	sp.IDFrom, sp.IDTo = root.Get("id").Span()
	sub := root.Get("subscription")
	if sub.Kind() == jsonscan.Missing {
		return sp
	}
	sp.SubFrom, sp.SubTo = sub.Span()
	children := sub.Children()
	switch id := sub.Get("id"); {
	case children.Next().Kind() == jsonscan.Missing:
		sp.Sub = pipeline.SubValue
	case id.Kind() != jsonscan.Missing:
		sp.Sub = pipeline.SubIDValue
		sp.SubFrom, sp.SubTo = id.Span()
	default:
		sp.Sub = pipeline.SubWithoutID
		sp.SubFrom++
		sp.SubTo = sp.SubFrom
	}
	return sp
}
