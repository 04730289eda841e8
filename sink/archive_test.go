package sink

import (
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// A test request failed too, and is no delivery that could be made again.
func TestEngineDeliveriesToReplayHaveNoTests(t *testing.T) {
	w := newWorld(t)
	cfg, _ := engineConfig(t)
	w.start(func(c *Config, d *Deps) { c.Addr, c.TTLDays, d.EventTopics = cfg.Addr, 0, nil })
	list := sampleAttempts(3)
	for i := range list {
		list[i].Outcome, list[i].StatusCode, list[i].Final = pipeline.OutcomeResponseError, 500, true
	}
	list[1].Envelope.Source = pipeline.Position{Cluster: "c", Topic: pipeline.TestTopic}
	w.produce(attemptsTopic, attemptlog.AppendBatch(nil, list, attemptlog.Options{}))
	w.committed(1)
	var topics []string
	err := openReader(t, cfg).DeliveryPositions(t.Context(), "s", "", true, time.Time{}, time.Time{}, func(src pipeline.Position, _ string) error {
		topics = append(topics, src.Topic)
		return nil
	})
	if err != nil || len(topics) != 2 || topics[0] != eventsTopic || topics[1] != eventsTopic {
		t.Errorf("deliveries of %v, %v", topics, err)
	}
}
