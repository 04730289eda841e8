package kafkax

import (
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

// TraceOf is the trace context of an event record, by its headers traceparent
// and tracestate. The first of each counts.
func TraceOf(rec *kgo.Record) pipeline.TraceContext {
	var parent, state []byte
	for i := range rec.Headers {
		switch h := &rec.Headers[i]; {
		case h.Key == pipeline.HeaderTraceParent && parent == nil:
			parent = h.Value
		case h.Key == pipeline.HeaderTraceState && state == nil:
			state = h.Value
		}
	}
	if parent == nil {
		return pipeline.TraceContext{}
	}
	t, _ := pipeline.ParseTraceContext(parent, state)
	return t
}
