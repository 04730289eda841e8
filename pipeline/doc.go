// Package pipeline holds hookline's nouns and the ports between its parts:
// Event, Subscription, Envelope, Request, Result, Attempt, Outcome. It does no
// I/O and imports nothing of ours, so that every other package may import it.
//
// An event is one Kafka record at one Position. A delivery is one event for one
// subscription. An attempt is one try to make a delivery.
package pipeline
