package kafkax

import (
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func sectionedEnvelope() pipeline.Envelope {
	env := sampleEnvelope()
	env.Splice = &pipeline.Splice{IDFrom: 300, IDTo: 338, InsertAt: 1, Sub: pipeline.SubWithoutID, SubFrom: 70_000, SubTo: 70_001}
	env.Attributes = []pipeline.Attribute{{Name: "id", Value: "a b"}, {Name: "source", Value: strings.Repeat("/s", 200)}, {Name: "empty"}}
	env.Trace = pipeline.TraceContext{TraceID: [16]byte{1, 15: 2}, SpanID: [8]byte{3}, Flags: 1, State: "a=b", RoutedAt: env.ProducedAt}
	return env
}

func TestEnvelopeSections(t *testing.T) {
	both := sectionedEnvelope()
	splice, attributes, traced, plain := both, both, both, sampleEnvelope()
	splice.Attributes, attributes.Splice, traced.Splice, traced.Attributes = nil, nil, nil, nil
	splice.Trace, attributes.Trace = pipeline.TraceContext{}, pipeline.TraceContext{}
	passedOn := traced
	passedOn.Trace.State, passedOn.Trace.RoutedAt = "", time.Time{}
	for name, env := range map[string]pipeline.Envelope{
		"all": both, "splice": splice, "attributes": attributes, "trace": traced, "trace passed on": passedOn, "none": plain,
	} {
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
		spliced := len(EncodeEnvelope(nil, &splice))
		boundaries := map[int]bool{base: true, spliced: true, spliced + len(EncodeEnvelope(nil, &traced)) - base: true}
		var got pipeline.Envelope
		for i := range whole {
			if err := DecodeEnvelope(whole[:i], &got); (err == nil) != boundaries[i] {
				t.Fatalf("the first %d of %d bytes: %v", i, len(whole), err)
			}
		}
	})
}

// A trace that cannot be told is none; the event counts all the same.
func TestTraceSectionsThatSayNothing(t *testing.T) {
	env := sampleEnvelope()
	zero := append(EncodeEnvelope(nil, &env), sectionTrace, 27)
	zero = append(zero, make([]byte, 25)...)
	zero = append(zero, 0, 'x')
	got := sectionedEnvelope()
	if err := DecodeEnvelope(zero, &got); err != nil || got.Trace != (pipeline.TraceContext{}) {
		t.Errorf("%v, %+v", err, got.Trace)
	}
	env.Trace = sectionedEnvelope().Trace
	env.Trace.State = strings.Repeat("x", pipeline.MaxTraceStateBytes+1)
	if err := DecodeEnvelope(EncodeEnvelope(nil, &env), &got); err != nil || !got.Trace.Valid() || got.Trace.State != "" {
		t.Errorf("%v, %+v", err, got.Trace)
	}
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
