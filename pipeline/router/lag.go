package router

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// lagEvery is how often the lag is measured.
const lagEvery = 5 * time.Second

// watchLag measures, until ctx ends, how many records of our partitions are not
// routed yet.
func (r *Router) watchLag(ctx context.Context, consumer, aux *kgo.Client) {
	fet := kafkax.NewFetcher(aux)
	tick := time.NewTicker(lagEvery)
	defer tick.Stop()
	told := map[string]bool{} // topics that we reported
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		lctx, cancel := context.WithTimeout(ctx, lagEvery)
		err := r.reportLag(lctx, fet, consumer.CommittedOffsets(), told)
		cancel()
		if err != nil && ctx.Err() == nil {
			r.log.Debug("measuring the lag", "error", err)
		}
	}
}

// reportLag measures once, from the committed offsets, and adds to told.
func (r *Router) reportLag(ctx context.Context, fet *kafkax.Fetcher, at map[string]map[int32]kgo.EpochOffset, told map[string]bool) error {
	lags, err := lagOf(ctx, fet, at)
	if err != nil {
		return err
	}
	for topic := range told {
		if _, ours := lags[topic]; !ours {
			r.metrics.KafkaLag(topic, 0) // another process's by now
		}
	}
	for topic, n := range lags {
		told[topic] = true
		r.metrics.KafkaLag(topic, n)
	}
	return nil
}

// lagOf sums up what lies between the offsets and the ends of their partitions.
func lagOf(ctx context.Context, fet *kafkax.Fetcher, at map[string]map[int32]kgo.EpochOffset) (map[string]int64, error) {
	lags := map[string]int64{}
	for topic, parts := range at {
		ends, err := fet.EndOffsets(ctx, topic)
		if err != nil {
			return nil, err
		}
		lags[topic] = 0
		for p, o := range parts {
			if o.Offset >= 0 {
				lags[topic] += max(0, ends[topic][p]-o.Offset)
			}
		}
	}
	return lags, nil
}
