package router

import (
	"fmt"
	"maps"
	"testing"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
)

type note struct {
	key    byte
	at     int64
	offset int64
}

func (n note) in(m *memory) bool {
	m.forget(n.at)
	return m.repeats(idKey{n.key}, n.at, n.offset)
}

func (m *memory) content() map[idKey]sighting {
	out := map[idKey]sighting{}
	for k, s := range m.byKey {
		out[k] = sighting{key: s.key, atMillis: s.atMillis, offset: s.offset}
	}
	return out
}

// Whatever the timestamps: a memory made of the records since the first one that
// is young enough goes on as the one that has seen them all, and an aborted
// transaction leaves it as it was.
func TestMemoryIsMadeAgain(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const window = 20
		notes := make([]note, rapid.IntRange(1, 60).Draw(rt, "records"))
		for i := range notes {
			notes[i] = note{key: rapid.Byte().Draw(rt, "key") % 5, offset: int64(i), at: int64(i)*3 + rapid.Int64Range(-30, 30).Draw(rt, "late")}
		}
		cut := rapid.IntRange(1, len(notes)).Draw(rt, "restart")
		from := 0
		for notes[from].at < notes[cut-1].at-window {
			from++
		}
		whole, again := newMemory(window, 1000), newMemory(window, 1000)
		for _, n := range notes[:cut] {
			n.in(whole)
		}
		for _, n := range notes[from:cut] {
			n.in(again)
		}
		whole.settle()
		again.settle()
		before := whole.content()
		if !maps.Equal(before, again.content()) {
			rt.Fatalf("made again: %v, want %v", again.content(), before)
		}
		for _, n := range notes[cut:] {
			n.in(again) // aborted
		}
		again.undo()
		if got := again.content(); !maps.Equal(before, got) || len(again.oldest) != len(got) {
			rt.Fatalf("after undo: %v, want %v", got, before)
		}
		for _, n := range notes[cut:] {
			if a, b := n.in(whole), n.in(again); a != b {
				rt.Fatalf("%v repeats: %v, made again: %v", n, a, b)
			}
		}
	})
}

func TestMemoryForgetsTheOldestFirst(t *testing.T) {
	m := newMemory(1000, 3)
	for i := range byte(5) {
		note{key: i, at: int64(i), offset: int64(i)}.in(m)
	}
	if n := m.takeDropped(); n != 2 || len(m.byKey) != 3 {
		t.Errorf("%d dropped, %d left", n, len(m.byKey))
	}
	if !(note{key: 4, at: 6, offset: 6}).in(m) || (note{key: 0, at: 7, offset: 7}).in(m) {
		t.Error("not the oldest was forgotten")
	}
}

func TestMemoryWindowAndOffsets(t *testing.T) {
	m := newMemory(10, 100)
	for i, n := range []struct {
		note
		repeats bool
	}{
		{note{1, 100, 0}, false},
		{note{1, 110, 1}, true},  // at the window's end
		{note{1, 120, 2}, true},  // the window begins anew with each record
		{note{1, 131, 3}, false}, // after it
		{note{1, 131, 3}, false}, // the same record again
		{note{1, 131, 4}, true},
	} {
		if got := n.in(m); got != n.repeats {
			t.Errorf("record %d: %v, want %v", i, got, n.repeats)
		}
	}
}

func TestKeys(t *testing.T) {
	var k keyer
	seen := map[idKey]string{}
	structured := func(source string) *pipeline.Event {
		return &pipeline.Event{Format: "cloudevents", ID: "1", Payload: fmt.Appendf(nil, `{"id":"1","source":%q}`, source)}
	}
	for name, ev := range map[string]*pipeline.Event{
		"plain":         {Format: "signl4", ID: "1"},
		"tenant":        {Format: "signl4", ID: "1", Tenant: "t"},
		"target":        {Format: "signl4", ID: "1", Target: "t"},
		"format":        {Format: "json", ID: "1"},
		"source /a":     structured("/a"),
		"source /b":     structured("/b"),
		"source binary": {Format: "cloudevents", ID: "1", Attributes: []pipeline.Attribute{{Name: "source", Value: "/c"}}},
	} {
		key, ok := k.key(ev)
		if other := seen[key]; !ok || other != "" {
			t.Errorf("%s: %v, the same as %s", name, ok, other)
		}
		seen[key] = name
	}
	binary := &pipeline.Event{Format: "cloudevents", ID: "1", Attributes: []pipeline.Attribute{{Name: "source", Value: "/a"}}}
	if key, _ := k.key(binary); seen[key] != "source /a" {
		t.Error("a CloudEvent has one key in both modes")
	}
	src := pipeline.Position{Topic: "ev", Offset: 5}
	if _, ok := k.key(&pipeline.Event{Format: "json", Source: src, ID: pipeline.DerivedID(&src)}); ok {
		t.Error("a derived id has a key")
	}
}
