// Package replay delivers past events again: a subscription's events of a time,
// one event, one delivery, those that failed, or what a subscription missed while
// it was disabled.
//
// A replay is planned, then run. The plan is a list of source positions in their
// original order: by the time at which they were produced, and within one source
// partition by offset. Each event is read again (from its topic while it is
// retained there, else from the archive), parsed and matched as the router would
// now, and enqueued in deliveries behind what is there, marked by the replay's id.
// The delivery id is the same as ever.
//
// How far a replay has come is a record in the topic replays, written in the
// transaction that enqueues. So a replay that was killed goes on where it was when
// it is run again, and enqueues nothing twice. Only one process runs a replay: the
// transactional id is its own.
package replay
