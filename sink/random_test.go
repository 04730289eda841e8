package sink

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
)

// TestRandomFaults stores batches while inserts are refused, lose their replies
// or land late, and sinks come and go; each row must be there once.
func TestRandomFaults(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) {
			t.Parallel()
			randomFaults(t, newWideWorld(t, 3), rand.New(rand.NewPCG(seed, 1)))
		})
	}
}

func randomFaults(t *testing.T, w *world, rnd *rand.Rand) {
	var mu sync.Mutex // guards rnd, stalled, faults, over
	var stalled []chan struct{}
	faults := 0   // one after the other: the waits between tries double
	over := false // nobody would release what is stalled from then on
	w.ch.fault = func(int, fakeInsert) fault {
		mu.Lock()
		defer mu.Unlock()
		if faults++; faults > 3 || over {
			faults = 0
			return fault{}
		}
		switch rnd.IntN(6) {
		case 0:
			return fault{refuse: true}
		case 1:
			return fault{mute: true}
		case 2:
			if len(stalled) < 4 {
				stalled = append(stalled, make(chan struct{}))
				return fault{hold: stalled[len(stalled)-1]}
			}
		}
		faults = 0
		return fault{}
	}
	patience := func(c *Config, d *Deps) {
		d.EventTopics = nil
		c.InsertTimeout = time.Second // for those that are stalled
		c.BlockRows = 20
	}
	total := 0
	var running []*running
	for range 12 {
		for range 5 {
			mu.Lock()
			n, to := 1+rnd.IntN(12), rnd.Int32N(3)
			mu.Unlock()
			w.each(n, to)
			total += n
		}
		mu.Lock()
		startOne := len(running) == 0 || len(running) < 2 && rnd.IntN(2) == 0
		mu.Unlock()
		if startOne {
			running = append(running, w.start(patience))
		} else {
			running[0].stop()
			running = running[1:]
		}
	}
	w.start(patience)
	w.ch.once(t, total)
	mu.Lock()
	over = true
	before, late := w.ch.insertsStored(), len(stalled)
	for _, c := range stalled {
		close(c)
	}
	mu.Unlock()
	w.ch.until(t, "those that were stalled", func() bool { return w.ch.stored >= before+late })
	w.ch.once(t, total)
	w.settled()
}

// TestRealKafka: declarations, commits and hand-over between two members as
// Apache Kafka sees them.
func TestRealKafka(t *testing.T) {
	k := testkit.Kafka(t, 1)
	w := &world{t: t, ch: newFakeServer(t), logs: &lines{}, addrs: k.Addrs()}
	w.cl = k.Client(kgo.ConsumeTopics(deadTopic), kgo.MetadataMinAge(20*time.Millisecond))
	w.adm = kadm.NewClient(w.cl)
	testkit.CreateTopics(t, w.cl, 4, 1, attemptsTopic, deadTopic, eventsTopic)
	held := make(chan struct{})
	release := sync.OnceFunc(func() { close(held) })
	defer release()
	w.ch.fault = func(n int, _ fakeInsert) fault {
		if n == 0 { // its owner hands over meanwhile: the block is declared
			return fault{hold: held}
		}
		return fault{mute: n%5 == 0}
	}
	total, seen := 0, 0
	for range 3 {
		s := w.start()
		for range 20 {
			w.attempts(9)
			w.produce(eventsTopic, []byte("t:x"))
			total += 10
		}
		w.ch.until(t, "an insert", func() bool { return len(w.ch.inserts) > seen })
		other := w.start()
		w.attempts(9)
		total += 9
		s.stop()
		w.ch.once(t, total)
		w.settled()
		other.stop()
		w.ch.until(t, "nothing", func() bool { seen = len(w.ch.inserts); return true }) // read under its lock
	}
	landed := w.ch.insertsStored()
	release()
	w.ch.until(t, "the held insert", func() bool { return w.ch.stored > landed })
	w.ch.once(t, total)
}

// settled waits until all that is in the topics is committed, and no block is
// declared any more.
func (w *world) settled() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	ends, err := w.adm.ListEndOffsets(ctx, attemptsTopic, eventsTopic)
	if err != nil {
		w.t.Fatal(err)
	}
	for open := []string{""}; len(open) > 0; sleep(ctx, 5*time.Millisecond) {
		offs, err := w.adm.FetchOffsets(ctx, groupName)
		if err != nil {
			w.t.Fatalf("waiting for %v: %v", open, err)
		}
		open = open[:0]
		ends.Each(func(end kadm.ListedOffset) {
			if at, ok := offs.Lookup(end.Topic, end.Partition); (ok || end.Offset > 0) && at.At != end.Offset || at.Metadata != "" {
				open = append(open, fmt.Sprintf("%s/%d at %d %q, end %d", end.Topic, end.Partition, at.At, at.Metadata, end.Offset))
			}
		})
	}
}
