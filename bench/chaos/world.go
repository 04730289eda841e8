package main

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hookline/hookline/internal/proof"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	partitions     = 12 // of deliveries: more than processes, so that each has some
	sources        = 4  // partitions of the event topic
	types          = 6
	entities       = 16
	sessionTimeout = 3 * time.Second
	requestTimeout = 5 * time.Second
)

// delays differ, so that a wrong one is told from a late one.
var delays = []time.Duration{500 * time.Millisecond, 700 * time.Millisecond, 900 * time.Millisecond}

// How often events of the rare types come: their endpoints fail for good, or
// are slow, and must not fall behind by more than they can make up.
const (
	rareEvery     = 60
	veryRareEvery = 1000
)

// world is who subscribes to what, and how the endpoints behave now.
type world struct {
	subs   []proof.Sub
	byID   map[string]int
	takers map[string]int // type -> number of takers

	mu    sync.Mutex
	modes []mode // of each subscription; under mu
	docs  []doc  // what was applied last; under mu
}

// mode is how an endpoint behaves for a while.
type mode struct {
	until   time.Time
	percent int           // of requests that are answered 503
	delay   time.Duration // besides its own
	after   string        // Retry-After of those; empty: none
}

// doc is what changes of a subscription.
type doc struct {
	revision int // of its URL
	paused   bool
}

func newWorld(perType int) *world {
	w := &world{byID: map[string]int{}, takers: map[string]int{}}
	add := func(kind, typ, ordering string) {
		id := fmt.Sprintf("%s-%s-%d", kind, typ, len(w.subs))
		w.byID[id] = len(w.subs)
		w.takers[typ]++
		w.subs = append(w.subs, proof.Sub{ID: id, Kind: kind, Type: typ, Ordering: ordering, Part: kafkax.Partition(id, partitions)})
	}
	for t := range types {
		typ := fmt.Sprintf("t%d", t)
		for i := range perType {
			kind, ordering := "good", "subscription"
			switch i % 10 {
			case 3, 6:
				ordering = "entity"
			case 7:
				ordering = "none"
			}
			if i%5 == 4 {
				kind = "flaky"
			}
			add(kind, typ, ordering)
		}
	}
	add("dead", "rare", "none")
	add("dead", "rare", "none")
	add("slow", "rare", "entity")
	add("good", "rare", "subscription")
	add("dead", "veryrare", "subscription")
	add("slow", "veryrare", "subscription")
	w.modes, w.docs = make([]mode, len(w.subs)), make([]doc, len(w.subs))
	return w
}

func typeOf(seq int) string {
	switch {
	case seq%veryRareEvery == 1:
		return "veryrare"
	case seq%rareEvery == 1:
		return "rare"
	}
	return "t" + strconv.Itoa(seq%types)
}

func entityOf(seq int) string { return "e" + strconv.Itoa((seq/7)%entities) }

// appendBody makes the event with this number: always the same bytes.
func appendBody(b []byte, seq int) []byte {
	b = strconv.AppendInt(append(b, `{"seq":`...), int64(seq), 10)
	b = append(append(append(b, `,"kind":"`...), typeOf(seq)...), `","entity":"`...)
	b = append(append(append(b, entityOf(seq)...), `","pad":"`...), padding[:seq%len(padding)]...)
	return append(b, `"}`...)
}

var padding = strings.Repeat("x", 300)

// seqOf reads the number out of a body; 0: it is none of ours.
func seqOf(body string) int {
	rest, _ := strings.CutPrefix(body, `{"seq":`)
	digits, _, _ := strings.Cut(rest, ",")
	seq, err := strconv.Atoi(digits)
	if err != nil || seq < 1 {
		return 0
	}
	return seq
}

// answer says how the endpoint of a subscription answers; after is a Retry-After.
func (w *world) answer(sub, seq, attempt int, now time.Time) (status int, delay time.Duration, after string) {
	w.mu.Lock()
	m := w.modes[sub]
	w.mu.Unlock()
	roll := dice(sub, seq, attempt)
	status, delay = 200, time.Duration(roll%5)*time.Millisecond
	switch w.subs[sub].Kind {
	case "dead":
		return 500, 0, ""
	case "slow":
		delay = 200*time.Millisecond + time.Duration(roll%300)*time.Millisecond
	case "flaky":
		if bad := dice(sub, seq, 0)%100 < 2; bad && (attempt == 1 || attempt == 2 && roll%3 == 0) {
			status = 503
		}
	}
	if now.Before(m.until) {
		delay += m.delay
		if roll/100%100 < m.percent {
			status, after = 503, m.after
			if after != "" && roll%2 == 0 {
				status = 429
			}
		}
	}
	return status, delay, after
}

// set changes how endpoints behave until a time.
func (w *world) set(subs []int, m mode) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range subs {
		w.modes[i] = m
	}
}

// heal ends all modes.
func (w *world) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.modes)
}

// documents is the configuration of some subscriptions as people would write it.
func (w *world) documents(url string, subs []int) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []map[string]any
	for _, i := range subs {
		s, state := &w.subs[i], "active"
		if w.docs[i].paused {
			state = "paused"
		}
		list = append(list, map[string]any{
			"id": s.ID, "tenant": "*", "url": fmt.Sprintf("%s/s/%s/%d", url, s.ID, w.docs[i].revision), "events": []string{s.Type},
			"ordering": s.Ordering, "state": state, "auth": map[string]any{"bearer": map[string]any{"secret_ref": "env:" + lifeVar}},
		})
	}
	text, err := json.Marshal(map[string]any{"subscriptions": list})
	if err != nil {
		panic("BUG: encoding subscriptions: " + err.Error())
	}
	return string(text)
}

// dice is a number that depends on nothing but its arguments.
func dice(sub, seq, salt int) int {
	h := fnv.New32a()
	var b [24]byte
	for i, n := range [3]int{sub, seq, salt} {
		for j := range 8 {
			b[8*i+j] = byte(n >> (8 * j))
		}
	}
	_, _ = h.Write(b[:])
	return int(h.Sum32() >> 1)
}
