package attemptlog

import (
	"bytes"
	"encoding/binary"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Options of an encoding.
type Options struct {
	// WithoutBodies leaves out response bodies and all headers, for a record
	// that Kafka refused as too large. The attempts are marked (Row.WithoutBodies).
	WithoutBodies bool
}

// AppendBatch appends one batch with all of attempts to dst. It does not split:
// the caller keeps to MaxAttempts and TargetBytes, or uses an Encoder.
func AppendBatch(dst []byte, attempts []pipeline.Attempt, opts Options) []byte {
	var e Encoder
	e.opts = opts
	e.start(dst)
	for i := range attempts {
		e.Append(&attempts[i])
	}
	return e.finish()
}

// Encoder builds one batch after another. The zero value is ready after Reset.
// Not safe for concurrent use.
type Encoder struct {
	buf   []byte
	base  int // where the batch begins in buf
	count int
	opts  Options
	prev  [7]span // of the attempt before, in the order of the same* bits
	slots [envelopeSlots]envelopeSlot
	envs  int // envelopes written in this batch
	batch uint32
}

// envelopeSlots: the envelopes of a batch that can be found again. A lost one
// costs only its bytes.
const envelopeSlots = 256

type envelopeSlot struct {
	batch uint32 // of Encoder.batch; another: the slot is empty
	index uint32
	at    span
	env   *pipeline.Envelope // kept, so that the address means it and no other
}

type span struct{ lo, hi int }

// emptyEnvelope stands in for an attempt without one.
var emptyEnvelope pipeline.Envelope

// Reset begins a batch in the memory of buf, which may be nil. A buffer that
// was handed to a Kafka client must not be passed before its record is settled.
func (e *Encoder) Reset(buf []byte, opts Options) {
	e.opts = opts
	e.start(buf[:0])
}

func (e *Encoder) start(dst []byte) {
	e.base = len(dst)
	e.buf = append(dst, Version, 0, 0, 0, 0)
	e.count, e.envs = 0, 0
	e.prev = [7]span{}
	for i := range e.slots {
		e.slots[i].env = nil // with what its strings are parts of
	}
	e.batch++
	if e.batch == 0 { // wrapped: slots of 2^32 batches ago would look current
		e.slots = [envelopeSlots]envelopeSlot{}
		e.batch = 1
	}
}

// Append adds one attempt; it copies all that it needs from a, but its envelope
// must stay as it is until the batch ends.
func (e *Encoder) Append(a *pipeline.Attempt) {
	env := a.Envelope
	if env == nil {
		env = &emptyEnvelope
	}
	index := e.envelope(env)
	start := e.open(kindAttempt)
	at := len(e.buf)
	b := append(e.buf, e.flags(a), 0)
	b = binary.AppendUvarint(b, uint64(index))
	b = appendInt(b, a.Attempt)
	b = appendInt(b, a.Round)
	b = append(b, byte(a.Outcome))
	b = appendInt(b, a.StatusCode)
	b = appendInt(b, a.RequestBytes)
	b = appendInt(b, a.Resends)
	b = appendTime(b, a.StartedAt)
	b = appendTime(b, a.NextAttemptAt)
	b = appendDuration(b, a.Elapsed)
	b = appendDuration(b, a.DNS)
	b = appendDuration(b, a.Connect)
	b = appendDuration(b, a.TLS)
	b = appendDuration(b, a.TTFB)
	b = appendString(b, a.AttemptID)
	b = appendString(b, a.DeliveryID)
	b = appendString(b, a.AckID)
	e.buf = b
	var same byte
	same |= repeat(e, 0, sameSubscription, a.SubscriptionID)
	same |= repeat(e, 1, sameURL, a.URL)
	same |= repeat(e, 2, sameError, a.Error)
	same |= repeat(e, 3, sameNode, a.Node)
	if e.opts.WithoutBodies {
		same |= repeat(e, 4, sameRequestHeaders, "")
		same |= repeat(e, 5, sameResponseHeaders, "")
		same |= repeat(e, 6, sameResponseBody, "")
	} else {
		same |= repeat(e, 4, sameRequestHeaders, a.RequestHeaders)
		same |= repeat(e, 5, sameResponseHeaders, a.ResponseHeaders)
		same |= repeat(e, 6, sameResponseBody, a.ResponseBody)
	}
	e.buf[at+1] = same
	e.closeEntry(start)
	e.count++
}

func (e *Encoder) flags(a *pipeline.Attempt) byte {
	var f byte
	if a.Final {
		f |= flagFinal
	}
	if a.RequestWritten {
		f |= flagRequestWritten
	}
	if a.ResponseTruncated {
		f |= flagResponseTruncated
	}
	if e.opts.WithoutBodies {
		f |= flagWithoutBodies
	}
	return f
}

// Bytes is the batch so far. It is valid until the next call of the Encoder;
// after the next Reset with another buffer it belongs to the caller.
func (e *Encoder) Bytes() []byte { return e.finish()[e.base:] }

// Len is the size of the batch so far in bytes.
func (e *Encoder) Len() int { return len(e.buf) - e.base }

// Count is the number of attempts so far.
func (e *Encoder) Count() int { return e.count }

// Full tells that the batch has reached one of its limits and is to be sent.
func (e *Encoder) Full() bool { return e.count >= MaxAttempts || e.Len() >= TargetBytes }

func (e *Encoder) finish() []byte {
	binary.LittleEndian.PutUint32(e.buf[e.base+1:], uint32(e.count))
	return e.buf
}

// envelope writes env unless the batch has it, and returns its index. What is
// not the same in memory may still be the same in its encoding.
func (e *Encoder) envelope(env *pipeline.Envelope) int {
	slot := &e.slots[uint64(env.Source.Offset*31+int64(env.Source.Partition))%envelopeSlots]
	if slot.batch == e.batch && slot.env == env {
		return int(slot.index)
	}
	start := e.open(kindEnvelope)
	lo := len(e.buf)
	e.buf = appendEnvelope(e.buf, env)
	if slot.batch == e.batch && bytes.Equal(e.buf[slot.at.lo:slot.at.hi], e.buf[lo:]) {
		e.buf = e.buf[:start]
		return int(slot.index)
	}
	*slot = envelopeSlot{batch: e.batch, index: uint32(e.envs), at: span{lo, len(e.buf)}, env: env}
	e.closeEntry(start)
	e.envs++
	return e.envs - 1
}

func appendEnvelope(b []byte, env *pipeline.Envelope) []byte {
	b = appendString(b, env.Source.Cluster)
	b = append(b, env.Source.TopicID[:]...)
	b = appendString(b, env.Source.Topic)
	b = binary.AppendVarint(b, int64(env.Source.Partition))
	b = binary.AppendVarint(b, env.Source.Offset)
	b = appendString(b, string(env.Format))
	b = appendString(b, env.EventID)
	b = appendString(b, env.Tenant)
	b = appendString(b, env.EventType)
	b = appendString(b, env.Entity)
	b = appendString(b, env.Correlation)
	b = appendString(b, env.ContentType)
	b = appendTime(b, env.Time)
	b = appendTime(b, env.ProducedAt)
	b = binary.AppendVarint(b, env.RegistryVersion)
	return appendString(b, env.Replay)
}

// open begins an entry and returns where it starts.
func (e *Encoder) open(kind byte) int {
	start := len(e.buf)
	e.buf = append(e.buf, kind, 0, 0, 0, 0)
	return start
}

// closeEntry writes the length of the entry that began at start.
func (e *Encoder) closeEntry(start int) {
	n := len(e.buf) - start - entryHeaderBytes
	binary.LittleEndian.PutUint32(e.buf[start+1:], uint32(n))
}

// repeat writes s as field i, or nothing and returns bit where the attempt
// before has the same.
func repeat[S string | []byte](e *Encoder, i int, bit byte, s S) byte {
	p := e.prev[i]
	if e.count > 0 && string(e.buf[p.lo:p.hi]) == string(s) {
		return bit
	}
	e.buf = appendString(e.buf, s)
	e.prev[i] = span{len(e.buf) - len(s), len(e.buf)}
	return 0
}

func appendString[S string | []byte](b []byte, s S) []byte {
	b = binary.AppendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendInt(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(max(0, n))) }

// appendDuration writes nanoseconds; a negative duration is none.
func appendDuration(b []byte, d time.Duration) []byte {
	return binary.AppendUvarint(b, uint64(max(0, d)))
}

// appendTime writes seconds since 1970 and nanoseconds, since UnixNano knows
// neither the zero time nor the year 9999.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond()))
}
