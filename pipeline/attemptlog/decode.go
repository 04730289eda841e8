package attemptlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unsafe"

	"github.com/hookline/hookline/pipeline"
)

// ErrVersion is wrapped by the error for a batch of a version that this reader
// does not know: a newer hookline wrote it.
var ErrVersion = errors.New("unknown version of an attempts batch")

// errCut says that a batch ends, or an entry ends, within a field.
var errCut = errors.New("cut off")

// Row is one decoded attempt. Its strings and byte slices are parts of the
// batch, and the Row itself is used again for the next attempt: copy what is to
// outlive the callback, and change nothing.
type Row struct {
	pipeline.Attempt
	// Index of the attempt within its batch, from 0: the column log_index.
	Index int
	// WithoutBodies: headers and response body were left out (Options).
	WithoutBodies bool
}

// Decoder reads batches and reuses its memory. The zero value is ready. Not
// safe for concurrent use.
type Decoder struct {
	envs []pipeline.Envelope
	row  Row
}

// Decode calls fn for each attempt in b, in order, and stops at fn's first
// error, which it returns as it is. Malformed input gives an error that names
// the entry and the byte, after fn was called for the attempts before it. b
// must not change while rows of it are in use.
func Decode(b []byte, fn func(*Row) error) error {
	var d Decoder
	return d.Decode(b, fn)
}

// Decode is as the function Decode, with reused memory.
func (d *Decoder) Decode(b []byte, fn func(*Row) error) error {
	if len(b) < headerBytes {
		return fmt.Errorf("decoding attempts batch: %d bytes: %w", len(b), errCut)
	}
	if b[0] != Version {
		return fmt.Errorf("decoding attempts batch: version %d, this reader knows %d: %w", b[0], Version, ErrVersion)
	}
	want := binary.LittleEndian.Uint32(b[1:])
	d.envs = d.envs[:0]
	d.row = Row{}
	count, at := uint32(0), headerBytes
	for at < len(b) {
		kind, body, err := entry(b[at:])
		if err != nil {
			return fmt.Errorf("decoding attempts batch: entry at byte %d: %w", at, err)
		}
		switch kind {
		case kindEnvelope:
			err = d.envelope(body)
		case kindAttempt:
			d.row.Index = int(count)
			count++
			if err = d.attempt(body); err == nil {
				if err := fn(&d.row); err != nil {
					return err
				}
			}
		default: // newer than this reader
		}
		if err != nil {
			return fmt.Errorf("decoding attempts batch: entry at byte %d: %w", at, err)
		}
		at += entryHeaderBytes + len(body)
	}
	if count != want {
		return fmt.Errorf("decoding attempts batch: %d attempts, its header says %d: %w", count, want, errCut)
	}
	return nil
}

// Count is the number of attempts that the header of batch b claims, 0 where b
// has no header of this version. It decodes nothing.
func Count(b []byte) int {
	if len(b) < headerBytes || b[0] != Version {
		return 0
	}
	return int(binary.LittleEndian.Uint32(b[1:]))
}

// entry splits the first entry off b.
func entry(b []byte) (kind byte, body []byte, err error) {
	if len(b) < entryHeaderBytes {
		return 0, nil, errCut
	}
	n := binary.LittleEndian.Uint32(b[1:])
	if uint64(n) > uint64(len(b)-entryHeaderBytes) {
		return 0, nil, fmt.Errorf("length %d, %d bytes left: %w", n, len(b)-entryHeaderBytes, errCut)
	}
	return b[0], b[entryHeaderBytes : entryHeaderBytes+int(n)], nil
}

func (d *Decoder) envelope(body []byte) error {
	r := reader{b: body}
	d.envs = append(d.envs, pipeline.Envelope{})
	env := &d.envs[len(d.envs)-1]
	env.Source.Cluster = r.str()
	copy(env.Source.TopicID[:], r.take(uint64(len(env.Source.TopicID))))
	env.Source.Topic = r.str()
	env.Source.Partition = int32(r.varint())
	env.Source.Offset = r.varint()
	env.Format = pipeline.Format(r.str())
	env.EventID = r.str()
	env.Tenant = r.str()
	env.EventType = r.str()
	env.Entity = r.str()
	env.Correlation = r.str()
	env.ContentType = r.str()
	env.Time = r.time()
	env.ProducedAt = r.time()
	env.RegistryVersion = r.varint()
	env.Replay = r.str()
	return r.err
}

