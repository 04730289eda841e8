// Package sink stores the delivery log in ClickHouse: it consumes the attempts
// topic and the event topics, and keeps the schema; Reader asks questions of it.
//
// # Exactly once
//
// Each Kafka partition has at most one block under way; a block has rows of as many
// partitions of a topic as have records that wait. The sink
//
//  1. commits the block's first and last offset in each of them as metadata of their
//     committed offsets ("declares" it), in one request, fenced by its group generation;
//  2. inserts the block's rows as one ClickHouse block whose deduplication token
//     is made of topic id, partitions and offsets;
//  3. commits the offsets after the block.
//
// Whoever finds a declaration, a new owner of one of the partitions or the same one that
// got no reply, repeats that very block: the same records, the same token, also those of
// partitions that it does not own. ClickHouse drops it where it has it already. A process
// that lost a partition cannot declare, and the insert it still had under way is the
// declared block, so that it is dropped whenever it lands.
//
// Records of webhook_called, where they are switched on, are produced between 2
// and 3: each attempt at least once, and again, the same, by whoever repeats a
// declared block.
package sink
