// Package dispatch makes the deliveries: it owns partitions of the deliveries
// topic (tasks) by consumer group, drives their state machines (package lane)
// from one loop, hands attempts to a Sender, and writes everything that
// happened in transactions.
//
// How it is put together:
//
//   - the group client only keeps the membership; it fetches nothing.
//   - the fetch client reads deliveries/p and retry.k/p of the tasks from the
//     positions that their recovery gave; a full task's partitions are paused once
//     enough of theirs waits for room.
//   - the loop goroutine (loop.go) is the only one that touches tasks. What
//     others found out comes to it: fetched records, finished attempts, ended
//     commits, assignments.
//   - workers (work.go) make one attempt each at a time.
//   - at most one transaction is under way per process (commit.go); attempts
//     are produced outside it, but it does not commit before they are acked.
//
// Invariant: a POST begins only while Gate is open, that is while the group
// has heard of us within half the session timeout. Kafka fences commits, not
// POSTs.
package dispatch
