package router

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline/kafkax"
)

// A broker that is the only one, goes down and comes back can lose the end of a
// transaction in the group's offsets alone (see kafkax.Written): its deliveries are
// there, and its events do not count as routed. A process that lives knows what it
// committed, and makes it good; of one that was killed meanwhile nobody knows
// anything. So whoever is assigned a partition looks whether deliveries is ahead of
// the group's offsets, and leaves out what is there.
//
// That is looked for where it can be (see search): in what was written, to partitions
// whose leader has changed (or was down) since, from the commit on that put the offsets
// where they are. For that every commit has its time.
//
// Not found is what belongs to the first commit of a partition, which has no time yet,
// and what an older hookline committed last. A bad event's letter in events.dead is not
// looked for: it does no harm twice.

// aheadTries is how often assignments may fail for it, one after the other.
const aheadTries = 3

const aheadOfOffsets = "events had been routed, but Kafka has lost that in the group's offsets, as a broker went down; they are not routed again"

// commitMark begins the metadata of an offset that a router commits: Unix time in
// milliseconds follows, and the member's id. Offsets that somebody else has set, to
// route again, do not have it.
const commitMark = "at="

func markCommit(now time.Time, member string) string {
	return commitMark + strconv.FormatInt(now.UnixMilli(), 10) + " by=" + member
}

// committedAt reads a mark.
func committedAt(metadata string) (at time.Time, ok bool) {
	mark, ok := strings.CutPrefix(metadata, commitMark)
	if !ok {
		return at, false
	}
	mark, _, _ = strings.Cut(mark, " ")
	milli, err := strconv.ParseInt(mark, 10, 64)
	return time.UnixMilli(milli), err == nil
}

// ahead is where deliveries has something, committed, of the events of one source
// partition that do not count as routed. A nil one has nothing.
type ahead struct {
	at   map[place]bool
	last int64  // the last of these events
	mark string // of the offset that they are ahead of
}

// place is a partition of deliveries with an event, by its offset: all that the event
// has there is of one transaction.
type place struct {
	event     int64
	partition int32
}

func (a *ahead) has(event int64, partition int32) bool {
	return a != nil && event <= a.last && a.at[place{event, partition}]
}

// lookAhead searches for assigned partitions, by their committed offsets, and keeps
// what it finds. Where that cannot be read, or fails three times, events are routed
// without: rather twice than never.
func (s *starter) lookAhead(ctx context.Context, fet *kafkax.Fetcher, assigned map[kafkax.TopicPartition]kafkax.Committed) error {
	x := &search{r: s.r, fet: fet, aux: s.aux, bounds: map[kafkax.TopicPartition]bound{}}
	s.mu.Lock()
	for at, c := range assigned {
		if since, ok := committedAt(c.Metadata); ok {
			x.bounds[at] = bound{id: s.ids[at.Topic], offset: c.Offset, mark: c.Metadata, since: since.Add(-s.r.aheadSlack)}
		}
	}
	s.mu.Unlock()
	err := x.run(ctx)
	switch {
	case err == nil:
		s.r.aheadFailures.Store(0)
	case !kafkax.IsCorrupt(err) && s.r.aheadFailures.Add(1) < aheadTries:
		return fmt.Errorf("looking for what was routed ahead of the group's offsets: %w", err)
	default:
		s.r.aheadFailures.Store(0)
		x.found = nil
		s.r.log.Error("what was routed ahead of the group's offsets cannot be found out; going on without", "error", err,
			"remedy", "events of the moment in which a broker went down may be routed twice")
	}
	for at, a := range x.found {
		s.r.log.Warn(aheadOfOffsets, "topic", at.Topic, "partition", at.Partition, "records", len(a.at), "remedy", kafkax.LostRemedy)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for at := range assigned {
		delete(s.aheads, at) // of an earlier assignment
		if a := x.found[at]; a != nil {
			s.aheads[at] = a
		}
	}
	return nil
}

// ahead gives what is known of an assigned partition; nil: nothing.
func (s *starter) ahead(topic string, p int32) *ahead {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.aheads[kafkax.TopicPartition{Topic: topic, Partition: p}]
}

// marked has the transaction commit its offsets with the time of the commit. As long as
// there is something ahead of them the former mark stays: who takes the partition up
// then must find the rest of it.
func (ses *session) marked(req *kmsg.TxnOffsetCommitRequest) {
	mark := markCommit(time.Now(), req.MemberID)
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			p.Metadata = &mark
			if a := ses.starter.ahead(t.Topic, p.Partition); a != nil && p.Offset <= a.last {
				p.Metadata = &a.mark
			}
		}
	}
}
