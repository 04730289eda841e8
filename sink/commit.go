package sink

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// declare commits the block's declaration for all of its partitions, in one request,
// again until Kafka has taken all of it: it takes a commit as a whole, but for partitions
// that the broker does not know yet. False: the block is not to be stored, by us.
func (j *job) declare() bool {
	text := j.d.String()
	err := j.commit(true, func(p *partition) int64 { return p.next }, text)
	switch {
	case err == nil:
		return true
	case errors.Is(err, errPartLost):
		return j.declaredAfterAll()
	case errors.Is(err, kerr.OffsetMetadataTooLarge) && len(j.parts) > 1:
		j.st.s.deps.Logger.Warn("storing the delivery log: Kafka takes no metadata of this length (offset.metadata.max.bytes): blocks are made of fewer partitions",
			"topic", j.st.topic, "bytes", len(text), "partitions", len(j.parts))
		j.giveBack((len(j.parts) + 1) / 2)
	case errors.Is(err, kerr.OffsetMetadataTooLarge):
		j.st.s.fail(fmt.Errorf("storing the delivery log: declaring a block with %d bytes of metadata (raise the brokers' offset.metadata.max.bytes): %w", len(text), err))
	}
	return false
}

// declaredAfterAll finds out whether a block was declared of which a partition was taken
// away before Kafka said so. The request may have been taken, and then the new owner
// repeats the block, with our rows; so must we. If it was not, it must not be sent any
// more, and our records are for other blocks.
//
// A request under way may still be taken after we asked, until the group has a new
// generation, which it gets because a partition was taken away: we wait for that.
func (j *job) declaredAfterAll() bool {
	for {
		declared, err := j.lookUp()
		switch {
		case err == nil && !declared:
			// Where some have it: it must not be taken for declared later, when others are past it.
			if j.commit(false, func(p *partition) int64 { return p.next }, "") == nil {
				j.giveBack(maxSpans)
			}
			return false
		case err == nil:
			return true
		case j.ctx.Err() != nil:
			return false
		case !errors.Is(err, errSameGeneration):
			j.st.s.health.kafka(err)
		}
		if !j.pause(commitRetry) {
			return false
		}
	}
}

// errSameGeneration: the group has not been formed anew yet.
var errSameGeneration = errors.New("the group has no new generation yet")

// lookUp asks what is committed. Of partitions that are ours it must be what we left or
// the declaration: else we have lost them without knowing it yet, their new owners may
// have stored the records in other blocks, and nothing may be done.
func (j *job) lookUp() (declared bool, err error) {
	if _, now := j.st.s.client.GroupMetadata(); now <= j.generation {
		return false, errSameGeneration
	}
	ctx, cancel := context.WithTimeout(j.ctx, assignTimeout)
	defer cancel()
	offsets, err := j.st.s.committed(ctx, &j.d)
	if err != nil {
		return false, err
	}
	j.st.mu.Lock()
	ours := j.ours()
	j.st.mu.Unlock()
	for _, p := range ours {
		if at, ok := offsets.Lookup(j.st.topic, p.id); !ok || at.At != j.d.of(p.id).from {
			return false, fmt.Errorf("looking up whether the block %s of %s was declared: partition %d has gone on: %w", &j.d, j.st.topic, p.id, errNoMember)
		}
	}
	return j.d.byAll(offsets, j.st.topic), nil
}

// giveBack returns all records to their queues, for blocks of that many partitions.
func (j *job) giveBack(spans int) {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for _, part := range j.parts {
		part.p.back(part.recs, part.since)
	}
	j.st.spans = min(j.st.spans, spans)
	j.st.note()
}

var (
	// errLeft ends a commit of which no partition is ours any more, or which was not taken
	// before they had to be left: nothing may be assumed.
	errLeft = errors.New("the partitions are left")
	// errPartLost ends a commit that had to be of all partitions, since some are gone. It
	// may have been taken before they were.
	errPartLost = errors.New("some of the partitions are gone")
	// errGone: one was taken away since the request was made; the next is without it.
	errGone = errors.New("a partition was taken away")
)

// commit repeats until the offsets and the metadata are committed, of the partitions
// that are ours by then, or with all of all or none. Metadata that is too large is an
// error at once.
func (j *job) commit(all bool, offset func(*partition) int64, metadata string) error {
	for j.ctx.Err() == nil {
		err := j.tryCommit(all, offset, metadata)
		switch {
		case err == nil, errors.Is(err, kerr.OffsetMetadataTooLarge), errors.Is(err, errPartLost):
			return err
		case j.ctx.Err() != nil:
			return errLeft
		case errors.Is(err, errGone):
			continue
		case errors.Is(err, kerr.FencedInstanceID):
			j.st.s.fail(fmt.Errorf("storing the delivery log: another process uses this INSTANCE_ID: %w", err))
			return errLeft
		}
		// A stale generation too: kgo learns of it by its heartbeat, and then ends
		// these partitions.
		j.st.s.health.kafka(fmt.Errorf("committing %s: %w", j.st.topic, err))
		if !j.pause(commitRetry) {
			return errLeft
		}
	}
	return errLeft
}

// errNoMember: a commit without a generation would not be fenced. Nor would one
// under another membership than the partition was assigned to: Kafka does not
// check who owns a partition.
//
// The interleaving that the latter is for: we are frozen for longer than the
// session, and another sink stores what follows; we are told to stop, wake, and
// join anew while this job finishes what it has: its next declaration would
// be taken, and its rows stored twice.
//
// Likewise of one that was taken away while the job goes on for others: the
// generation of the request was read before it is asked here whether it is ours. If
// it is, it has not been given up, and no other has it in that generation.
var errNoMember = errors.New("not the member of the group that the partition was assigned to")

func (j *job) tryCommit(all bool, offset func(*partition) int64, metadata string) error {
	j.st.mu.Lock()
	ours := j.ours()
	at := map[int32]kgo.EpochOffset{}
	for _, p := range ours {
		at[p.id] = kgo.EpochOffset{Epoch: -1, Offset: offset(p)}
	}
	j.st.mu.Unlock()
	if len(ours) == 0 {
		return errLeft
	}
	if all && len(ours) < len(j.parts) {
		return errPartLost
	}
	ctx := kgo.PreCommitFnContext(j.ctx, func(req *kmsg.OffsetCommitRequest) error {
		if err := j.member(ours, req.MemberID); err != nil || req.Generation < 0 {
			return cmp.Or(err, errNoMember)
		}
		j.generation = max(j.generation, req.Generation)
		for i := range req.Topics {
			for k := range req.Topics[i].Partitions {
				req.Topics[i].Partitions[k].Metadata = &metadata
			}
		}
		return nil
	})
	done := make(chan error, 1)
	j.st.s.client.CommitOffsets(ctx, map[string]map[int32]kgo.EpochOffset{j.st.topic: at}, func(_ *kgo.Client, _ *kmsg.OffsetCommitRequest, resp *kmsg.OffsetCommitResponse, err error) {
		if err == nil {
			for i := range resp.Topics {
				for k := range resp.Topics[i].Partitions {
					err = errors.Join(err, kerr.ErrorForCode(resp.Topics[i].Partitions[k].ErrorCode))
				}
			}
		}
		done <- err
	})
	return <-done
}

// member is an error where one of these is not ours any more, or was not assigned to
// that member.
func (j *job) member(list []*partition, id string) error {
	j.st.mu.Lock()
	defer j.st.mu.Unlock()
	for _, p := range list {
		switch {
		case p.gone:
			return errGone
		case id == "" || p.member != id:
			return errNoMember
		}
	}
	return nil
}
