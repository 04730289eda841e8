package kafkax

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/hookline/hookline/pipeline"
)

// What only few envelopes have follows the fields that all have, as sections: a
// tag, a length and that many bytes. A reader skips the tags that it does not
// know, and readers from before there were sections do not look at them.
const (
	sectionSplice     = 1
	sectionAttributes = 2
	sectionTrace      = 3
)

// maxAttributes bounds the attributes that are read; the envelope's own limit
// allows no more than this many of two bytes and more each.
const maxAttributes = MaxEnvelopeBytes / 3

func appendSections(dst []byte, env *pipeline.Envelope) []byte {
	if s := env.Splice; s != nil {
		var stack [5*binary.MaxVarintLen64 + 1]byte
		b := stack[:0]
		for _, n := range [...]int{s.IDFrom, s.IDTo, s.InsertAt, s.SubFrom, s.SubTo} {
			b = binary.AppendUvarint(b, uint64(n))
		}
		b = append(b, byte(s.Sub))
		dst = append(dst, sectionSplice, byte(len(b)))
		dst = append(dst, b...)
	}
	if env.Trace.Valid() {
		dst = appendTrace(dst, &env.Trace)
	}
	if len(env.Attributes) == 0 {
		return dst
	}
	size := uvarintLen(len(env.Attributes))
	for _, a := range env.Attributes {
		size += uvarintLen(len(a.Name)) + len(a.Name) + uvarintLen(len(a.Value)) + len(a.Value)
	}
	dst = binary.AppendUvarint(append(dst, sectionAttributes), uint64(size))
	dst = binary.AppendUvarint(dst, uint64(len(env.Attributes)))
	for _, a := range env.Attributes {
		dst = appendString(appendString(dst, a.Name), a.Value)
	}
	return dst
}

// appendTrace writes the trace's section: ids, flags, the time of routing, and
// tracestate up to the section's end.
func appendTrace(dst []byte, t *pipeline.TraceContext) []byte {
	var stack [16 + 8 + 1 + 2*binary.MaxVarintLen64]byte
	b := append(append(stack[:0], t.TraceID[:]...), t.SpanID[:]...)
	b = appendTime(append(b, t.Flags), t.RoutedAt)
	dst = binary.AppendUvarint(append(dst, sectionTrace), uint64(len(b)+len(t.State)))
	return append(append(dst, b...), t.State...)
}

// uvarintLen is how many bytes n takes.
func uvarintLen(n int) int {
	size := 1
	for ; n >= 0x80; n >>= 7 {
		size++
	}
	return size
}

// sections reads what is left of r into env.
func (r *reader) sections(env *pipeline.Envelope) {
	env.Splice, env.Attributes, env.Trace = nil, nil, pipeline.TraceContext{}
	for r.err == nil && len(r.s) > 0 {
		tag := r.uvarint(math.MaxUint64)
		in := reader{s: r.string()}
		switch {
		case r.err != nil:
			return
		case tag == sectionSplice:
			env.Splice = in.splice()
		case tag == sectionAttributes:
			env.Attributes = in.attributes()
		case tag == sectionTrace:
			in.trace(&env.Trace)
		}
		if in.err != nil {
			r.fail(fmt.Errorf("section %d: %w", tag, in.err))
		}
	}
}

func (r *reader) splice() *pipeline.Splice {
	offset := func() int { return int(r.uvarint(math.MaxInt32)) }
	s := &pipeline.Splice{IDFrom: offset(), IDTo: offset(), InsertAt: offset(), SubFrom: offset(), SubTo: offset()}
	if way := r.take(1); way != "" {
		s.Sub = pipeline.SubscriptionSplice(way[0])
	}
	return s
}

func (r *reader) attributes() []pipeline.Attribute {
	n := int(r.uvarint(maxAttributes))
	if n == 0 {
		return nil
	}
	out := make([]pipeline.Attribute, 0, min(n, len(r.s)/2))
	for range n {
		a := pipeline.Attribute{Name: r.string(), Value: r.string()}
		if r.err != nil {
			return nil
		}
		out = append(out, a)
	}
	return out
}

// trace reads the section. A tracestate that is too long to be passed on is
// left out.
func (r *reader) trace(t *pipeline.TraceContext) {
	copy(t.TraceID[:], r.take(len(t.TraceID)))
	copy(t.SpanID[:], r.take(len(t.SpanID)))
	if flags := r.take(1); flags != "" {
		t.Flags = flags[0]
	}
	t.RoutedAt = r.time()
	if len(r.s) <= pipeline.MaxTraceStateBytes {
		t.State = r.s
	}
	r.s = ""
	if r.err != nil || !t.Valid() {
		*t = pipeline.TraceContext{}
	}
}
