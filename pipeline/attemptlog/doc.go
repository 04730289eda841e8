// Package attemptlog is the wire format of the attempts topic: batches of
// attempts, versioned, length-prefixed and binary. docs/attempts-topic.md
// describes it for readers in other languages.
//
// A batch is a version byte, a count, and entries. An entry has a kind and a
// length, so that a reader skips kinds and trailing fields that are newer than
// itself. What the attempts of one event have in common (the envelope) is
// written once per batch; text that repeats from one attempt to the next (URL,
// node, answer) is written once per run.
package attemptlog

// Version is the first byte of every batch. It grows only when an older reader
// could not read a newer batch; new fields and new entry kinds do not need it.
const Version = 1

// Limits of one batch that a writer keeps to; a reader accepts more.
const (
	// MaxAttempts per batch.
	MaxAttempts = 256
	// TargetBytes after which a batch is full: one attempt may go beyond it.
	TargetBytes = 512 << 10
)

const (
	headerBytes      = 5 // version, count (uint32 little endian)
	entryHeaderBytes = 5 // kind, length (uint32 little endian)
)

// Kinds of entries.
const (
	kindEnvelope = 1
	kindAttempt  = 2
)

// Bits of an attempt's first byte.
const (
	flagFinal             = 1 << 0
	flagRequestWritten    = 1 << 1
	flagResponseTruncated = 1 << 2
	flagWithoutBodies     = 1 << 3
)

// Bits of an attempt's second byte: the field is not written, it is that of the
// attempt before.
const (
	sameSubscription = 1 << iota
	sameURL
	sameError
	sameNode
	sameRequestHeaders
	sameResponseHeaders
	sameResponseBody
)
