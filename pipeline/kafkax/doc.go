// Package kafkax is everything of hookline that is about Kafka and nothing
// else: client options, topic names and settings, the header codec, fetching by
// offset, and committing offsets within a transaction. It has no business rules.
package kafkax
