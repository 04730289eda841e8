package dispatch

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// stableEvery is how often it is asked what waits for transactions.
	stableEvery = 5 * time.Second
	// abortSlack is what Kafka may take to end a transaction that is over its time:
	// it looks every 10 s (transaction.abort.timed.out.transaction.cleanup.interval.ms).
	abortSlack = 15 * time.Second
	// unstableLimit is for how long a committed offset may wait for the same
	// transaction.
	unstableLimit = transactionTimeout + abortSlack
	// heldLimit is the same for records: the longest transactions among those that
	// write them are a replay's, of 20 s.
	heldLimit = 20*time.Second + abortSlack
	// suspectAfter is when it is looked whether what waits is this process's own.
	suspectAfter = 4 * time.Second
)

// stability is what is known of transactions that do not end: a broker that comes
// back can have lost the end of one, and then nothing ends it. What waits for it
// waits for ever, in the client, without a word.
//
// watchStable and the recoveries write it; Stuck reads it from any goroutine.
type stability struct {
	offsets, records waiting // watchStable's own, but for explain
	early            kafkax.Standstill
	nextSuspect      time.Time

	mu   sync.Mutex
	slow map[int32]slowRecovery // under mu: recoveries that took longer than patience
}

// waiting is one kind of what can wait.
type waiting struct {
	still   kafkax.Standstill
	next    time.Time // when it is told again
	explain string    // under stability.mu; "": nothing waits for too long
}

type slowRecovery struct {
	since time.Time
	step  string
}

// Stuck says which partitions cannot go on, and why, or "" where nothing is known
// to be in the way. Safe for concurrent use.
func (d *Dispatcher) Stuck() string {
	s := &d.stable
	s.mu.Lock()
	defer s.mu.Unlock()
	var why []string
	for _, text := range []string{s.offsets.explain, s.records.explain} {
		if text != "" {
			why = append(why, text)
		}
	}
	first, many := int32(-1), 0
	for p, r := range s.slow {
		if many++; first < 0 || r.since.Before(s.slow[first].since) {
			first = p
		}
	}
	if many > 0 {
		r := s.slow[first]
		text := fmt.Sprintf("partition %d has been recovering since %s: %s", first, r.since.UTC().Format(time.RFC3339), r.step)
		if many > 1 {
			text += fmt.Sprintf(" (and %d more)", many-1)
		}
		why = append(why, text)
	}
	return strings.Join(why, "; ")
}

// recoveringSlowly notes that a recovery takes long, or with an empty step that it
// has ended.
func (s *stability) recoveringSlowly(p int32, since time.Time, step string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if step == "" {
		delete(s.slow, p)
		return
	}
	if s.slow == nil {
		s.slow = map[int32]slowRecovery{}
	}
	s.slow[p] = slowRecovery{since, step}
}

// watchStable asks until ctx or the loop ends what waits for transactions, and
// tells of what waits for too long.
func (d *Dispatcher) watchStable(ctx context.Context) {
	every := min(stableEvery, d.unstableLimit/4)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.loopDone:
			return
		case <-tick.C:
		}
		lctx, cancel := context.WithTimeout(ctx, stableEvery)
		d.lookForHanging(lctx)
		cancel()
		next := every
		if d.Stuck() != "" {
			next = min(every, time.Second) // that it is over shows soon
		}
		tick.Reset(next)
	}
}

func (d *Dispatcher) lookForHanging(ctx context.Context) {
	unstable, err := d.fetcher.Unstable(ctx, d.group)
	if where, since := d.note(&d.stable.offsets, unstable, err, d.unstableLimit, "committed offsets"); where != "" {
		d.log.Warn("committed offsets wait for a transaction that does not end: their partitions cannot be recovered, and where this process wrote it nothing commits",
			"group", d.group, "partitions", where, "since", since,
			"remedy", "if it stays so: kafka-transactions.sh find-hanging, and abort what it finds in __consumer_offsets")
	}
	// What is read of what transactions write, and dead, which others read.
	held, err := d.fetcher.Held(ctx, append(d.topics.TaskTopics(), d.topics.Dead())...)
	if where, since := d.note(&d.stable.records, held, err, d.heldLimit, "records"); where != "" {
		d.log.Warn("records wait for a transaction that does not end: nothing behind it is delivered or recovered",
			"group", d.group, "partitions", where, "since", since,
			"remedy", "if it stays so: kafka-transactions.sh find-hanging; to abort there what had been committed loses it")
	}
	d.suspectOurs(unstable, held)
}

// suspectOurs has the transactor look for its own part in what waits, before that
// waits for long.
func (d *Dispatcher) suspectOurs(offsets, held map[kafkax.TopicPartition]int64) {
	all, now := map[kafkax.TopicPartition]int64{}, time.Now()
	maps.Copy(all, held)
	maps.Copy(all, offsets) // of other topics, nearly
	if list, _ := d.stable.early.Note(now, all, suspectAfter); len(list) > 0 && now.After(d.stable.nextSuspect) {
		d.stable.nextSuspect = now.Add(d.heldLimit)
		d.suspect.Store(true)
	}
}

// note takes an answer in, and gives what is to be told now.
func (d *Dispatcher) note(w *waiting, found map[kafkax.TopicPartition]int64, err error, limit time.Duration, what string) (string, time.Time) {
	now := time.Now()
	if err != nil {
		w.still.Note(now, nil, limit) // what waits counts from the next answer on
		d.log.Debug("asking what waits for transactions", "err", err)
		return "", now
	}
	list, since := w.still.Note(now, found, limit)
	where, explain := strings.Join(list, " "), ""
	if where != "" {
		explain = fmt.Sprintf("%s wait since %s for a transaction that does not end: %s", what, since.UTC().Format(time.RFC3339), where)
	}
	d.stable.mu.Lock()
	w.explain = explain
	d.stable.mu.Unlock()
	if where == "" {
		w.next = time.Time{}
		return "", since
	}
	if now.Before(w.next) {
		return "", since
	}
	w.next = now.Add(limit)
	return where, since
}
