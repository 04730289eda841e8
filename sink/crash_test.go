package sink

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// attemptsOnly leaves out the event topics.
func attemptsOnly(_ *Config, d *Deps) { d.EventTopics = nil }

// TestDeclaredNotInserted: the owner ends between declaring and inserting.
func TestDeclaredNotInserted(t *testing.T) {
	w := newWorld(t)
	var open atomic.Bool
	w.ch.fault = func(int, fakeInsert) fault { return fault{refuse: !open.Load()} }
	w.attempts(10, 20, 30)
	s := w.start(attemptsOnly)
	w.ch.until(t, "the refused insert", func() bool { return len(w.ch.inserts) > 0 })
	s.stop()
	open.Store(true)
	if o := w.committed(0); !strings.HasPrefix(o.Metadata, "b1 0 ") {
		t.Fatalf("metadata %q, want a declaration from 0", o.Metadata)
	}
	first := w.ch.inserts[0]
	w.attempts(40) // must not become part of the declared block
	w.start(attemptsOnly)
	w.ch.once(t, 100)
	if !w.ch.tokens[first.token] || len(first.keys) != 60 {
		t.Errorf("block %s of %d rows was not repeated", first.token, len(first.keys))
	}
	w.committed(4)
}

// TestReplyLost: the block is stored, the reply does not come; the same owner repeats.
func TestReplyLost(t *testing.T) {
	w := newWorld(t)
	w.ch.fault = func(n int, _ fakeInsert) fault { return fault{mute: n == 0 || n == 1} }
	w.attempts(10, 20)
	w.start(attemptsOnly)
	w.ch.until(t, "the third try", func() bool { return len(w.ch.inserts) >= 3 })
	w.committed(2)
	w.attempts(5)
	w.ch.once(t, 35)
}

// TestReplyLostThenNewOwner: as before, but the owner ends before it repeats.
func TestReplyLostThenNewOwner(t *testing.T) {
	w := newWorld(t)
	w.ch.fault = func(n int, _ fakeInsert) fault { return fault{mute: n == 0} }
	w.attempts(10, 20)
	s := w.start(attemptsOnly)
	w.ch.until(t, "the first insert", func() bool { return len(w.ch.rows) > 0 })
	s.stop()
	w.attempts(30)
	w.start(attemptsOnly)
	w.ch.once(t, 60)
	w.committed(3)
}

// TestInsertedNotCommitted: ClickHouse has the block, the commit behind it fails.
func TestInsertedNotCommitted(t *testing.T) {
	w := newWorld(t)
	w.attempts(10)
	refused := make(chan struct{}, 100)
	var whole atomic.Bool
	w.kafka.ControlKey(int16(kmsg.OffsetCommit), func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		req := kreq.(*kmsg.OffsetCommitRequest)
		p := req.Topics[0].Partitions[0]
		w.kafka.KeepControl()
		if whole.Load() || p.Offset == 0 { // the declaration, and the start of an unseen partition
			return nil, nil, false
		}
		refused <- struct{}{}
		return nil, errors.New("connection broken"), true
	})
	s := w.start(attemptsOnly)
	<-refused
	<-refused // commits are repeated, not the insert
	if n := len(w.ch.inserts); n != 1 {
		t.Errorf("%d inserts", n)
	}
	s.stop()
	whole.Store(true)
	w.attempts(20)
	w.start(attemptsOnly)
	w.ch.once(t, 30)
}

// TestZombieInsertLandsLate: the old owner's insert is stalled until the new
// owner has gone on.
func TestZombieInsertLandsLate(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.ch.fault = func(n int, _ fakeInsert) fault {
		if n == 0 {
			return fault{hold: release}
		}
		return fault{}
	}
	w.attempts(10, 20)
	s := w.start(attemptsOnly)
	w.ch.until(t, "the stalled insert", func() bool { return len(w.ch.inserts) == 1 })
	s.stop() // its request is given up; the server still has it
	w.start(attemptsOnly)
	w.ch.once(t, 30)
	w.attempts(5)
	w.committed(3)
	landed := w.ch.insertsStored()
	close(release)
	w.ch.until(t, "the late insert", func() bool { return w.ch.stored > landed })
	w.ch.once(t, 35)
}

