package e2e

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/receiver"
)

// maxAttempts that one delivery may have: the first and three retries.
const maxAttempts = 4

// behaviour is how a subscription's endpoint answers. It is called with the
// ledger locked.
type behaviour func(p *post) receiver.Reply

// subscriber is one subscription and its endpoint.
type subscriber struct {
	id       string
	kind     string // good, dead, slow, flaky, failing: for figures
	events   string // the type that it takes
	ordering string // empty: subscription
	answer   behaviour
}

// plan is the load of one test.
type plan struct {
	subs      []subscriber
	events    int
	typeOf    func(seq int) string
	takers    map[string][]int // type -> indexes into subs; made by complete
	delays    []time.Duration  // before retry 1, 2, 3
	padding   int              // bytes of each body that mean nothing
	expected  int              // pairs of event and subscription; made by complete
	byID      map[string]int
	perSub    []int // events that each subscription takes
	partition int   // of the event topic
}

// complete works out who takes what.
func (p *plan) complete() *plan {
	p.takers, p.byID, p.perSub = map[string][]int{}, map[string]int{}, make([]int, len(p.subs))
	for i := range p.subs {
		p.byID[p.subs[i].id] = i
		p.takers[p.subs[i].events] = append(p.takers[p.subs[i].events], i)
	}
	for seq := range p.events {
		takers := p.takers[p.typeOf(seq)]
		p.expected += len(takers)
		for _, i := range takers {
			p.perSub[i]++
		}
	}
	if p.partition == 0 {
		p.partition = 4
	}
	return p
}

func (p *plan) takes(sub, seq int) bool {
	return seq >= 0 && seq < p.events && p.subs[sub].events == p.typeOf(seq)
}

// entities that events are about.
const entities = 16

func entityOf(seq int) int { return (seq / 7) % entities }

// body is the event with this number, always the same bytes.
func (p *plan) body(seq int) string {
	return fmt.Sprintf(`{"seq":%d,"kind":%q,"tenant":"acme","entity":"e%d","pad":%q}`,
		seq, p.typeOf(seq), entityOf(seq), strings.Repeat("x", p.padding))
}

// seqOf reads the number out of a body; -1: it is none of ours.
func seqOf(body string) int {
	rest, ok := strings.CutPrefix(body, `{"seq":`)
	if !ok {
		return -1
	}
	digits, _, ok := strings.Cut(rest, ",")
	seq, err := strconv.Atoi(digits)
	if !ok || err != nil {
		return -1
	}
	return seq
}

// lane names the unit of order that a delivery belongs to.
func (p *plan) lane(sub, seq int) laneID {
	switch p.subs[sub].ordering {
	case "entity":
		return laneID{sub, entityOf(seq)}
	case "none":
		return laneID{sub, seq}
	}
	return laneID{sub, -1}
}

type laneID struct{ sub, part int }

// Ways to answer.

func good(*post) receiver.Reply { return receiver.Reply{} }

func dead(*post) receiver.Reply { return receiver.Reply{Status: 500} }

// slow answers after 200 to 500 ms.
func slow(p *post) receiver.Reply {
	return receiver.Reply{Delay: 200*time.Millisecond + time.Duration(dice(p.sub, p.seq, 0)%300)*time.Millisecond}
}

// lag answers after a few milliseconds, so that requests are under way at any
// moment.
func lag(ms int) behaviour {
	return func(*post) receiver.Reply { return receiver.Reply{Delay: time.Duration(ms) * time.Millisecond} }
}

// flaky fails the first attempt of percent of the deliveries, and the second of
// a third of those.
func flaky(percent, ms int) behaviour {
	return func(p *post) receiver.Reply {
		r := receiver.Reply{Delay: time.Duration(ms) * time.Millisecond}
		bad := dice(p.sub, p.seq, 1)%100 < percent
		if bad && (p.attempt == 1 || p.attempt == 2 && dice(p.sub, p.seq, 2)%3 == 0) {
			r.Status = 503
		}
		return r
	}
}

// failingUntil answers 503 until over says that it is over.
func failingUntil(over func() bool) behaviour {
	return func(*post) receiver.Reply {
		if over() {
			return receiver.Reply{}
		}
		return receiver.Reply{Status: 503}
	}
}

// dice is a number that depends on nothing but its arguments.
func dice(sub, seq, salt int) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%d/%d/%d", sub, seq, salt)
	return int(h.Sum32() >> 1)
}
