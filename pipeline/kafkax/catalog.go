package kafkax

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

const (
	// patience bounds the retries of one call: an election takes seconds, and a
	// caller that wants longer calls again.
	patience = 15 * time.Second
	// Backoff between the tries of one call.
	minBackoff = 10 * time.Millisecond
	maxBackoff = 500 * time.Millisecond
)

// RecreatedError says that a topic was deleted and made anew while it was in
// use: offsets of the old one mean nothing in the new one.
type RecreatedError struct{ Topic string }

func (e *RecreatedError) Error() string {
	return "reading topic " + e.Topic + ": it was deleted and made anew meanwhile (restart hookline)"
}

// catalog knows topic ids and leaders. A topic's id never changes in it.
type catalog struct {
	cl *kgo.Client

	mu     sync.Mutex
	topics map[string]*topicEntry // read and written under mu; entries are replaced, never changed
}

type topicEntry struct {
	id      [16]byte
	leaders map[int32]int32
}

func newCatalog(cl *kgo.Client) *catalog { return &catalog{cl: cl, topics: map[string]*topicEntry{}} }

// get gives what is known about topic; it asks the brokers if nothing is.
func (c *catalog) get(ctx context.Context, topic string) (*topicEntry, error) {
	c.mu.Lock()
	e := c.topics[topic]
	c.mu.Unlock()
	if e != nil {
		return e, nil
	}
	return c.refresh(ctx, topic)
}

// refresh asks the brokers once.
func (c *catalog) refresh(ctx context.Context, topic string) (*topicEntry, error) {
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &topic
	req.Topics = append(req.Topics, rt)
	resp, err := req.RequestWith(ctx, c.cl)
	if err != nil {
		return nil, fmt.Errorf("asking for the leaders of %s: %w", topic, err)
	}
	if len(resp.Topics) != 1 {
		return nil, fmt.Errorf("asking for the leaders of %s: the answer has %d topics", topic, len(resp.Topics))
	}
	t := &resp.Topics[0]
	if err := kerr.ErrorForCode(t.ErrorCode); err != nil {
		return nil, fmt.Errorf("asking for the leaders of %s: %w", topic, err)
	}
	e := &topicEntry{id: t.TopicID, leaders: make(map[int32]int32, len(t.Partitions))}
	for i := range t.Partitions {
		e.leaders[t.Partitions[i].Partition] = t.Partitions[i].Leader
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.topics[topic]; old != nil && old.id != e.id {
		return nil, &RecreatedError{Topic: topic}
	}
	c.topics[topic] = e
	return e, nil
}

// ids gives the ids of the topics of m.
func topicIDs[V any](ctx context.Context, c *catalog, m map[string]V) (byName map[string][16]byte, byID map[[16]byte]string, err error) {
	byName, byID = make(map[string][16]byte, len(m)), make(map[[16]byte]string, len(m))
	for t := range m {
		e, err := c.get(ctx, t)
		if err != nil {
			return nil, nil, err
		}
		byName[t], byID[e.id] = e.id, t
	}
	return byName, byID, nil
}
