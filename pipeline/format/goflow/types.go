package goflow

import (
	"github.com/hookline/hookline/pipeline/format/jsonscan"
	"github.com/hookline/hookline/pipeline/format/wire"
)

// eventType is one type of event and what it must have besides created_on.
type eventType struct {
	name  string
	rules []rule
}

// rule is the demand on one member; pointer is a slash and the member's name.
type rule struct {
	pointer string
	check   func(v jsonscan.Value, pointer string) error
}

// types are goflow's event types, as published. A new type is one entry.
var types = [...]eventType{
	{"broadcast_created", []rule{{"/translations", someMembers}, {"/base_language", text}}},
	{"contact_field_changed", []rule{{"/field", fieldReference}, {"/value", optionalObject}}},
	{"contact_groups_changed", nil},
	{"contact_language_changed", nil},
	{"contact_name_changed", nil},
	{"contact_refreshed", nil},
	{"contact_timezone_changed", nil},
	{"contact_urns_changed", []rule{{"/urns", array}}},
	{"email_created", []rule{{"/addresses", someElements}, {"/subject", text}}},
	{"environment_refreshed", nil},
	{"error", []rule{{"/text", text}, {"/fatal", optionalBoolean}}},
	{"flow_entered", []rule{{"/flow", object}, {"/parent_run_uuid", optionalUUID}, {"/terminal", boolean}}},
	{"input_labels_added", []rule{{"/input_uuid", text}, {"/labels", someElements}}},
	{"ivr_created", []rule{{"/msg", object}}},
	{"msg_created", []rule{{"/msg", object}}},
	{"msg_received", []rule{{"/msg", object}}},
	{"msg_wait", nil},
	{TypeResthookCalled, []rule{{"/resthook", text}, {"/payload", anything}}},
	{"run_expired", []rule{{"/run_uuid", text}}},
	{"run_result_changed", []rule{{"/name", text}}},
	{"session_triggered", []rule{{"/flow", object}}},
	{"wait_timed_out", nil},
	{"webhook_called", []rule{{"/url", text}, {"/status", text}, {"/request", text}}},
}

// lookup gives the entry of that name; nil: none.
func lookup(name []byte) *eventType {
	for i := range types {
		if types[i].name == string(name) {
			return &types[i]
		}
	}
	return nil
}

// check applies the type's rules; a nil type has none.
func (t *eventType) check(root jsonscan.Value) error {
	if t == nil {
		return nil
	}
	for i := range t.rules {
		r := &t.rules[i]
		if err := r.check(root.Get(r.pointer[1:]), r.pointer); err != nil {
			return err
		}
	}
	return nil
}

const (
	wantText   = "a string that is not empty"
	wantObject = "an object"
	wantUUID   = "a UUID v4 such as 95eb96df-461b-4668-b168-727f8ceb13dd"
)

func text(v jsonscan.Value, pointer string) error { return wire.RequiredText(v, pointer, wantText) }

func object(v jsonscan.Value, pointer string) error {
	return wire.Required(v, jsonscan.Object, pointer, wantObject)
}

func optionalObject(v jsonscan.Value, pointer string) error {
	return wire.Optional(v, jsonscan.Object, pointer, "an object or null")
}

func array(v jsonscan.Value, pointer string) error {
	return wire.Required(v, jsonscan.Array, pointer, "an array")
}

func someElements(v jsonscan.Value, pointer string) error {
	return some(v, jsonscan.Array, pointer, "an array with at least one element")
}

func someMembers(v jsonscan.Value, pointer string) error {
	return some(v, jsonscan.Object, pointer, "an object with at least one member")
}

func some(v jsonscan.Value, kind jsonscan.Kind, pointer, want string) error {
	if err := wire.Required(v, kind, pointer, want); err != nil {
		return err
	}
	if c := v.Children(); c.Next().Kind() == jsonscan.Missing {
		return &wire.Error{What: "empty value", Pointer: pointer, Want: want}
	}
	return nil
}

func boolean(v jsonscan.Value, pointer string) error {
	if v.Kind() == jsonscan.False {
		return nil
	}
	return wire.Required(v, jsonscan.True, pointer, "true or false")
}

func optionalBoolean(v jsonscan.Value, pointer string) error {
	if !wire.Present(v) {
		return nil
	}
	return boolean(v, pointer)
}

func anything(v jsonscan.Value, pointer string) error {
	if v.Kind() == jsonscan.Missing {
		return &wire.Error{What: "missing field", Pointer: pointer, Want: "a value"}
	}
	return nil
}

// fieldReference is {key, name}.
func fieldReference(v jsonscan.Value, pointer string) error {
	if err := object(v, pointer); err != nil {
		return err
	}
	if err := text(v.Get("key"), "/field/key"); err != nil {
		return err
	}
	return text(v.Get("name"), "/field/name")
}

func optionalUUID(v jsonscan.Value, pointer string) error {
	if !wire.Present(v) {
		return nil
	}
	if err := wire.Required(v, jsonscan.String, pointer, wantUUID); err != nil {
		return err
	}
	if !isUUIDv4(v.Text()) {
		return &wire.Error{What: "not a UUID v4", Pointer: pointer, Want: wantUUID}
	}
	return nil
}

func isUUIDv4(b []byte) bool {
	if len(b) != 36 || b[14] != '4' {
		return false
	}
	for i, c := range b {
		switch i {
		case 8, 13, 18, 23:
			if c != '-' {
				return false
			}
			continue
		case 19: // the variant of RFC 9562
			if c |= 0x20; c != '8' && c != '9' && c != 'a' && c != 'b' { // digits have this bit
				return false
			}
			continue
		}
		if !(c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F') {
			return false
		}
	}
	return true
}
