package router

import (
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// EventTopics gives those of names that EVENTS_TOPICS asks for, in their order.
func (c *Config) EventTopics(names []string) []string {
	var out []string
	for _, name := range names {
		if c.EventsTopics.find(name) != nil {
			out = append(out, name)
		}
	}
	return out
}

// NewReader gives a function that reads event records as the router does, for
// others that consume the event topics. It is safe for concurrent use. The
// event is valid until the record is.
func NewReader(cfg *Config, kafka *kafkax.Config) func(*kgo.Record, *pipeline.Position) (*pipeline.Event, error) {
	specs := make(TopicSpecs, len(cfg.EventsTopics))
	copy(specs, cfg.EventsTopics)
	for i := range specs {
		specs[i].Options.MaxBytes = int(kafka.EventMaxBytes)
	}
	parsers := sync.Pool{New: func() any { return NewParser() }}
	return func(rec *kgo.Record, src *pipeline.Position) (*pipeline.Event, error) {
		spec := specs.find(rec.Topic)
		if spec == nil {
			return nil, fmt.Errorf("reading event: topic %s is not in EVENTS_TOPICS", rec.Topic)
		}
		parse := parsers.Get().(Parser)
		defer parsers.Put(parse)
		ev := new(pipeline.Event)
		if err := parse(rec, spec, src, ev); err != nil {
			return nil, err
		}
		return ev, nil
	}
}