// attempt reads body into d.row; what body marks as repeated stays as the
// attempt before left it.
func (d *Decoder) attempt(body []byte) error {
	r := reader{b: body}
	a := &d.row.Attempt
	flags, same := r.byte(), r.byte()
	a.Final = flags&flagFinal != 0
	a.RequestWritten = flags&flagRequestWritten != 0
	a.ResponseTruncated = flags&flagResponseTruncated != 0
	d.row.WithoutBodies = flags&flagWithoutBodies != 0
	env := r.uvarint()
	a.Attempt = r.int()
	a.Round = r.int()
	a.Outcome = pipeline.Outcome(r.byte())
	a.StatusCode = r.int()
	a.RequestBytes = r.int()
	a.Resends = r.int()
	a.StartedAt = r.time()
	a.NextAttemptAt = r.time()
	a.Elapsed = r.duration()
	a.DNS = r.duration()
	a.Connect = r.duration()
	a.TLS = r.duration()
	a.TTFB = r.duration()
	a.AttemptID = r.str()
	a.DeliveryID = r.str()
	a.AckID = r.str()
	d.repeated(&r, same)
	if r.err != nil {
		return r.err
	}
	if env >= uint64(len(d.envs)) {
		return fmt.Errorf("envelope %d of %d", env, len(d.envs))
	}
	a.Envelope = &d.envs[env]
	return nil
}

func (d *Decoder) repeated(r *reader, same byte) {
	a := &d.row.Attempt
	if same&sameSubscription == 0 {
		a.SubscriptionID = r.str()
	}
	if same&sameURL == 0 {
		a.URL = r.str()
	}
	if same&sameError == 0 {
		a.Error = r.str()
	}
	if same&sameNode == 0 {
		a.Node = r.str()
	}
	if same&sameRequestHeaders == 0 {
		a.RequestHeaders = r.bytes()
	}
	if same&sameResponseHeaders == 0 {
		a.ResponseHeaders = r.bytes()
	}
	if same&sameResponseBody == 0 {
		a.ResponseBody = r.bytes()
	}
}

// WithoutBodies appends to dst the batch b without response bodies and headers.
func WithoutBodies(dst, b []byte) ([]byte, error) {
	var e Encoder
	e.opts = Options{WithoutBodies: true}
	e.start(dst)
	err := Decode(b, func(row *Row) error {
		e.Append(&row.Attempt)
		return nil
	})
	if err != nil {
		return dst, err
	}
	return e.finish(), nil
}

// reader reads fields; after the first failure it gives zero values, and err
// says why.
type reader struct {
	b   []byte
	err error
}

func (r *reader) fail() {
	r.b = nil
	if r.err == nil {
		r.err = errCut
	}
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.fail()
		return 0
	}
	c := r.b[0]
	r.b = r.b[1:]
	return c
}

func (r *reader) uvarint() uint64 {
	if len(r.b) > 0 && r.b[0] < 0x80 { // most fields: one byte
		v := r.b[0]
		r.b = r.b[1:]
		return uint64(v)
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.b = r.b[n:]
	return v
}

// int reads a count or a number; beyond 2^31 it is not one of ours.
func (r *reader) int() int {
	v := r.uvarint()
	if v > 1<<31-1 {
		r.fail()
		return 0
	}
	return int(v)
}

func (r *reader) duration() time.Duration {
	v := r.uvarint()
	if v > 1<<63-1 {
		r.fail()
		return 0
	}
	return time.Duration(v)
}

func (r *reader) time() time.Time {
	sec, nsec := r.varint(), r.uvarint()
	if nsec >= 1e9 {
		r.fail()
	}
	if r.err != nil {
		return time.Time{}
	}
	return time.Unix(sec, int64(nsec)).UTC()
}

func (r *reader) take(n uint64) []byte {
	if n > uint64(len(r.b)) {
		r.fail()
		return nil
	}
	s := r.b[:n:n]
	r.b = r.b[n:]
	return s
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	return r.take(n)
}

// str gives a string that shares the batch's memory.
func (r *reader) str() string {
	s := r.bytes()
	return unsafe.String(unsafe.SliceData(s), len(s))
}