// TestFenced: a member that the group dropped without its knowledge finishes its
// insert, and must neither commit nor declare.
func TestFenced(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	w.ch.fault = func(n int, _ fakeInsert) fault {
		if n == 0 {
			return fault{hold: release}
		}
		return fault{}
	}
	w.attempts(10)
	slow := func(_ *Config, d *Deps) { // learns of nothing by heartbeat, and would join anew if it did
		d.EventTopics = nil
		d.ClientOpts = append(d.ClientOpts, kgo.HeartbeatInterval(4*time.Minute), kgo.SessionTimeout(5*time.Minute), kgo.ClientID("zombie"))
	}
	zombie := w.start(slow)
	w.ch.until(t, "the held insert", func() bool { return len(w.ch.inserts) == 1 })
	w.expel(zombie)
	w.start(attemptsOnly)
	w.ch.once(t, 10)
	w.attempts(20)
	w.ch.once(t, 30)
	w.committed(2)
	close(release) // the zombie has its reply now and would commit offset 1
	err := commitAs(t.Context(), zombie.Sink, 1)
	if !errors.Is(err, kerr.UnknownMemberID) && !errors.Is(err, kerr.IllegalGeneration) && !errors.Is(err, kerr.RebalanceInProgress) && !errors.Is(err, errNoMember) {
		t.Errorf("the zombie's commit: %v", err)
	}
	w.committed(2)
	w.ch.once(t, 30)
}

func commitAs(ctx context.Context, s *Sink, offset int64) error {
	st := newStream(s, attemptsTopic)
	p := newPartition(st, 0, [16]byte{})
	p.member, _ = s.client.GroupMetadata()
	j := newJob(st, p.topicID)
	j.ctx = ctx
	j.add(part{id: p.id, p: p})
	return j.tryCommit(false, func(*partition) int64 { return offset }, "")
}

// expel has the group drop a sink's member, which it returns.
func (w *world) expel(r *running) string {
	w.t.Helper()
	member, _ := r.client.GroupMetadata()
	leave := kmsg.NewPtrLeaveGroupRequest()
	leave.Group = groupName
	leave.Members = append(leave.Members, kmsg.LeaveGroupRequestMember{MemberID: member})
	if _, err := leave.RequestWith(w.t.Context(), w.cl); err != nil {
		w.t.Fatal(err)
	}
	return member
}

// TestAMemberThatBecameAnother: a partition that finishes its work at a stop
// commits nothing when the group has dropped the member that it was assigned to,
// also when the process has joined anew meanwhile: somebody else may have the
// partition, and Kafka does not ask. Else rows were stored twice.
func TestAMemberThatBecameAnother(t *testing.T) {
	w := newWorld(t)
	w.attempts(10)
	s := w.start(attemptsOnly)
	w.committed(1)
	stopping := s.take(nil)
	if len(stopping) != 1 {
		t.Fatalf("%d partitions, want 1", len(stopping))
	}
	member := w.expel(s)
	tick := time.NewTicker(10 * time.Millisecond) // the client tells nobody that it has joined
	defer tick.Stop()
	for {
		if now, generation := s.client.GroupMetadata(); now != member && now != "" && generation > 0 {
			break
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatal("it has not joined again")
		}
	}
	j := newJob(stopping[0].st, stopping[0].topicID)
	defer j.cancel()
	j.parts = []part{{p: stopping[0]}}
	if err := j.tryCommit(false, func(*partition) int64 { return 1 }, "x"); !errors.Is(err, errNoMember) {
		t.Errorf("committing for the partition of before: %v, want %v", err, errNoMember)
	}
	s.end(stopping, 0)
}

