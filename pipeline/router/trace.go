package router

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// trace finds the context of the record at hand, which its envelope carries, and
// begins its span where it has one.
func (b *batch) trace(rec *kgo.Record) {
	b.span, b.traced = nil, pipeline.TraceContext{}
	if len(rec.Headers) > 0 {
		b.traced = kafkax.TraceOf(rec)
	}
	if b.r.tracer != nil {
		b.span, b.traced = b.r.tracer.Route(&b.src, b.traced)
	}
	if b.span != nil {
		b.spans = append(b.spans, b.span)
	}
}

// noteResult notes what became of the event at hand.
func (b *batch) noteResult(format, result string, subscriptions int) {
	b.counts[count{format, result}]++
	if b.span != nil {
		b.span.Routed(&b.ev, result, subscriptions)
		b.span = nil // what comes next may have none of its own
	}
}

// endSpans ends the spans of a transaction that has ended.
func (b *batch) endSpans(committed bool) {
	for i, s := range b.spans {
		s.End(committed)
		b.spans[i] = nil
	}
	b.spans = b.spans[:0]
}
