package format

import (
	"testing"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// applySplice makes the edits that a Splice describes, by its documentation.
func applySplice(payload []byte, sp *pipeline.Splice, subscription, id string) string {
	s, n := `"`+subscription+`"`, `"`+id+`"`
	head := string(payload[:sp.InsertAt])
	type edit struct {
		from, to int
		text     string
	}
	edits := []edit{{sp.IDFrom, sp.IDTo, n}}
	switch sp.Sub {
	case pipeline.SubAbsent:
		head += `"subscription":{"id":` + s + `},`
	case pipeline.SubValue:
		edits = append(edits, edit{sp.SubFrom, sp.SubTo, `{"id":` + s + `}`})
	case pipeline.SubIDValue:
		edits = append(edits, edit{sp.SubFrom, sp.SubTo, s})
	case pipeline.SubWithoutID:
		edits = append(edits, edit{sp.SubFrom, sp.SubTo, `"id":` + s + `,`})
	}
	if len(edits) == 2 && edits[0].from > edits[1].from {
		edits[0], edits[1] = edits[1], edits[0]
	}
	at := sp.InsertAt
	for _, e := range edits {
		head += string(payload[at:e.from]) + e.text
		at = e.to
	}
	return head + string(payload[at:])
}

// checkSplice holds a Splice to its purpose: strict JSON with both ids, and all
// other members as they were.
func checkSplice(t *testing.T, payload []byte, sp *pipeline.Splice) {
	t.Helper()
	const subscription, id = "sub_1", "ntf-1"
	spliced := applySplice(payload, sp, subscription, id)
	var was, is jsonscan.Doc
	if err := was.Scan(payload); err != nil {
		t.Fatal(err)
	}
	if err := is.Scan([]byte(spliced)); err != nil {
		t.Fatalf("%q was spliced to %q: %v", payload, spliced, err)
	}
	root := is.Root()
	if string(root.Get("id").Text()) != id || string(root.Get("subscription").Get("id").Text()) != subscription {
		t.Errorf("%q was spliced to %q", payload, spliced)
	}
	for c := was.Root().Children(); ; {
		v := c.Next()
		if v.Kind() == jsonscan.Missing {
			break
		}
		if name := string(v.Name()); name != "id" && name != "subscription" && string(root.Get(name).Raw()) != string(v.Raw()) {
			t.Errorf("%q was spliced to %q: %s differs", payload, spliced, name)
		}
	}
}

func TestSplice(t *testing.T) {
	n := 0
	for _, f := range fixtures(t) {
		var ev pipeline.Event
		if err := Parse(&f.record, mustOptions(t, f.options), &position, &ev); err != nil {
			t.Fatal(f.name, err)
		}
		if ev.Splice != nil {
			checkSplice(t, ev.Payload, ev.Splice)
			n++
		}
	}
	if n != 9 {
		t.Errorf("%d fixtures with a splice, want 9", n)
	}
}