// TestClickHouseDown: deliveries of the log wait, bounded, and are caught up;
// the trouble is told once.
func TestClickHouseDown(t *testing.T) {
	w := newWorld(t)
	errs := &counting{errs: make(chan struct{}, 100)}
	now := time.Now().Add(time.Hour) // stands still: one line of trouble, however slow the test
	s := w.start(attemptsOnly, func(c *Config, d *Deps) {
		c.BlockBytes, c.BufferBytes = 64<<10, 128<<10
		d.Metrics = errs
		d.Now = func() time.Time { return now }
	})
	w.attempts(1)
	w.ch.once(t, 1)
	w.ch.setDown(true)
	for range 40 { // some 25 kB each, more than the buffer
		big := sampleAttempts(2)
		big[0].ResponseBody = make([]byte, 24<<10)
		w.produce(attemptsTopic, attemptlog.AppendBatch(nil, big, attemptlog.Options{}))
	}
	errs.await(t, 3)
	if s.Healthy() == nil || !s.Ready() {
		t.Errorf("healthy %v, ready %v while ClickHouse is down", s.Healthy(), s.Ready())
	}
	if s.Lag() <= 0 {
		t.Error("no lag while ClickHouse is down")
	}
	// However far it has read: one record of 41 is stored.
	if s.reportKafkaLag(t.Context()); errs.kafkaLag.Load() != 40 {
		t.Errorf("a lag of %d records while ClickHouse is down, want 40", errs.kafkaLag.Load())
	}
	if n := strings.Count(w.logs.String(), "ClickHouse refuses or is away"); n != 1 {
		t.Errorf("%d lines of trouble, want 1", n)
	}
	w.ch.setDown(false)
	w.ch.once(t, 81)
	w.committed(41)
	if s.Healthy() != nil {
		t.Errorf("healthy %v afterwards", s.Healthy())
	}
	if s.reportKafkaLag(t.Context()); errs.kafkaLag.Load() != 0 || s.Lag() != 0 {
		t.Errorf("a lag of %d records, %v, when all is stored", errs.kafkaLag.Load(), s.Lag())
	}
	s.stop()
	if s.buffer.bytes != 0 {
		t.Errorf("%d bytes are still counted as buffered", s.buffer.bytes)
	}
}

// TestStartsBeforeClickHouse: not ready until ClickHouse was reached.
func TestStartsBeforeClickHouse(t *testing.T) {
	w := newWorld(t)
	w.ch.setDown(true)
	s := w.start(attemptsOnly)
	w.attempts(3)
	if s.Ready() {
		t.Error("ready without ClickHouse")
	}
	w.ch.setDown(false)
	w.ch.once(t, 3)
	if !s.Ready() {
		t.Error("not ready with ClickHouse")
	}
}

// TestBadRecords go to the dead topic and stop nothing.
func TestBadRecords(t *testing.T) {
	w := newWorld(t)
	w.attempts(2)
	w.produce(attemptsTopic, []byte("not a batch"))
	odd := sampleAttempts(3)
	odd[1].Outcome = 99
	w.produce(attemptsTopic, attemptlog.AppendBatch(nil, odd, attemptlog.Options{}))
	w.attempts(4)
	counts := &counting{}
	w.start(attemptsOnly, func(_ *Config, d *Deps) { d.Metrics = counts })
	w.ch.once(t, 2+2+4)
	w.committed(4)
	if n := counts.dead.Load(); n != 2 {
		t.Errorf("%d records are counted as dead, want 2", n)
	}
	for _, want := range []string{"version", "outcome 99"} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		recs := w.cl.PollRecords(ctx, 1).Records()
		cancel()
		if len(recs) != 1 {
			t.Fatal("no dead letter")
		}
		text := fmt.Sprint(recs[0].Headers)
		if !strings.Contains(headerOf(recs[0], "hookline-error"), want) || !strings.HasPrefix(headerOf(recs[0], "hookline-source"), attemptsTopic+"/0/") {
			t.Errorf("dead letter for %q has headers %s", want, text)
		}
	}
}

