package sink

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// newWideWorld has an attempts topic of n partitions.
func newWideWorld(t *testing.T, n int) *world {
	t.Helper()
	w := newWorld(t)
	if _, err := w.adm.UpdatePartitions(t.Context(), n, attemptsTopic); err != nil {
		t.Fatal(err)
	}
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.addrs...), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	w.byHand = cl
	return w
}

// each produces a batch of n attempts to each of these partitions.
func (w *world) each(n int, partitions ...int32) {
	w.t.Helper()
	for _, p := range partitions {
		rec := &kgo.Record{Topic: attemptsTopic, Partition: p, Value: attemptlog.AppendBatch(nil, sampleAttempts(n), attemptlog.Options{})}
		if err := w.byHand.ProduceSync(w.t.Context(), rec).FirstErr(); err != nil {
			w.t.Fatal(err)
		}
	}
}

// metadata is what is committed with the offsets of the attempts topic.
func (w *world) metadata() map[int32]string {
	w.t.Helper()
	offs, err := w.adm.FetchOffsets(w.t.Context(), groupName)
	if err != nil {
		w.t.Fatal(err)
	}
	out := map[int32]string{}
	for id, o := range offs[attemptsTopic] {
		out[id] = o.Metadata
	}
	return out
}

// partitionsOf tells of how many partitions a block has rows.
func partitionsOf(in fakeInsert) int {
	seen := map[string]bool{}
	for _, key := range in.keys {
		seen[strings.Split(key, "/")[1]] = true
	}
	return len(seen)
}

// slowFlush leaves time for all partitions to be fetched before the first block.
func slowFlush(c *Config, d *Deps) {
	attemptsOnly(c, d)
	c.FlushInterval = time.Second
}

// widest waits for an insert of so many rows of n partitions.
func (w *world) widest(n, rows int) (found fakeInsert) {
	w.t.Helper()
	w.ch.until(w.t, fmt.Sprintf("a block of %d rows of %d partitions", rows, n), func() bool {
		for _, in := range w.ch.inserts {
			if partitionsOf(in) == n && len(in.keys) == rows {
				found = in
				return true
			}
		}
		return false
	})
	return found
}

// TestOneInsertOfAllPartitions: what waits in several partitions is one block.
func TestOneInsertOfAllPartitions(t *testing.T) {
	w := newWideWorld(t, 4)
	w.start(slowFlush)
	w.each(1, 0, 1, 2, 3)
	w.ch.once(t, 4) // at the start each may come by itself
	w.each(5, 0, 1, 2, 3)
	w.widest(4, 20)
	w.ch.once(t, 24)
	w.settled()
}

// declaredByFour has a block of four partitions declared, whose insert was refused.
func declaredByFour(t *testing.T) (w *world, first fakeInsert, open *atomic.Bool) {
	t.Helper()
	w, open = newWideWorld(t, 4), new(atomic.Bool)
	s := w.start(slowFlush)
	w.each(1, 0, 1, 2, 3)
	w.ch.once(t, 4)
	w.ch.mu.Lock()
	w.ch.fault = func(int, fakeInsert) fault { return fault{refuse: !open.Load()} }
	w.ch.mu.Unlock()
	w.each(5, 0, 1, 2, 3)
	first = w.widest(4, 20)
	s.stop()
	text := w.metadata()[0]
	for id, other := range w.metadata() {
		if other != text || !strings.HasPrefix(text, "b2 ") {
			t.Fatalf("partition %d is committed with %q, partition 0 with %q", id, other, text)
		}
	}
	return w, first, open
}

// TestDeclaredBlockOfSeveral: whoever has one of its partitions repeats all of it.
func TestDeclaredBlockOfSeveral(t *testing.T) {
	for _, owners := range []int{1, 2, 4} {
		t.Run(fmt.Sprint(owners, " owners"), func(t *testing.T) {
			w, first, open := declaredByFour(t)
			w.each(3, 0, 2) // must not become part of it
			for range owners {
				w.start(slowFlush)
			}
			open.Store(true)
			w.ch.once(t, 4+20+6)
			w.settled()
			if !w.ch.tokens[first.token] {
				t.Errorf("block %s was not repeated", first.token)
			}
		})
	}
}

// TestDeclaredInSomeOnly: a block that is not declared in all of its partitions was not
// stored, and must not be: the others have other blocks.
func TestDeclaredInSomeOnly(t *testing.T) {
	w, first, open := declaredByFour(t)
	at := kadm.Offsets{}
	at.AddOffset(attemptsTopic, 2, 1, -1) // as before the block, without a declaration
	if err := w.adm.CommitAllOffsets(t.Context(), groupName, at); err != nil {
		t.Fatal(err)
	}
	w.each(3, 0, 2)
	w.start(slowFlush)
	open.Store(true)
	w.ch.once(t, 4+20+6)
	w.settled()
	if w.ch.tokens[first.token] {
		t.Errorf("block %s was stored", first.token)
	}
}

