package kafkax

import (
	"fmt"
	"slices"
	"time"
)

// Standstill finds offsets that wait at the same place for too long. Waiting by
// itself is no fault: transactions come and go. Its zero value is ready; not safe
// for concurrent use.
type Standstill struct {
	waiting map[TopicPartition]standing
}

// standing is an offset that waits, and since when it has not moved.
type standing struct {
	offset int64
	since  time.Time
}

// Note takes what waits at now, and at which offset: all of it, so that what is
// left out begins anew. It gives what has waited at its offset for limit or longer,
// sorted, as "topic/partition", and since when the first of that has.
func (s *Standstill) Note(now time.Time, waiting map[TopicPartition]int64, limit time.Duration) (where []string, since time.Time) {
	old := s.waiting
	s.waiting = make(map[TopicPartition]standing, len(waiting))
	since = now
	for at, offset := range waiting {
		st, ok := old[at]
		if !ok || st.offset != offset {
			st = standing{offset: offset, since: now}
		}
		s.waiting[at] = st
		if now.Sub(st.since) >= limit {
			where = append(where, fmt.Sprintf("%s/%d", at.Topic, at.Partition))
			if st.since.Before(since) {
				since = st.since
			}
		}
	}
	slices.Sort(where)
	return where, since
}
