// Package failpoint ends or freezes a process at a chosen step between two
// effects, for tests of what is left behind. It is there only in binaries built
// with the tag failpoint; in all others Enabled is false, Hit does nothing, and
// the compiler leaves both out.
//
// HOOKLINE_FAILPOINT=point[:n][:stop|:panic|:leak] names the point: at the nth time (first by
// default) that the process comes there, it sends itself SIGKILL, or with stop
// SIGSTOP. With panic it panics there, and with leak it does so with what it holds:
// a fault, so that tests can show that they would find it.
package failpoint

// Point is a step between two effects.
type Point string

// The points.
const (
	// AttemptMade: a request was answered; nothing is committed of it.
	AttemptMade Point = "attempt-made"
	// RetryProduced: a transaction with a retry is filled, offsets included, and
	// not committed.
	RetryProduced Point = "retry-produced"
	// RetryCommitted: such a transaction is committed; the process does not know.
	RetryCommitted Point = "retry-committed"
	// Routed: the deliveries of a batch of events are produced, not committed.
	Routed Point = "routed"
	// BlockDeclared: a block of the log is declared in Kafka and not inserted.
	BlockDeclared Point = "block-declared"
	// BlockInserting: half of a block was sent to ClickHouse.
	BlockInserting Point = "block-inserting"
	// BlockInserted: a block is in ClickHouse; its offset is not committed.
	BlockInserted Point = "block-inserted"
	// CredentialsHeld: the secrets of a subscription were read and are at hand.
	CredentialsHeld Point = "credentials-held"
)

// Points returns all points.
func Points() []Point {
	return []Point{AttemptMade, RetryProduced, RetryCommitted, Routed, BlockDeclared, BlockInserting, BlockInserted, CredentialsHeld}
}
