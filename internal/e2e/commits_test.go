package e2e

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// commit is what one transaction left in one partition of lanes: the record #d,
// which is part of each.
type commit struct {
	at       time.Duration
	producer int64 // one life of one process
}

// sameTransaction is how far apart the records #d of one transaction may be; the
// transactions of a process are at least COMMIT_INTERVAL, 50 ms, apart.
const sameTransaction = 25 * time.Millisecond

// lateFactor: hookline is another process than the one whose timers are watched,
// with more to do.
const lateFactor = 3

// commits reads when each process committed, to tell what had surely been
// committed before a kill. A transaction takes in what had ended when it was
// cut, which was some time before its records were made, but not before the one
// before it had ended. So what ended before the records of the last but one is
// in one of the two.
//
// By the receiver's clock, that is: a process that gets no time learns of an
// answer late, and takes it in with a later transaction. How late is not known;
// timers of this process tell how busy the machine was.
func (s *stage) commits() since {
	s.t.Helper()
	byPartition, byProducer := s.readCommits()
	late := lateFactor * s.late()
	s.t.Logf("answers may have been taken in up to %v late", late.Round(time.Millisecond))
	return func(sub int, k span) time.Duration {
		before := k.from - 2*time.Millisecond // Kafka's clock has whole milliseconds
		own := byPartition[kafkax.Partition(s.plan.subs[sub].id, partitions)]
		n, _ := slices.BinarySearchFunc(own, before, func(c commit, at time.Duration) int { return int(c.at - at) })
		if n == 0 {
			return 0
		}
		times := byProducer[own[n-1].producer]
		m, _ := slices.BinarySearch(times, before)
		return lastButOne(times[:m]) - late
	}
}

// lastButOne gives when the last transaction but one made its records, or the
// only one. The times are those of all its records, ascending.
func lastButOne(times []time.Duration) time.Duration {
	begins := 0
	for i := len(times) - 1; i > 0; i-- {
		if times[i]-times[i-1] > sameTransaction {
			if begins++; begins == 2 {
				return times[i]
			}
		}
	}
	return times[0]
}

// readCommits reads the whole topic lanes, as far as it is committed.
func (s *stage) readCommits() (byPartition map[int32][]commit, byProducer map[int64][]time.Duration) {
	s.t.Helper()
	topic := s.vars["TOPIC_PREFIX"] + "lanes"
	ends, err := kadm.NewClient(s.kafka.Client()).ListCommittedOffsets(s.ctx, topic)
	if err != nil || ends.Error() != nil {
		s.t.Fatalf("reading the end of %s: %v %v", topic, err, ends.Error())
	}
	// With the markers of transactions, so that the last offset is seen.
	cl := s.kafka.Client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.KeepControlRecords())
	left := 0
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left++
		}
	})
	byPartition, byProducer = map[int32][]commit{}, map[int64][]time.Duration{}
	for left > 0 {
		fetches := cl.PollFetches(s.ctx)
		if err := fetches.Err(); err != nil {
			s.t.Fatalf("reading %s: %v", topic, err)
		}
		for r := range fetches.RecordsAll() {
			if string(r.Key) == "#d" && !r.Attrs.IsControl() {
				c := commit{r.Timestamp.Sub(s.ledger.began), r.ProducerID}
				byPartition[r.Partition] = append(byPartition[r.Partition], c)
				byProducer[c.producer] = append(byProducer[c.producer], c.at)
			}
			if end, _ := ends.Lookup(topic, r.Partition); r.Offset+1 == end.Offset {
				left--
			}
		}
	}
	for _, times := range byProducer {
		slices.Sort(times)
	}
	return byPartition, byProducer
}
