package kafkax

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

func sectionedEnvelope() pipeline.Envelope {
	env := sampleEnvelope()
	env.Splice = &pipeline.Splice{IDFrom: 300, IDTo: 338, InsertAt: 1, Sub: pipeline.SubWithoutID, SubFrom: 70_000, SubTo: 70_001}
	env.Attributes = []pipeline.Attribute{{Name: "id", Value: "a b"}, {Name: "source", Value: strings.Repeat("/s", 200)}, {Name: "empty"}}
	return env
}

func TestEnvelopeSections(t *testing.T) {
	both := sectionedEnvelope()
	splice, attributes, plain := both, both, sampleEnvelope()
	splice.Attributes, attributes.Splice = nil, nil
	for name, env := range map[string]pipeline.Envelope{"both": both, "splice": splice, "attributes": attributes, "none": plain} {
		t.Run(name, func(t *testing.T) {
			b := EncodeEnvelope(nil, &env)
			got := both // what was there before must go
			if err := DecodeEnvelope(append(b, "\x7f\x05newer"...), &got); err != nil || !reflect.DeepEqual(got, env) {
				t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, env)
			}
		})
	}
	t.Run("cut", func(t *testing.T) {
		whole, base := EncodeEnvelope(nil, &both), len(EncodeEnvelope(nil, &plain))
		boundaries := map[int]bool{base: true, len(EncodeEnvelope(nil, &splice)): true}
		var got pipeline.Envelope
		for i := range whole {
			if err := DecodeEnvelope(whole[:i], &got); (err == nil) != boundaries[i] {
				t.Fatalf("the first %d of %d bytes: %v", i, len(whole), err)
			}
		}
	})
}

// An older reader stops behind the fields that every envelope has: they must
// not move.
func TestEnvelopeSectionsComeLast(t *testing.T) {
	plain, both := sampleEnvelope(), sectionedEnvelope()
	if a, b := EncodeEnvelope(nil, &plain), EncodeEnvelope(nil, &both); !strings.HasPrefix(string(b), string(a)) {
		t.Fatalf("%q\nis not how this begins: %q", a, b)
	}
}

func TestUvarintLen(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 16383, 16384, 1 << 31} {
		if got, want := uvarintLen(n), len(binary.AppendUvarint(nil, uint64(n))); got != want {
			t.Errorf("%d: %d, want %d", n, got, want)
		}
	}
}
