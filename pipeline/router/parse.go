package router

import (
	"fmt"
	"runtime/debug"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format"
)

// NewParser gives the Parser that reads the formats of package format. It keeps
// buffers: use it from one goroutine.
func NewParser() Parser {
	var in format.Record
	return func(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, ev *pipeline.Event) error {
		in.Key, in.Value, in.Timestamp, in.Headers = rec.Key, rec.Value, rec.Timestamp, in.Headers[:0]
		for i := range rec.Headers {
			in.Headers = append(in.Headers, format.Header{Key: rec.Headers[i].Key, Value: rec.Headers[i].Value})
		}
		return format.Parse(&in, &spec.Options, src, ev)
	}
}

// parse fills b.ev.
func (b *batch) parse(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position) error {
	return b.r.guard(b.r.parse, rec, spec, src, &b.ev)
}

// guard guards a parser: a record that makes it panic is a dead letter, not a
// reason for every process that gets the partition to die in turn.
func (r *Router) guard(parse Parser, rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, ev *pipeline.Event) (err error) {
	defer func() {
		if p := recover(); p != nil {
			r.log.Error("parsing a record panicked", "source", src.String(), "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			err = fmt.Errorf("parsing panicked (a bug of hookline's; see its log)")
		}
	}()
	return parse(rec, spec, src, ev)
}