// TestOneOfSeveralIsTakenAway while the block is on its way: the job goes on for the
// others, and commits nothing for that one.
func TestOneOfSeveralIsTakenAway(t *testing.T) {
	w := newWideWorld(t, 4)
	s := w.start(slowFlush)
	w.each(1, 0, 1, 2, 3)
	w.ch.once(t, 4)
	release := make(chan struct{})
	var held atomic.Bool
	w.ch.mu.Lock()
	w.ch.fault = func(_ int, in fakeInsert) fault {
		if len(in.keys) == 20 && held.CompareAndSwap(false, true) {
			return fault{hold: release}
		}
		return fault{}
	}
	w.ch.mu.Unlock()
	w.each(5, 0, 1, 2, 3)
	w.widest(4, 20)
	w.start(slowFlush) // takes two, and repeats the block
	w.ch.once(t, 24)
	w.each(2, 0, 1, 2, 3)
	if n := len(s.stream(attemptsTopic).ids()); n != 2 {
		t.Errorf("the first sink has %d partitions, want 2", n)
	}
	close(release)
	w.ch.once(t, 32)
	w.settled()
}

// TestTakenAwayBeforeItIsDeclared: Kafka has not taken the declaration when one of the
// partitions is taken away. The others' records are for other blocks.
func TestTakenAwayBeforeItIsDeclared(t *testing.T) {
	w := newWideWorld(t, 2)
	var refusing atomic.Bool
	refused := make(chan struct{}, 1000)
	w.kafka.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		text := kreq.(*kmsg.OffsetCommitRequest).Topics[0].Partitions[0].Metadata
		if text == nil || !strings.HasPrefix(*text, "b2") || !refusing.Load() {
			return nil, nil, false
		}
		refused <- struct{}{}
		return nil, errors.New("connection broken"), true
	})
	first := w.start(slowFlush)
	w.each(1, 0, 1)
	w.ch.once(t, 2)
	refusing.Store(true)
	w.each(5, 0, 1)
	<-refused
	w.start(slowFlush)
	w.ch.once(t, 12)
	refusing.Store(false)
	w.each(2, 0, 1)
	w.ch.once(t, 16)
	w.settled()
	for _, in := range w.ch.inserts {
		if len(in.keys) >= 10 {
			t.Errorf("the block that was not declared was sent: %v", in.keys)
		}
	}
	if n := len(first.stream(attemptsTopic).ids()); n != 1 {
		t.Errorf("the first sink has %d partitions, want 1", n)
	}
}

// TestDeclaredAfterAll: Kafka has taken the declaration, or not, and the answer was
// lost; one of the partitions was taken away before it was asked again.
func TestDeclaredAfterAll(t *testing.T) {
	for _, taken := range []bool{true, false} {
		t.Run(fmt.Sprint("taken=", taken), func(t *testing.T) {
			w := newWideWorld(t, 2)
			s := w.start(attemptsOnly)
			w.each(1, 0, 1)
			w.ch.once(t, 2)
			w.settled()
			st := s.stream(attemptsTopic)
			j := newJob(st, [16]byte{})
			defer j.cancel()
			st.mu.Lock()
			for id := range int32(2) {
				p := newPartition(st, id, j.topicID)
				p.next = 1
				p.member, _ = s.client.GroupMetadata()
				j.add(part{id: id, p: p, recs: []*kgo.Record{{Partition: id, Offset: 1}}, bytes: 1})
			}
			st.mu.Unlock()
			j.keep(2)
			if taken {
				if err := j.commit(true, func(p *partition) int64 { return p.next }, j.d.String()); err != nil {
					t.Fatal(err)
				}
			}
			st.drop(j.parts[1].p)
			if err := j.commit(true, func(p *partition) int64 { return p.next }, j.d.String()); !errors.Is(err, errPartLost) {
				t.Fatalf("declaring with one gone: %v", err)
			}
			if _, err := j.lookUp(); taken && !errors.Is(err, errSameGeneration) {
				t.Errorf("asked in the generation of the request: %v", err)
			}
			j.generation-- // as if the group had been formed anew
			if declared := j.declaredAfterAll(); declared != taken {
				t.Errorf("declared: %v, want %v", declared, taken)
			}
			if n := len(j.parts[0].p.queue); (n == 1) == taken {
				t.Errorf("%d records are back in the queue", n)
			}
		})
	}
}

// TestMetadataTooLong: brokers may take less metadata than Kafka does by default.
func TestMetadataTooLong(t *testing.T) {
	w := newWideWorld(t, 4)
	w.kafka.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		w.kafka.KeepControl()
		req := kreq.(*kmsg.OffsetCommitRequest)
		text := req.Topics[0].Partitions[0].Metadata
		if text == nil || strings.Count(*text, ":") <= 2 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for i := range req.Topics {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = req.Topics[i].Topic, req.Topics[i].TopicID
			for _, p := range req.Topics[i].Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, kerr.OffsetMetadataTooLarge.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
	w.start(slowFlush)
	for range 3 {
		w.each(3, 0, 1, 2, 3)
	}
	w.ch.once(t, 36)
	w.settled()
	if text := w.logs.String(); strings.Count(text, "offset.metadata.max.bytes") != 1 {
		t.Errorf("told otherwise than once:\n%s", text)
	}
}

// TestDroppedMemberStoresAgain: the group has dropped a member, which hears of it by a
// commit, joins anew, and has the same partitions.
func TestDroppedMemberStoresAgain(t *testing.T) {
	w := newWideWorld(t, 2)
	s := w.start(func(c *Config, d *Deps) {
		slowFlush(c, d)
		d.ClientOpts = append(d.ClientOpts, kgo.HeartbeatInterval(4*time.Minute), kgo.SessionTimeout(5*time.Minute))
	})
	w.each(1, 0, 1)
	w.ch.once(t, 2)
	w.settled()
	w.expel(s)
	w.each(5, 0, 1)
	w.ch.once(t, 12)
	w.settled()
}
