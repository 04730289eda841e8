package router

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// stableEvery is how often it is asked whether the group's offsets are stable.
	stableEvery = time.Second
	// unstableLimit is for how long an offset may wait for the same transaction:
	// Kafka itself ends one after transactionTimeout, and looks every 10 s
	// (transaction.abort.timed.out.transaction.cleanup.interval.ms).
	unstableLimit = transactionTimeout + 15*time.Second
	// mendTimeout bounds the attempt to end one hanging transaction.
	mendTimeout = 20 * time.Second
	// stableSlack: a transaction begins at most so long before its offsets wait
	// for it, since it ends after the interval or when it is full.
	stableSlack = 5 * time.Second
)

// errUnstable ends a session whose group's offsets stay unstable.
var errUnstable = errors.New("committed offsets wait for a transaction that does not end")

// stability is what is known of the group's committed offsets. Where one stays
// unstable nobody can take up its partition: the client waits without a word.
//
// watchStable and mend write it; Stuck reads it from any goroutine.
type stability struct {
	mu      sync.Mutex
	stuck   kafkax.Standstill
	last    time.Time // when all were stable last; zero: not seen yet
	next    time.Time // when a mend may be tried (again)
	tries   int       // mends since the offsets were stable
	due     bool      // the next session begins with a mend
	explain string    // why the router is not ready; "": it is
}

// Stuck says why the router cannot go on, or "" where nothing is known to be in
// its way. Safe for concurrent use.
func (r *Router) Stuck() string {
	r.stable.mu.Lock()
	defer r.stable.mu.Unlock()
	return r.stable.explain
}

// watchStable asks until ctx ends; it calls giveUp when offsets have been unstable
// for too long.
func (r *Router) watchStable(ctx context.Context, aux *kgo.Client, giveUp func()) {
	fet := kafkax.NewFetcher(aux)
	tick := time.NewTicker(min(stableEvery, r.unstableLimit/4))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		actx, cancel := context.WithTimeout(ctx, 5*time.Second)
		unstable, err := fet.Unstable(actx, r.kafka.RouterGroup())
		cancel()
		if err != nil {
			if ctx.Err() == nil {
				r.log.Debug("asking whether the offsets are stable", "error", err)
			}
			unstable = nil
		}
		if attrs := r.stable.note(time.Now(), unstable, err == nil, r.unstableLimit); attrs != nil {
			r.log.Warn("committed offsets wait for a transaction that does not end; aborting what hangs of it, then routing from them again",
				append(attrs, "group", r.kafka.RouterGroup(), "remedy", "if it stays so: kafka-transactions.sh find-hanging, and abort what it finds in __consumer_offsets")...)
			giveUp()
			return
		}
	}
}

// note takes an answer. It gives what is to be said when a mend is due.
func (s *stability) note(now time.Time, unstable map[kafkax.TopicPartition]int64, answered bool, limit time.Duration) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	where, since := s.stuck.Note(now, unstable, limit)
	if !answered {
		return nil // and what waits counts from the next answer on
	}
	if len(unstable) == 0 {
		s.last, s.tries, s.explain = now, 0, ""
		return nil
	}
	if len(where) == 0 {
		return nil
	}
	s.explain = fmt.Sprintf("committed offsets wait since %s for a transaction that does not end: %s", since.UTC().Format(time.RFC3339), strings.Join(where, " "))
	if now.Before(s.next) {
		return nil
	}
	s.next, s.due = now.Add(limit), true
	return []any{"partitions", strings.Join(where, " "), "since", since}
}

// take tells whether a mend is due, how many there were before it, and when the
// offsets were stable last.
func (s *stability) take() (due bool, before int, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	due, before = s.due, s.tries
	if due {
		s.due = false
		s.tries++
	}
	return due, before, s.last
}

// mend aborts, where it is due, what hangs in the group's offsets: first what this
// router's own transactional id left, then, where that did not help, what any
// other of the group's did, such as that of a process that is gone. A router that
// lives and is fenced by it makes a new session.
//
// The records of the same transaction are aborted with its offsets, and its events
// are routed again. Of records only those count that were written after the offsets
// had been stable: others may belong to an earlier transaction that committed.
func (r *Router) mend(ctx context.Context, aux *kgo.Client) {
	due, before, last := r.stable.take()
	if !due {
		return
	}
	ids := []string{r.txnID}
	if before > 0 {
		lctx, cancel := context.WithTimeout(ctx, mendTimeout)
		listed, err := r.transactions(lctx, aux)
		cancel()
		if err != nil {
			r.log.Warn("listing the group's transactions failed", "error", err)
		}
		for _, id := range listed.TransactionalIDs() {
			if id != r.txnID {
				ids = append(ids, id)
			}
		}
	}
	if !last.IsZero() {
		last = last.Add(-stableSlack)
	}
	for _, id := range ids {
		h := kafkax.Hanging{TxnID: id, Group: r.kafka.RouterGroup(), Topics: []string{r.deliveries, r.eventsDead}, Since: last}
		if err := r.abortHanging(ctx, h); err != nil {
			r.log.Warn("aborting a hanging transaction failed", "error", err)
		}
	}
}

func (r *Router) abortHanging(ctx context.Context, h kafkax.Hanging) error {
	ctx, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	cl, err := r.transactional(h.TxnID)
	if err != nil {
		return err
	}
	defer cl.Close()
	return kafkax.AbortHanging(ctx, cl, h)
}
