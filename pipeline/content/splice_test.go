package content

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

func TestRenderSplices(t *testing.T) {
	const notification = `"6ceced60-0e82-5158-a76f-d21b4713cdf6"`
	for _, tc := range []struct {
		name, payload string
		splice        pipeline.Splice
		want          string
	}{
		{
			"neither", `{ "eventType": 300 }`,
			pipeline.Splice{InsertAt: 1},
			`{"id":` + notification + `,"subscription":{"id":"sub-1"}, "eventType": 300 }`,
		},
		{
			"id", `{"x":1.0,"id" : "a" }`,
			pipeline.Splice{InsertAt: 1, IDFrom: 16, IDTo: 19},
			`{"subscription":{"id":"sub-1"},"x":1.0,"id" : ` + notification + ` }`,
		},
		{
			"subscription null before id", `{"subscription":null,"id":"a"}`,
			pipeline.Splice{InsertAt: 1, IDFrom: 26, IDTo: 29, Sub: pipeline.SubValue, SubFrom: 16, SubTo: 20},
			`{"subscription":{"id":"sub-1"},"id":` + notification + `}`,
		},
		{
			"subscription behind id", `{"id":"a","subscription":{"id":""}}`,
			pipeline.Splice{InsertAt: 1, IDFrom: 6, IDTo: 9, Sub: pipeline.SubIDValue, SubFrom: 31, SubTo: 33},
			`{"id":` + notification + `,"subscription":{"id":"sub-1"}}`,
		},
		{
			"subscription without id, no id", `{"subscription":{ "a":1}}`,
			pipeline.Splice{InsertAt: 1, Sub: pipeline.SubWithoutID, SubFrom: 17, SubTo: 17},
			`{"id":` + notification + `,"subscription":{"id":"sub-1", "a":1}}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			env := &pipeline.Envelope{Format: pipeline.FormatSIGNL4, Splice: &tc.splice}
			_, m, err := Render(nil, request("", env, tc.payload))
			if err != nil || string(m.Body) != tc.want || !json.Valid(m.Body) || m.ContentType != TypeJSON {
				t.Errorf("%v\ngot  %s\nwant %s", err, m.Body, tc.want)
			}
		})
	}
}

// spliceable draws a notification and the places of its ids, as a format finds
// them.
func spliceable(t *rapid.T) (payload []byte, s pipeline.Splice) {
	space := rapid.SampledFrom([]string{"", " ", "\n\t"})
	value := rapid.SampledFrom([]string{`1.00`, `"a\u00e9\"}{"`, `null`, `{"id":"x","subscription":{"id":1}}`, `[{"id":null}]`, `-0`, `1e400`})
	members := []string{"a", "eventType", "Id", "subscriptions"}[:rapid.IntRange(1, 4).Draw(t, "members")]
	if rapid.Bool().Draw(t, "with id") {
		members = append(members, "id")
	}
	s.Sub = pipeline.SubscriptionSplice(rapid.IntRange(0, 3).Draw(t, "sub"))
	if s.Sub != pipeline.SubAbsent {
		members = append(members, "subscription")
	}
	members = rapid.Permutation(members).Draw(t, "order")
	var b bytes.Buffer
	add := func(text string) { b.WriteString(text + space.Draw(t, "space")) }
	add("")
	b.WriteString("{")
	s.InsertAt = b.Len()
	add("")
	for i, name := range members {
		if i > 0 {
			add(",")
		}
		add(`"` + name + `"`)
		add(":")
		switch {
		case name == "id":
			s.IDFrom = b.Len()
			b.WriteString(value.Draw(t, "id"))
			s.IDTo = b.Len()
		case name != "subscription":
			b.WriteString(value.Draw(t, "value"))
		case s.Sub == pipeline.SubValue:
			s.SubFrom = b.Len()
			b.WriteString(rapid.SampledFrom([]string{"null", "{}", "{ }"}).Draw(t, "subscription"))
			s.SubTo = b.Len()
		case s.Sub == pipeline.SubIDValue:
			add(`{"x":1,"id":`)
			s.SubFrom = b.Len()
			b.WriteString(rapid.SampledFrom([]string{"null", `""`}).Draw(t, "subscription id"))
			s.SubTo = b.Len()
			b.WriteString(`,"y":[]}`)
		case s.Sub == pipeline.SubWithoutID:
			b.WriteString("{")
			s.SubFrom, s.SubTo = b.Len(), b.Len()
			b.WriteString(` "name" : "x" }`)
		}
		add("")
	}
	add("}")
	return b.Bytes(), s
}

type member struct{ name, value string }

// members are an object's members as they are spelled, in order, without those
// that a splice changes.
func members(t *rapid.T, object []byte, leaveOut func(name string) bool) (out []member, id, subscription jsontext.Value) {
	d := jsontext.NewDecoder(bytes.NewReader(object))
	if token, err := d.ReadToken(); err != nil || token.Kind() != '{' {
		t.Fatalf("%s: not an object: %v", object, err)
	}
	for d.PeekKind() == '"' {
		token, _ := d.ReadToken()
		name := token.String()
		value, err := d.ReadValue()
		if err != nil {
			t.Fatalf("%s: %v", object, err)
		}
		switch name {
		case "id":
			id = value.Clone()
		case "subscription":
			subscription = value.Clone()
		}
		if !leaveOut(name) {
			out = append(out, member{name, string(value)})
		}
	}
	if token, err := d.ReadToken(); err != nil || token.Kind() != '}' {
		t.Fatalf("%s: %v", object, err)
	}
	return out, id, subscription
}

func TestSpliceChangesNothingElse(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		payload, splice := spliceable(t)
		env := &pipeline.Envelope{Format: pipeline.FormatSIGNL4, Splice: &splice}
		req := request("", env, string(payload))
		_, m, err := Render(nil, req)
		if err != nil {
			t.Fatalf("%s %+v: %v", payload, splice, err)
		}
		_, again, err := Render(make([]byte, 7, 8), req)
		if err != nil || !bytes.Equal(m.Body, again.Body) {
			t.Fatalf("the second time %s instead of %s: %v", again.Body, m.Body, err)
		}
		ids := func(name string) bool { return name == "id" || name == "subscription" }
		before, _, oldSub := members(t, payload, ids)
		after, id, newSub := members(t, m.Body, ids)
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s\nbecame %s", payload, m.Body)
		}
		if string(id) != `"`+NotificationID(req.DeliveryID)+`"` {
			t.Fatalf("id %s in %s", id, m.Body)
		}
		onlyID := func(name string) bool { return name == "id" }
		var kept []member
		if oldSub.Kind() == '{' {
			kept, _, _ = members(t, oldSub, onlyID)
		}
		got, subID, _ := members(t, newSub, onlyID)
		if string(subID) != `"sub-1"` || !reflect.DeepEqual(kept, got) {
			t.Fatalf("subscription %s became %s", oldSub, newSub)
		}

		req.Subscription.ContentMode = pipeline.ContentStructured
		_, wrapped, err := Render(nil, req)
		if err != nil || !bytes.HasSuffix(wrapped.Body, append([]byte(`"data":`), append(m.Body, '}')...)) {
			t.Fatalf("wrapped %s: %v", wrapped.Body, err)
		}
	})
}

func FuzzRenderStructured(f *testing.F) {
	f.Add([]byte(structuredEvent), false)
	f.Add([]byte(`{"data_base64":"AP8="}`), true)
	f.Add([]byte(`{"data":"x","datacontenttype":"text/plain"}`), false)
	f.Fuzz(func(t *testing.T, payload []byte, binary bool) {
		env := &pipeline.Envelope{Format: pipeline.FormatCloudEvents, ContentType: "application/json"}
		mode := pipeline.ContentBinary
		if binary { // any value of an event in binary mode
			mode = pipeline.ContentStructured
			env.Attributes = []pipeline.Attribute{{Name: "id", Value: string(payload)}}
		}
		req := request(mode, env, string(payload))
		_, m, err := Render(nil, req)
		_, again, err2 := Render(nil, req)
		if (err == nil) != (err2 == nil) || !reflect.DeepEqual(m, again) {
			t.Fatalf("%v, %v\n%+v\n%+v", err, err2, m, again)
		}
		if binary && (err != nil || !json.Valid(m.Body)) {
			t.Fatalf("%v: %s", err, m.Body)
		}
		for _, h := range m.Headers {
			for _, c := range []byte(h.Name + h.Value) {
				if c <= ' ' || c >= 0x7f {
					t.Fatalf("header %q: %q", h.Name, h.Value)
				}
			}
		}
	})
}
