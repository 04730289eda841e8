package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/hookline/hookline/internal/proof"
)

const (
	// takeoverPatience is how long a process stays frozen at most until others have
	// worked in a partition of its. It stays below the 7 s that hookline gives a
	// transaction, and the 10 s after which Kafka ends it and fences its producer:
	// what keeps it from committing is to be the group alone.
	takeoverPatience = 6500 * time.Millisecond
	// takeoverWork is how long others work in its partitions before it goes on:
	// many transactions of 50 ms.
	takeoverWork = time.Second
	// zombieAlone is how long it is alone then: its first commit takes some
	// milliseconds, the answer that it is out as much.
	zombieAlone = 300 * time.Millisecond
	// freezeTries is how often a process is frozen until it is between two
	// transactions; under load there is none for a half of the time or more.
	freezeTries = 60
	// settledBy is how long what it had sent before may be on its way to Kafka.
	settledBy = 30 * time.Millisecond
)

// beginZombie freezes a process between two transactions until others have worked
// in its partitions, kills all others, and has it go on. Kafka's group is the only
// thing then that keeps it from committing what it holds: it has no open
// transaction, for whose end others would have waited before they took its
// partitions; and nobody is there to commit something newer over it, so that who
// takes the partitions next begins with what it has written.
func (r *runner) beginZombie(rng *rand.Rand) func(context.Context) {
	if !r.zombieLock.TryLock() {
		return nil
	}
	s := r.victim(rng)
	if s == nil {
		r.zombieLock.Unlock()
		return nil
	}
	mine := r.served.by(s.life, time.Now().Add(-time.Second))
	if len(mine) == 0 { // it has nothing that others could take
		s.Unlock()
		r.zombieLock.Unlock()
		return nil
	}
	return func(ctx context.Context) {
		defer r.zombieLock.Unlock()
		defer s.Unlock()
		from, between := r.freezeBetween(ctx, s)
		r.fault(proof.Paused, s, from, fmt.Sprintf("between two transactions: %v; had partitions %v", between, mine))
		taken := r.awaitTakeover(ctx, mine, s.life)
		var others []*slot
		if taken {
			others = r.killOthers(s)
		}
		from = r.now()
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		r.fault(proof.Resumed, s, from, fmt.Sprintf("others worked in its partitions: %v; killed: %d", taken, len(others)))
		wait(ctx, zombieAlone)
		for _, o := range others {
			o.again()
		}
	}
}

// freezeBetween freezes a process while it has no transaction open, as far as that
// can be known: with instance ids the name of its transactions is. It gives the
// moment.
func (r *runner) freezeBetween(ctx context.Context, s *slot) (from time.Duration, between bool) {
	adm := kadm.NewClient(r.client)
	id := r.vars["GROUP"] + ".dispatcher." + s.name
	for try := 0; ; try++ {
		from = r.now()
		_ = s.cmd.Process.Signal(syscall.SIGSTOP) // a process that has ended is not frozen, and does no harm
		if !r.o.static {
			return from, false
		}
		wait(ctx, settledBy)
		dctx, cancel := context.WithTimeout(ctx, takeoverWork) // the broker may be away
		txns, err := adm.DescribeTransactions(dctx, id)
		cancel()
		if state := txns[id].State; err == nil && (state == "Empty" || strings.HasPrefix(state, "Complete")) {
			return from, true
		}
		if try >= freezeTries || ctx.Err() != nil {
			return from, false
		}
		_ = s.cmd.Process.Signal(syscall.SIGCONT)
		wait(ctx, time.Duration(3+7*(try%5))*time.Millisecond)
	}
}

// awaitTakeover returns when another life than this has worked in one of the
// partitions for some time, or takes too long.
func (r *runner) awaitTakeover(ctx context.Context, partitions []int32, life int) bool {
	deadline := time.Now().Add(takeoverPatience - takeoverWork)
	for time.Now().Before(deadline) && ctx.Err() == nil {
		if r.served.another(partitions, life) {
			wait(ctx, takeoverWork)
			return true
		}
		wait(ctx, 20*time.Millisecond)
	}
	return false
}

// killOthers kills every process but s that nobody is at, and returns them locked.
func (r *runner) killOthers(s *slot) []*slot {
	var others []*slot
	for _, o := range r.slots {
		if o == s || !o.TryLock() {
			continue
		}
		if !o.running() || o.extra {
			o.Unlock()
			continue
		}
		others = append(others, o)
	}
	var ends sync.WaitGroup
	for _, o := range others {
		ends.Go(o.kill)
	}
	ends.Wait()
	return others
}

// served knows who made the newest request in each partition of deliveries.
type served struct {
	mu   sync.Mutex
	life [partitions]int       // under mu
	at   [partitions]time.Time // under mu
}

func (v *served) note(partition int32, life int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.life[partition], v.at[partition] = life, time.Now()
}

// by gives the partitions in which a life made the newest request, after a moment.
func (v *served) by(life int, after time.Time) []int32 {
	v.mu.Lock()
	defer v.mu.Unlock()
	var list []int32
	for p := range v.life {
		if v.life[p] == life && v.at[p].After(after) {
			list = append(list, int32(p))
		}
	}
	return list
}

// another tells whether another life made the newest request in one of them.
func (v *served) another(partitions []int32, than int) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range partitions {
		if v.life[p] != than {
			return true
		}
	}
	return false
}
