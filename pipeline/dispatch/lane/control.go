package lane

import (
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Skip ends the first delivery of every waiting lane of a subscription that is
// blocked or has a head in a retry topic: it goes to dead with reason skipped.
// It returns the number of lanes that this applies to. A delivery that is under
// way is not skipped.
func (t *Task) Skip(now time.Time, subscription string) int {
	t.now = now
	return t.eachStuck(subscription, func(l *lane) { t.endFirstAs(now, l, pipeline.DeadSkipped) })
}

// RetryNow sends the first delivery of every such lane at once. An exhausted
// one begins a new round of attempts.
func (t *Task) RetryNow(now time.Time, subscription string) int {
	t.now = now
	return t.eachStuck(subscription, func(l *lane) {
		if l.head != nil {
			l.head.isDue, l.head.notBefore = true, time.Time{} // as soon as it has been read back
		} else if len(l.parked) > 0 {
			var p entry
			l.firstParked(&p)
			if l.blocked {
				p.attempts, p.round = 0, p.round+1
				l.fresh = now
			}
			l.blocked = false
			l.mark(&p, time.Time{})
			t.markDirty(l)
		}
		t.advance(l, now)
	})
}

func (t *Task) eachStuck(subscription string, do func(*lane)) int {
	n := 0
	s := t.bySub[subscription]
	t.eachLane(func(l *lane) {
		if l.sub == s && l.stage == stageIdle && !l.moving && (l.blocked || l.head != nil ||
			(len(l.parked) > 0 && l.first != nil && l.first.Origin == l.parked[0].origin && l.first.Attempts > 0)) {
			do(l)
			n++
		}
	})
	return n
}

// endFirstAs ends a lane's first delivery without a further try.
func (t *Task) endFirstAs(now time.Time, l *lane, reason pipeline.DeadReason) {
	l.endAs = reason
	t.advance(l, now)
}
