package kafkax

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Header keys of hookline's own records. One letter: they are on every record.
const (
	HeaderEnvelope  = "e" // EncodeEnvelope; deliveries, retry.*, parked, dead
	HeaderSubs      = "s" // EncodeSubs; deliveries
	HeaderOrigin    = "o" // offset in deliveries, decimal
	HeaderLane      = "l" // lane key
	HeaderAttempts  = "k" // attempts made, decimal
	HeaderRound     = "r" // round, decimal; absent: 0
	HeaderFailedAt  = "t" // unix ms of the failure, rounded up
	HeaderNotBefore = "n" // unix ms before which it may not be sent; optional
)

// MaxEnvelopeBytes bounds an encoded envelope. It is part of MessageOverhead: an
// envelope, the longest list of subscriptions and a lane key fit together.
const MaxEnvelopeBytes = 32 << 10

// envelopeVersion changes only when an old reader must not read a new envelope;
// new fields are added at the end, as sections.
const envelopeVersion = 1

var errShort = errors.New("it ends too early")

// ErrNewer says of a record that a newer hookline wrote it: no bytes are wrong
// with it, and a newer process reads it.
var ErrNewer = errors.New("written by a newer hookline (run that version here too)")

// versionsAhead is how far beyond our own a version counts as a newer
// hookline's; what is further off is no record of hookline's.
const versionsAhead = 8

// versionError says why records of that version are not read.
func versionError(version, known byte) error {
	if version > known && version <= known+versionsAhead {
		return fmt.Errorf("version %d is not known (known: %d): %w", version, known, ErrNewer)
	}
	return fmt.Errorf("version %d is not known (known: %d)", version, known)
}

// EncodeEnvelope appends env to dst. Times keep their nanoseconds and lose their
// zone; a time outside the years 1 to 9999 becomes the zero time.
func EncodeEnvelope(dst []byte, env *pipeline.Envelope) []byte {
	dst = append(dst, envelopeVersion)
	dst = append(dst, env.Source.TopicID[:]...)
	dst = binary.AppendUvarint(dst, uint64(uint32(env.Source.Partition)))
	dst = binary.AppendUvarint(dst, uint64(env.Source.Offset))
	dst = binary.AppendVarint(dst, env.RegistryVersion)
	dst = appendTime(dst, env.Time)
	dst = appendTime(dst, env.ProducedAt)
	dst = appendString(dst, env.Source.Cluster)
	dst = appendString(dst, env.Source.Topic)
	dst = appendString(dst, string(env.Format))
	dst = appendString(dst, env.EventID)
	dst = appendString(dst, env.Tenant)
	dst = appendString(dst, env.EventType)
	dst = appendString(dst, env.Entity)
	dst = appendString(dst, env.Correlation)
	dst = appendString(dst, env.ContentType)
	dst = appendString(dst, env.Replay)
	return appendSections(dst, env)
}

// DecodeEnvelope reads what EncodeEnvelope wrote into env, every field of it.
// It takes one allocation, and one for each section, and keeps nothing of b.
// Sections that it does not know are a newer writer's and ignored.
func DecodeEnvelope(b []byte, env *pipeline.Envelope) error {
	if len(b) == 0 {
		return fmt.Errorf("decoding envelope: %w", errShort)
	}
	if b[0] != envelopeVersion {
		return fmt.Errorf("decoding envelope: %w", versionError(b[0], envelopeVersion))
	}
	if len(b) > MaxEnvelopeBytes {
		return fmt.Errorf("decoding envelope: %d bytes are more than %d", len(b), MaxEnvelopeBytes)
	}
	r := reader{s: string(b[1:])}
	copy(env.Source.TopicID[:], r.take(16))
	env.Source.Partition = int32(r.uvarint(math.MaxInt32))
	env.Source.Offset = int64(r.uvarint(math.MaxInt64))
	env.RegistryVersion = r.varint()
	env.Time = r.time()
	env.ProducedAt = r.time()
	env.Source.Cluster = r.string()
	env.Source.Topic = r.string()
	env.Format = pipeline.Format(r.string())
	env.EventID = r.string()
	env.Tenant = r.string()
	env.EventType = r.string()
	env.Entity = r.string()
	env.Correlation = r.string()
	env.ContentType = r.string()
	env.Replay = r.string()
	r.sections(env)
	if r.err != nil {
		return fmt.Errorf("decoding envelope: %w", r.err)
	}
	return nil
}

func appendString(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Seconds since 1970 of the years 1 and 10000.
const (
	minUnix = -62135596800
	maxUnix = 253402300800
)

// appendTime writes 0 for the zero time, else nanoseconds+1 and seconds.
func appendTime(dst []byte, t time.Time) []byte {
	sec := t.Unix()
	if t.IsZero() || sec < minUnix || sec >= maxUnix {
		return append(dst, 0)
	}
	dst = binary.AppendUvarint(dst, uint64(t.Nanosecond())+1)
	return binary.AppendVarint(dst, sec)
}

// reader reads from a string, so that the strings that it gives share its
// memory. After the first error it gives zero values.
type reader struct {
	s   string
	err error
}

func (r *reader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
	r.s = ""
}

func (r *reader) take(n int) string {
	if n > len(r.s) {
		r.fail(errShort)
		return ""
	}
	out := r.s[:n]
	r.s = r.s[n:]
	return out
}

// uvarint is binary.Uvarint over a string, refusing what is larger than limit.
func (r *reader) uvarint(limit uint64) uint64 {
	var v uint64
	for i := 0; i < len(r.s) && i < binary.MaxVarintLen64; i++ {
		c := r.s[i]
		if i == binary.MaxVarintLen64-1 && c > 1 {
			break
		}
		v |= uint64(c&0x7f) << (7 * i)
		if c >= 0x80 {
			continue
		}
		if v > limit {
			r.fail(fmt.Errorf("number %d is more than %d", v, limit))
			return 0
		}
		r.s = r.s[i+1:]
		return v
	}
	r.fail(errShort)
	return 0
}

func (r *reader) varint() int64 {
	u := r.uvarint(math.MaxUint64)
	return int64(u>>1) ^ -int64(u&1)
}

func (r *reader) string() string { return r.take(int(r.uvarint(math.MaxInt32))) }

func (r *reader) time() time.Time {
	nano := r.uvarint(1e9)
	if nano == 0 {
		return time.Time{}
	}
	sec := r.varint()
	if sec < minUnix || sec >= maxUnix {
		r.fail(fmt.Errorf("time %d is outside the years 1 to 9999", sec))
		return time.Time{}
	}
	return time.Unix(sec, int64(nano-1)).UTC()
}
