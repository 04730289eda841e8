package router

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// batchBytes and batchRecords bound what one transaction writes; beyond, it
	// is ended at once. What it writes is in memory up to three times: the payload
	// as it was read, the request, and the request as it is compressed. 8 MiB are
	// 7,000 records of 1 KiB: the 20 ms or so of a transaction do not hold them up.
	batchBytes   = 8 << 20
	batchRecords = 50_000
	// maxEnvelope leaves room for a lane key with the entity a second time.
	maxEnvelope = kafkax.MaxEnvelopeBytes - 512
	// deadRoom is what a dead letter needs besides the record: three headers and
	// the batch's framing.
	deadRoom = 4 << 10
	// deadHead is how much of a record that does not fit is kept.
	deadHead = 64 << 10
	// slabRecords is how many records are allocated at once.
	slabRecords = 256
	// maxKeptSlabs bounds the slabs that are kept for the next batch.
	maxKeptSlabs = 64
	// arenaBytes is how much room for headers is allocated at once.
	arenaBytes = 256 << 10
)

// Headers of a dead letter that does not hold the whole record.
const (
	headerOriginalBytes  = "hookline-original-bytes"
	headerOriginalSHA256 = "hookline-original-sha256"
)

// batch is the work of one transaction. Its memory is used again by the next one:
// when a transaction has ended, nothing refers to it any more.
type batch struct {
	r       *Router
	produce func(*kgo.Record)
	matcher Matcher

	memory   *memory   // of the partition at hand; nil: no dedupe
	memories []*memory // changed in this transaction
	keys     keyer
	ahead    *ahead // of the partition at hand

	src     pipeline.Position
	ev      pipeline.Event
	env     pipeline.Envelope
	matched []string   // ids of the subscriptions that take the event at hand
	buckets [][]string // the same by partition
	touched []int32    // the partitions with a bucket

	span   pipeline.RouteSpan    // of the event at hand; nil: none
	traced pipeline.TraceContext // what travels on with it
	spans  []pipeline.RouteSpan  // begun in this transaction

	letters []*kgo.Record // for events.dead, of this transaction
	slabs   [][]outRecord
	used    int // of the slabs' records
	arena   []byte
	records int
	bytes   int
	counts  map[count]int
}

type count struct{ format, result string }

// outRecord is a record of deliveries with room for its headers.
type outRecord struct {
	rec     kgo.Record
	headers [2]kgo.RecordHeader
}

func newBatch(r *Router) *batch {
	return &batch{r: r, buckets: make([][]string, r.kafka.Partitions), counts: map[count]int{}}
}

// reset begins the next batch. keep is false where records of the last one may
// still be in the client's hands.
func (b *batch) reset(keep bool) {
	if !keep {
		b.slabs, b.arena = nil, nil
	}
	if len(b.slabs) > maxKeptSlabs {
		b.slabs = b.slabs[:maxKeptSlabs]
	}
	for i := range min(len(b.slabs), (b.used+slabRecords-1)/slabRecords) {
		clear(b.slabs[i]) // let the payloads go
	}
	clear(b.letters)
	b.letters = b.letters[:0]
	b.used, b.arena, b.records, b.bytes = 0, b.arena[:0], 0, 0
	clear(b.counts)
}

func (b *batch) full() bool { return b.records >= batchRecords || b.bytes >= batchBytes }

// add routes one record.
func (b *batch) add(rec *kgo.Record, spec *TopicSpec, topicID [16]byte) {
	b.src = pipeline.Position{Cluster: b.r.cluster, TopicID: topicID, Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset}
	if b.memory != nil {
		b.memory.forget(rec.Timestamp.UnixMilli())
	}
	b.trace(rec)
	if err := b.parse(rec, spec, &b.src); err != nil {
		b.dead(rec, spec, &b.src, err)
		return
	}
	if b.duplicate(rec) {
		b.noteResult(string(b.ev.Format), ResultDuplicate, 0)
		return
	}
	b.matched = b.matcher.IDs(&b.ev, b.matched[:0])
	if len(b.matched) == 0 {
		b.noteResult(string(b.ev.Format), ResultUnmatched, 0)
		return
	}
	b.fillEnvelope(rec)
	dst := b.room()
	from := len(dst)
	b.arena = kafkax.EncodeEnvelope(dst, &b.env)
	envelope := b.arena[from:len(b.arena):len(b.arena)]
	if len(envelope) > maxEnvelope {
		b.arena = b.arena[:from]
		b.dead(rec, spec, &b.src, fmt.Errorf("the event's attributes take %d bytes, more than %d (id, type, tenant, entity, correlation or CloudEvents attributes are too long)", len(envelope), maxEnvelope))
		return
	}
	b.fanOut(envelope)
	b.noteResult(string(b.ev.Format), ResultRouted, len(b.matched))
	clear(b.matched) // an index that was replaced is let go
}

