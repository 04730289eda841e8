package e2e

import (
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// pen writes a ledger by hand: one subscription, events 0 to 9, retry after 100 ms.
type pen struct{ *ledger }

func newPen(ordering string) pen {
	p := &plan{
		subs:   []subscriber{{id: "s", events: "t", kind: "good", ordering: ordering}},
		events: 10, typeOf: func(int) string { return "t" }, delays: []time.Duration{100 * ms, 100 * ms, 100 * ms},
	}
	l := newLedger(p.complete())
	for seq := range 3 {
		l.acked[seq] = place{0, int64(seq)}
	}
	return pen{l}
}

// post is answered 10 ms after it came.
func (p pen) post(seq, attempt, status, at int) pen {
	p.posts = append(p.posts, post{
		seq: seq, attempt: attempt, id: string(rune('a' + seq)), status: status,
		at: time.Duration(at) * ms, answered: time.Duration(at+10) * ms,
	})
	return p
}

func (p pen) letter(seq, at int) pen {
	p.letters = append(p.letters, letter{seq: seq, attempts: 4, id: string(rune('a' + seq)), reason: "exhausted", at: time.Duration(at) * ms})
	return p
}

func (p pen) kill(from, until int) pen {
	p.kills = append(p.kills, span{time.Duration(from) * ms, time.Duration(until) * ms})
	return p
}

// rest succeeds what is not part of a case.
func (p pen) rest(from, at int) pen {
	for seq := from; seq < 3; seq++ {
		p.post(seq, 1, 200, at+20*(seq-from))
	}
	return p
}

// TestChecker: each fault that a ledger can show is found, and only that.
func TestChecker(t *testing.T) {
	fails := func(p pen) pen {
		return p.post(0, 1, 500, 0).post(0, 2, 500, 120).post(0, 3, 500, 240).post(0, 4, 500, 360)
	}
	for _, tt := range []struct {
		name   string
		ledger pen
		want   string // what is found; empty: nothing
	}{
		{"good", newPen("").rest(0, 0), ""},
		{"retried", newPen("").post(0, 1, 500, 0).post(0, 2, 200, 110).rest(1, 130), ""},
		{"dead", fails(newPen("")).letter(0, 371).rest(1, 380), ""},
		{"lost without a request", newPen("").post(0, 1, 200, 0).post(2, 1, 200, 20), "lost"},
		{"lost after four attempts", fails(newPen("")).rest(1, 380), "lost"},
		{"overtaken", newPen("").post(0, 1, 500, 0).rest(1, 20).post(0, 2, 200, 120), "overtook"},
		{"overtaken, but another lane", newPen("none").post(0, 1, 500, 0).rest(1, 20).post(0, 2, 200, 120), ""},
		{"source order", newPen("").post(1, 1, 200, 0).post(0, 1, 200, 20).rest(2, 40), "came after offset"},
		{"two at once", newPen("").post(0, 1, 200, 0).rest(1, 5), "was answered"},
		{"before it was dead", fails(newPen("")).letter(0, 400).rest(1, 380), "was dead"},
		{"too early", newPen("").post(0, 1, 500, 0).post(0, 2, 200, 109).rest(1, 130), "after the failure"},
		{"left out", newPen("").post(0, 1, 500, 0).post(0, 3, 200, 300).rest(1, 330), "follows attempt 1"},
		{"begun late", newPen("").post(0, 2, 200, 0).rest(1, 20), "first that came"},
		{"sent after success", newPen("").post(0, 1, 200, 0).post(0, 2, 200, 120).rest(1, 140), "follows attempt 1"},
		{"sent twice", newPen("").post(0, 1, 200, 0).post(0, 1, 200, 20).rest(1, 40), "unexplained"},
		{"under way at a kill", newPen("").post(0, 1, 200, 0).kill(5, 50).post(0, 1, 200, 60).rest(1, 80), "repeat"},
		{"not yet committed at a kill", newPen("").post(0, 1, 200, 0).kill(30, 50).post(0, 1, 200, 60).rest(1, 80), "repeat"},
		{"committed before a kill", newPen("").post(0, 1, 200, 0).kill(900, 950).post(0, 1, 200, 960).rest(1, 980), "unexplained"},
		{"dead twice", fails(newPen("")).letter(0, 371).letter(0, 372).rest(1, 380), "2 dead letters"},
		{"dead too soon", newPen("").post(0, 1, 500, 0).letter(0, 11).rest(1, 380), "after 1 attempts"},
		{"dead though it succeeded", newPen("").rest(0, 0).letter(2, 100), "succeeded and is dead"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := check(tt.ledger.ledger, func(_ int, k span) time.Duration { return k.from - 100*ms })
			found := append(append(append(append([]string{}, v.lost...), v.order...), v.attempts...), v.strangers...)
			for range v.repeats {
				found = append(found, "repeat")
			}
			for _, u := range v.unexplained {
				found = append(found, "unexplained: "+u)
			}
			if all := strings.Join(found, "\n"); tt.want == "" && all != "" || !strings.Contains(all, tt.want) && !(tt.want == "lost" && len(v.lost) > 0) {
				t.Errorf("found:\n%s\nwant %q", all, tt.want)
			}
		})
	}
}
