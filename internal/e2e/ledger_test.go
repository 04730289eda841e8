package e2e

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/receiver"
)

// post is one request as its endpoint got it. Times count from the ledger's
// beginning.
type post struct {
	sub, seq, attempt int
	id                string
	status            int
	at                time.Duration // when it had been read
	answered          time.Duration // the answer was not written before this
}

// letter is a record of the topic dead.
type letter struct {
	sub, seq, attempts int
	id, reason         string
	at                 time.Duration // when it was produced, in whole milliseconds
}

// place is where Kafka has an acked event.
type place struct {
	partition int32
	offset    int64
}

// span is a time in which a process was killed: from just before the signal to
// when nothing of it can reach an endpoint any more.
type span struct{ from, until time.Duration }

// pair is an event and a subscription that takes it.
type pair struct{ sub, seq int }

// ledger is everything that was seen from outside.
type ledger struct {
	plan  *plan
	began time.Time

	mu       sync.Mutex
	posts    []post // in order of arrival
	letters  []letter
	acked    map[int]place
	settled  map[pair]bool
	done     []int // settled deliveries of each subscription
	kills    []span
	stray    []string // what nobody should have got, or in another form
	finished map[int]time.Duration

	changed chan struct{} // one waiter at a time
}

func newLedger(p *plan) *ledger {
	return &ledger{
		plan: p, began: time.Now(), acked: map[int]place{}, settled: map[pair]bool{}, done: make([]int, len(p.subs)),
		finished: map[int]time.Duration{}, changed: make(chan struct{}, 1),
	}
}

func (l *ledger) now() time.Duration { return time.Since(l.began) }

// answer is the endpoint of all subscriptions: it writes the request down, then
// says what to answer.
func (l *ledger) answer(r *receiver.Request) receiver.Reply {
	l.mu.Lock()
	defer l.mu.Unlock()
	sub, known := l.plan.byID[r.Subscription]
	p := post{sub: sub, seq: seqOf(r.Body), attempt: r.Attempt, id: r.DeliveryID, at: r.Time.Sub(l.began)}
	switch {
	case !known || r.Path != "/s/"+r.Subscription:
		l.stray = append(l.stray, fmt.Sprintf("%s for subscription %q", r.Path, r.Subscription))
		return receiver.Reply{Status: 500}
	case !l.plan.takes(sub, p.seq) || l.plan.body(p.seq) != r.Body:
		l.stray = append(l.stray, fmt.Sprintf("a body that is none of its events for %s: %.80q", r.Subscription, r.Body))
		return receiver.Reply{Status: 500}
	}
	reply := l.plan.subs[sub].answer(&p)
	if p.status = reply.Status; p.status == 0 {
		p.status = 200
	}
	p.answered = l.now() + reply.Delay
	l.posts = append(l.posts, p)
	if p.status < 300 {
		l.settle(pair{sub, p.seq})
	}
	l.tell()
	return reply
}

// settle notes that a pair has ended, once. The lock is held.
func (l *ledger) settle(k pair) {
	if l.settled[k] {
		return
	}
	l.settled[k] = true
	l.done[k.sub]++
	if l.done[k.sub] == l.plan.perSub[k.sub] {
		l.finished[k.sub] = l.now()
	}
}

func (l *ledger) tell() {
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// ack notes where Kafka has an event.
func (l *ledger) ack(seq int, r *kgo.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked[seq] = place{r.Partition, r.Offset}
}

// bury notes a dead letter, by the headers that users are told of.
func (l *ledger) bury(r *kgo.Record) {
	h := map[string]string{}
	for _, x := range r.Headers {
		h[x.Key] = string(x.Value)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	sub, known := l.plan.byID[string(r.Key)]
	seq := seqOf(string(r.Value))
	attempts, err := strconv.Atoi(h["hookline-attempts"])
	if !known || err != nil || !l.plan.takes(sub, seq) || h["hookline-subscription"] != string(r.Key) {
		l.stray = append(l.stray, fmt.Sprintf("dead letter %d/%d for %q: %v", r.Partition, r.Offset, r.Key, h))
		return
	}
	l.letters = append(l.letters, letter{
		sub: sub, seq: seq, attempts: attempts, id: h["webhook-id"], reason: h["hookline-reason"], at: r.Timestamp.Sub(l.began),
	})
	l.settle(pair{sub, seq})
	l.tell()
}

// readDead follows the topic dead until ctx ends.
func (l *ledger) readDead(ctx context.Context, cl *kgo.Client) {
	for ctx.Err() == nil {
		for r := range cl.PollFetches(ctx).RecordsAll() {
			l.bury(r)
		}
	}
}

// await returns when ok says so, which is called with the ledger locked, or
// tells how far it got.
func (l *ledger) await(ctx context.Context, what string, ok func() bool) error {
	for {
		l.mu.Lock()
		fine, posts, settled := ok(), len(l.posts), len(l.settled)
		l.mu.Unlock()
		if fine {
			return nil
		}
		select {
		case <-l.changed:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %d posts, %d of %d settled: %w; behind: %s",
				what, posts, settled, l.plan.expected, ctx.Err(), l.behind())
		}
	}
}

// behind lists some subscriptions that are not through.
func (l *ledger) behind() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	n := 0
	for i := range l.plan.subs {
		if l.done[i] < l.plan.perSub[i] {
			if n++; n <= 8 {
				fmt.Fprintf(&b, "%s (%s) %d/%d; ", l.plan.subs[i].id, l.plan.subs[i].kind, l.done[i], l.plan.perSub[i])
			}
		}
	}
	fmt.Fprintf(&b, "%d in all", n)
	return b.String()
}

// all tells whether every pair is settled. The lock is held.
func (l *ledger) all() bool { return len(l.settled) == l.plan.expected }

// kindDone tells whether the subscriptions of a kind are through. The lock is
// held.
func (l *ledger) kindDone(kind string) bool {
	for i := range l.plan.subs {
		if l.plan.subs[i].kind == kind && l.done[i] < l.plan.perSub[i] {
			return false
		}
	}
	return true
}

// count is the number of posts so far.
func (l *ledger) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posts)
}

// underWay counts the requests that were not answered at that moment.
func (l *ledger) underWay(at time.Duration) int {
	n := 0
	for i := range l.posts {
		if l.posts[i].at <= at && l.posts[i].answered > at {
			n++
		}
	}
	return n
}
