package sink

import (
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// buffer counts the bytes of records that wait to be stored, over all
// partitions, and pauses fetching beyond its limit.
type buffer struct {
	client *kgo.Client // set before the first record
	limit  int64
	eager  bool  // Deps.Alone
	enough int64 // bytes that are worth an insert

	mu     sync.Mutex // guards what follows
	bytes  int64
	paused map[partitionID]bool
}

func (b *buffer) add(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bytes += n
	if len(b.paused) == 0 || b.bytes >= b.limit/2 {
		return
	}
	resume := map[string][]int32{}
	for id := range b.paused {
		resume[id.topic] = append(resume[id.topic], id.id)
	}
	b.client.ResumeFetchPartitions(resume)
	clear(b.paused)
}

func (b *buffer) full() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bytes >= b.limit
}

// filling tells that little room is left: nothing that may be stored should wait.
// So too while fetching is paused, until half of the buffer is free: where what waits
// is spread over so many topics that no block of any is full, all of them would
// wait for their interval meanwhile, and nothing would be fetched.
func (b *buffer) filling() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.fills()
}

// fills is filling with mu held.
func (b *buffer) fills() bool { return b.bytes >= b.limit/4*3 || len(b.paused) > 0 }

// needs tells that a topic with that many bytes, one of several, is to be stored
// at once, however lately it was: little room is left, and it has half of its share of
// the buffer at least, and enough for an insert, which costs ClickHouse much however
// little is in it. In a full buffer there is always one with its share; where that is
// not enough, each waits for its interval. Never beside deliveries: what is not
// fetched waits in Kafka, and ClickHouse may have the same processors.
func (b *buffer) needs(bytes, topics int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.eager && b.fills() && bytes >= max(b.enough, b.limit/(2*max(1, topics)))
}

// pause stops fetching these until half of the buffer is free.
func (b *buffer) pause(ids []partitionID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bytes < b.limit {
		return // stored meanwhile
	}
	if b.paused == nil {
		b.paused = map[partitionID]bool{}
	}
	pause := map[string][]int32{}
	for _, id := range ids {
		if !b.paused[id] {
			b.paused[id] = true
			pause[id.topic] = append(pause[id.topic], id.id)
		}
	}
	b.client.PauseFetchPartitions(pause)
}

// blockPool keeps columns for reuse; there are never more in use than inserts
// at once, and never more kept of each table than that. What they are sent as is
// kept apart: there is never more of it than inserts at once over all tables.
type blockPool struct {
	events func() *block

	mu     sync.Mutex // guards what follows
	free   map[string][]*block
	frames []*frames
}

func (p *blockPool) get(table string) *block {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.columns(table)
	if n := len(p.frames); n > 0 {
		b.frames, p.frames = p.frames[n-1], p.frames[:n-1]
	}
	return b
}

// columns gives a block without frames; with mu held.
func (p *blockPool) columns(table string) *block {
	if list := p.free[table]; len(list) > 0 {
		b := list[len(list)-1]
		p.free[table] = list[:len(list)-1]
		return b
	}
	if table == tableEvents {
		return p.events()
	}
	return newBlock(tableAttempts, newAttemptRows())
}

func (p *blockPool) put(b *block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.free == nil {
		p.free = map[string][]*block{}
	}
	if b.frames != nil {
		p.frames = append(p.frames, b.frames)
		b.frames = nil
	}
	p.free[b.table] = append(p.free[b.table], b)
}