func headerOf(rec *kgo.Record, key string) string {
	for _, h := range rec.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// TestExpansion: a body that a batch writes once fills a column many times;
// blocks are cut by that.
func TestExpansion(t *testing.T) {
	w := newWorld(t)
	for range 6 {
		list := sampleAttempts(100)
		for i := range list {
			list[i].ResponseBody = make([]byte, 2000)
		}
		w.produce(attemptsTopic, attemptlog.AppendBatch(nil, list, attemptlog.Options{}))
	}
	w.start(attemptsOnly, func(c *Config, _ *Deps) { c.BlockBytes = 256 << 10 })
	w.ch.once(t, 600)
	w.committed(6)
	for _, in := range w.ch.inserts {
		if len(in.keys) > 200 {
			t.Errorf("a block of %d rows of 2 kB, with a limit of 256 KiB", len(in.keys))
		}
	}
}

// TestRebalance: partitions move between members while rows are stored.
func TestRebalance(t *testing.T) {
	w := newWorld(t)
	if _, err := w.adm.UpdatePartitions(t.Context(), 4, attemptsTopic); err != nil {
		t.Fatal(err)
	}
	w.start(attemptsOnly)
	total := 0
	for range 4 {
		s := w.start(attemptsOnly)
		for range 30 {
			w.attempts(7)
			total += 7
		}
		s.stop()
	}
	w.ch.once(t, total)
}

// TestEventsSince: a topic that was never seen is begun where it says.
func TestEventsSince(t *testing.T) {
	w := newWorld(t)
	w.produce(eventsTopic, []byte("t:old"))
	since := time.Now().Add(time.Hour)
	later := func(_ *Config, d *Deps) { d.EventsSince = since }
	s := w.start(later)
	w.attempts(1)
	w.ch.once(t, 1) // both partitions were assigned at once
	w.committed(1)
	w.waitCommitted(eventsTopic, 1)
	s.stop()
	w.produce(eventsTopic, []byte("t:new")) // while no sink runs
	w.start(later)
	w.ch.once(t, 2)
}

type counting struct {
	noMetrics
	errs          chan struct{}
	missing, dead atomic.Int64
	kafkaLag      atomic.Int64 // as set last
}

func (c *counting) SinkMissing(_ string, n int64) { c.missing.Add(n) }

func (c *counting) SinkDead(string) { c.dead.Add(1) }
func (c *counting) KafkaLag(topic string, records int64) {
	if topic != attemptsTopic {
		panic("BUG: the lag of " + topic)
	}
	c.kafkaLag.Store(records)
}

func (c *counting) SinkInsertError(string) {
	select {
	case c.errs <- struct{}{}:
	default:
	}
}

func (c *counting) await(t *testing.T, n int) {
	t.Helper()
	for range n {
		select {
		case <-c.errs:
		case <-time.After(20 * time.Second):
			t.Fatal("no insert failed")
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for name, change := range map[string]func(*Config, *Deps){
		"no group":      func(_ *Config, d *Deps) { d.Group = "" },
		"no parser":     func(_ *Config, d *Deps) { d.ParseEvent = nil },
		"no matcher":    func(_ *Config, d *Deps) { d.Taken = nil },
		"configuration": func(c *Config, _ *Deps) { c.BlockRows = 0 },
	} {
		cfg := Config{Addr: "http://127.0.0.1:1", Database: "d", BlockRows: 1, BlockBytes: 1 << 20, BufferBytes: 2 << 20, FlushInterval: time.Second, Inserts: 1, InsertTimeout: time.Second}
		deps := Deps{Group: "g", AttemptsTopic: "a", DeadTopic: "d", EventTopics: []string{"e"}, ParseEvent: parseEvent, Taken: func(*pipeline.Event) bool { return true }}
		if s, err := New(cfg, deps); err != nil {
			t.Errorf("%s: before the change: %v", name, err)
		} else {
			s.server.close()
		}
		change(&cfg, &deps)
		if _, err := New(cfg, deps); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
