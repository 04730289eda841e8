// Package lane is the dispatcher's protocol as a pure state machine: which
// delivery may be sent when, what is written to which topic, and what the next
// transaction must hold. It does no I/O, starts no goroutine and reads no
// clock, so that it can be property-tested: random outcomes, random crashes
// (drop the Task, rebuild it from what was committed).
//
// A Task is one partition. A lane is the unit of order within it. Every
// delivery that is not settled has exactly one durable home:
//
//   - deliveries: its bit in the open set of the state record "#d" is set;
//   - retry.k: it is the head of its lane, named in the lane's record;
//   - parked: it stands in the lane's parked log, at or above the lane's From.
//
// It changes home within one transaction, so a rebuild finds it exactly once.
//
// One goroutine calls everything here (the dispatcher's loop): no locks.
package lane