func (b *batch) fillEnvelope(rec *kgo.Record) {
	ev := &b.ev
	b.env = pipeline.Envelope{
		Source: ev.Source, Format: ev.Format, EventID: ev.ID, Tenant: ev.Tenant, EventType: ev.Type, Entity: ev.Entity,
		Correlation: ev.Correlation, ContentType: ev.ContentType, Time: ev.Time, ProducedAt: rec.Timestamp,
		RegistryVersion: b.matcher.Version(), Splice: ev.Splice, Attributes: ev.Attributes,
		Trace: b.traced,
	}
}

// fanOut writes the event once for each partition, or for each MaxSubs
// subscriptions of one.
func (b *batch) fanOut(envelope []byte) {
	n := b.r.kafka.Partitions
	for _, id := range b.matched {
		p := kafkax.Partition(id, n)
		if len(b.buckets[p]) == 0 {
			b.touched = append(b.touched, p)
		}
		b.buckets[p] = append(b.buckets[p], id)
	}
	for _, p := range b.touched {
		for ids := b.buckets[p]; len(ids) > 0; {
			m := min(len(ids), kafkax.MaxSubs)
			b.delivery(p, envelope, ids[:m])
			ids = ids[m:]
		}
		clear(b.buckets[p])
		b.buckets[p] = b.buckets[p][:0]
	}
	b.touched = b.touched[:0]
}

func (b *batch) delivery(p int32, envelope []byte, ids []string) {
	if b.ahead.has(b.src.Offset, p) {
		return
	}
	dst := b.room()
	from := len(dst)
	b.arena = kafkax.EncodeSubs(dst, ids)
	out := b.next()
	out.headers = [2]kgo.RecordHeader{
		{Key: kafkax.HeaderEnvelope, Value: envelope},
		{Key: kafkax.HeaderSubs, Value: b.arena[from:len(b.arena):len(b.arena)]},
	}
	out.rec = kgo.Record{Topic: b.r.deliveries, Partition: p, Value: b.ev.Payload, Headers: out.headers[:]}
	b.send(&out.rec, len(envelope)+len(b.arena)-from)
}

func (b *batch) send(rec *kgo.Record, headers int) {
	b.records++
	b.bytes += len(rec.Value) + headers
	b.produce(rec)
}

// room is the arena, with place for a usual envelope or list. A full one is left
// to the records that refer to it.
func (b *batch) room() []byte {
	if cap(b.arena)-len(b.arena) < 8<<10 {
		b.arena = make([]byte, 0, arenaBytes)
	}
	return b.arena
}

func (b *batch) next() *outRecord {
	slab, at := b.used/slabRecords, b.used%slabRecords
	if slab == len(b.slabs) {
		b.slabs = append(b.slabs, make([]outRecord, slabRecords))
	}
	b.used++
	return &b.slabs[slab][at]
}

// dead writes a record that is no event to events.dead as it stands, or its
// head and hash where it would not fit.
func (b *batch) dead(rec *kgo.Record, spec *TopicSpec, src *pipeline.Position, cause error) {
	out := &kgo.Record{Topic: b.r.eventsDead, Key: rec.Key, Value: rec.Value}
	size := len(rec.Key) + len(rec.Value)
	for i := range rec.Headers {
		size += len(rec.Headers[i].Key) + len(rec.Headers[i].Value) + 8
	}
	if size+deadRoom <= b.r.kafka.MaxMessageBytes() {
		out.Headers = append(out.Headers, rec.Headers...)
	} else {
		sum := sha256.Sum256(rec.Value)
		out.Key = rec.Key[:min(len(rec.Key), 1<<10)]
		if room := b.r.kafka.MaxMessageBytes() - len(out.Key) - deadRoom; rec.Value != nil {
			out.Value = rec.Value[:min(len(rec.Value), deadHead, max(room, 0))]
		}
		out.Headers = append(out.Headers,
			kgo.RecordHeader{Key: headerOriginalBytes, Value: strconv.AppendInt(nil, int64(len(rec.Value)), 10)},
			kgo.RecordHeader{Key: headerOriginalSHA256, Value: hex.AppendEncode(nil, sum[:])})
	}
	out.Headers = append(out.Headers,
		kgo.RecordHeader{Key: kafkax.HeaderError, Value: []byte(kafkax.CleanError(cause.Error()))},
		kgo.RecordHeader{Key: kafkax.HeaderSource, Value: []byte(src.String())})
	label := string(spec.Options.Format)
	if label == "" {
		label = formatUnknown
	}
	b.noteResult(label, ResultDead, 0)
	b.r.warn("event record goes to events.dead", "source", src.String(), "why", kafkax.CleanError(cause.Error()))
	b.letters = append(b.letters, out)
	b.send(out, size)
}

// publish counts what a committed transaction did.
func (b *batch) publish() {
	for c, n := range b.counts {
		b.r.metrics.Event(c.format, c.result, n)
	}
}
