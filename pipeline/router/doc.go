// Package router turns event records into deliveries: it parses a record, finds
// the subscriptions that take the event, and writes the payload once for each
// partition with the list of the subscriptions that live there. All that comes of
// a batch and the offsets that it was read up to are one transaction, so that an
// event is routed exactly once. A record that cannot be parsed goes to
// events.dead in the same transaction.
//
// Run owns everything: one goroutine polls, routes and ends transactions. Kafka's
// client calls back from its own goroutines, but only in starter (where a
// partition is read from), which has its own lock.
package router
