// Package proof judges hookline by what was seen from outside: what the
// producer was told, what the endpoints got and answered, what Kafka's topics
// say, which rows ClickHouse has, and what was done to the processes. It
// believes no count of hookline's own.
//
// A run writes these down in a folder (Journal), as JSON lines; Load reads them,
// Check gives the Verdict.
//
// Who sent a request is known: each life of a process (from its start to its
// end) sends a bearer token of its own. So a delivery that came twice is excused
// only if the very life that had sent it was killed or lost its session before
// the outcome was surely committed.
package proof

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
)

// MaxAttempts that one delivery may have: the first and three retries.
const MaxAttempts = 4

// Plan is what stood fixed when the run began.
type Plan struct {
	Began      time.Time       `json:"began"` // all other times count from here
	Seed       uint64          `json:"seed"`
	Command    string          `json:"command"` // that repeats the run
	Subs       []Sub           `json:"subs"`
	Delays     []time.Duration `json:"delays_ns"` // before retry 1, 2, 3
	Session    time.Duration   `json:"session_ns"`
	Timeout    time.Duration   `json:"request_timeout_ns"`
	Partitions int32           `json:"partitions"` // of deliveries
}

// Sub is a subscription. It takes every event of its type.
type Sub struct {
	ID       string `json:"id"`
	Kind     string `json:"kind"` // how its endpoint behaves: for figures
	Type     string `json:"type"`
	Ordering string `json:"ordering"`  // subscription, entity, none
	Part     int32  `json:"partition"` // of deliveries
}

// Event is one that Kafka has acknowledged.
type Event struct {
	Seq       int           `json:"seq"`
	Type      string        `json:"type"`
	Entity    string        `json:"entity"`
	Partition int32         `json:"p"`
	Offset    int64         `json:"o"`
	At        time.Duration `json:"at"` // acknowledged
}

// Post is one request as its endpoint got it.
type Post struct {
	N        int    `json:"n"` // in order of arrival, from 1
	Sub      int    `json:"sub"`
	Seq      int    `json:"seq"`
	Attempt  int    `json:"try"`
	Life     int    `json:"life"`
	ID       string `json:"id"` // webhook-id
	Status   int    `json:"status"`
	Revision int    `json:"rev,omitempty"` // of the subscription's URL
	// RetryAfter is what the answer asked to wait for, as its header said it.
	RetryAfter time.Duration `json:"retry_after_ns,omitempty"`
	At         time.Duration `json:"at"`    // when it had been read
	Until      time.Duration `json:"until"` // the answer was not written before this
	Replied    time.Duration `json:"-"`     // when the answer was handed over; 0: never
}

// OK tells whether it was answered with success.
func (p *Post) OK() bool { return p.Status < 300 }

// end is when the answer left, as far as is known.
func (p *Post) end() time.Duration { return max(p.Until, p.Replied) }

// Reply notes that a Post was answered.
type Reply struct {
	N  int           `json:"n"`
	At time.Duration `json:"at"`
}

// Letter is a record of the topic dead.
type Letter struct {
	Sub      int           `json:"sub"`
	Seq      int           `json:"seq"`
	Attempts int           `json:"attempts"`
	ID       string        `json:"id"`
	Reason   string        `json:"reason"`
	At       time.Duration `json:"at"` // produced, in whole milliseconds
}

// Commit is a record #d of lanes: one is part of each transaction of a task.
type Commit struct {
	Partition int32         `json:"p"`
	Producer  string        `json:"producer"` // id and epoch
	At        time.Duration `json:"at"`       // produced, in whole milliseconds
}

// Absence is a time in which a subscription was deleted: from a command that
// deleted it to one that made it anew.
type Absence struct {
	Sub  int           `json:"sub"`
	From time.Duration `json:"from"` // the first command began
	Gone time.Duration `json:"gone"` // and had returned
	Back time.Duration `json:"back"` // the second began
	To   time.Duration `json:"to"`   // and had returned
}

// Sample is what a process holds at a moment.
type Sample struct {
	Life       int           `json:"life"`
	At         time.Duration `json:"at"`
	Healed     bool          `json:"healed"` // all is mended and delivered; else: under load, before the first fault
	Files      int           `json:"files"`  // descriptors
	Goroutines int           `json:"goroutines"`
	RSSBytes   int64         `json:"rss_bytes"`
}

// Row is a row of attempts in ClickHouse.
type Row struct {
	AttemptID  string
	DeliveryID string
	Attempt    int
	Outcome    string
	Written    bool // the request was
	Resends    int
}

// What happened to a process, or to something that it needs.
const (
	Started  = "started"
	Killed   = "killed"  // SIGKILL
	Paused   = "paused"  // SIGSTOP
	Resumed  = "resumed" // SIGCONT
	Told     = "told"    // SIGTERM
	Exited   = "exited"
	Lost     = "lost" // a process noticed that its session was lost
	Broker   = "broker"
	Engine   = "engine"
	Endpoint = "endpoint"
	Update   = "update"
	Delete   = "delete"
)

// Fault is something that was done, or that happened.
type Fault struct {
	Kind string        `json:"kind"`
	Life int           `json:"life,omitempty"` // 0: not of a process
	Name string        `json:"name,omitempty"` // of the process: it is the same in all its lives
	From time.Duration `json:"from"`
	To   time.Duration `json:"to"` // when it was done
	Note string        `json:"note,omitempty"`
	Code int           `json:"code,omitempty"` // Exited
	Subs []int         `json:"subs,omitempty"` // Endpoint: whose
}

// Busy is how late timers were in one part of the run: the machine had so much
// to do.
type Busy struct {
	At   time.Duration `json:"at"`
	Late time.Duration `json:"late"`
}

// Ledger is everything that was seen.
type Ledger struct {
	Plan    Plan
	Events  map[int]*Event
	Posts   []*Post // by arrival
	Letters []*Letter
	Commits []*Commit
	Rows    []Row // nil: there was no ClickHouse
	HasRows bool
	Faults  []*Fault
	Busy    []Busy
	Strays  []string // what no endpoint should have got
	Absent  []*Absence
	Samples []Sample
}

// laneID names a unit of order.
type laneID struct {
	sub  int
	part string
}

func (l *Ledger) lane(p *Post) laneID {
	switch l.Plan.Subs[p.Sub].Ordering {
	case "entity":
		if e := l.Events[p.Seq]; e != nil {
			return laneID{p.Sub, e.Entity}
		}
	case "none":
		return laneID{p.Sub, fmt.Sprint(p.Seq)}
	}
	return laneID{p.Sub, ""}
}

// pair is an event and a subscription that takes it.
type pair struct{ sub, seq int }

// breach is a time from which what a life did may not count any more: it was
// killed, or frozen for so long that its session ended, or lost it otherwise.
type breach struct {
	kind        string
	from, until time.Duration
}

// brokerAway tells whether a broker was away between two moments, or had just
// come back.
func (l *Ledger) brokerAway(from, to time.Duration) bool { return l.awaySince(from, to) <= to }

// awaySince is from when on a broker was away that was so between two moments;
// after to, if none was.
func (l *Ledger) awaySince(from, to time.Duration) time.Duration {
	since := to + 1
	for _, f := range l.Faults {
		if f.Kind == Broker && f.From <= to && f.To+l.Plan.Session >= from {
			since = min(since, f.From)
		}
	}
	return since
}

const (
	// echo is how long after a process has stopped sending a request of its may
	// still be read out of the kernel's buffers. One that was killed sends nothing,
	// however late its receiver gets the processor to read what it had sent.
	echo    = 400 * time.Millisecond
	forever = time.Duration(math.MaxInt64 / 2) // something can be added to it
	// noticed is how late after it woke a process may have noticed that its
	// session was lost.
	noticed = 6 * time.Second
)

// breaches of each life, in order.
func (l *Ledger) breaches() map[int][]breach {
	out := map[int][]breach{}
	paused, told := map[int]*Fault{}, map[int]*Fault{}
	for _, f := range l.Faults {
		switch f.Kind {
		case Told:
			told[f.Life] = f
		case Exited:
			// What a stop could not commit, since Kafka was away, is decided by
			// whoever comes next, as after a crash.
			if t := told[f.Life]; t != nil && l.brokerAway(t.From, f.From) {
				out[f.Life] = append(out[f.Life], breach{Told, l.awaySince(t.From, f.From), f.From + echo})
			}
		case Killed:
			out[f.Life] = append(out[f.Life], breach{Killed, f.From, forever})
			if p := paused[f.Life]; p != nil { // killed while frozen
				out[f.Life] = append(out[f.Life], breach{Paused, p.From, forever})
			}
		case Paused:
			paused[f.Life] = f
		case Resumed:
			p := paused[f.Life]
			delete(paused, f.Life)
			// Below half a session the gate does not even close; the coordinator
			// counts from the last heartbeat that it got.
			if p != nil && f.To-p.From > l.Plan.Session/2 {
				out[f.Life] = append(out[f.Life], breach{Paused, p.From, f.To + noticed})
			}
		case Lost:
			out[f.Life] = append(out[f.Life], breach{Lost, max(0, f.From-2*l.Plan.Session), f.To + echo})
		}
	}
	return out
}

// commits tells how far before a moment the commits for a partition are sure to
// reach.
type commits struct {
	byPartition map[int32][]*Commit
	byProducer  map[string][]time.Duration
	busy        []Busy
}

func (l *Ledger) committed() *commits {
	c := &commits{byPartition: map[int32][]*Commit{}, byProducer: map[string][]time.Duration{}, busy: l.Busy}
	for _, x := range l.Commits {
		c.byPartition[x.Partition] = append(c.byPartition[x.Partition], x)
		id := producerID(x)
		c.byProducer[id] = append(c.byProducer[id], x.At)
	}
	for _, own := range c.byPartition {
		slices.SortStableFunc(own, func(a, b *Commit) int { return cmp.Compare(a.At, b.At) })
	}
	for _, times := range c.byProducer {
		slices.Sort(times)
	}
	return c
}

// producerID leaves the epoch out: with transactions of version 2 each has its own.
func producerID(x *Commit) string {
	id, _, _ := strings.Cut(x.Producer, "/")
	return id
}

const (
	// sameTransaction is how far apart the records #d of one transaction may be.
	sameTransaction = 25 * time.Millisecond
	// longestCut is how long before its records a transaction was cut at most: where
	// the one before is longer ago the process had nothing to commit, or was frozen;
	// what others committed meanwhile is not undone by its next one.
	longestCut = time.Second
	// lateFactor: hookline is another process than the one whose timers are
	// watched, with more to do.
	lateFactor = 3
	// leastLate is what is allowed for on an idle machine: the answer travels,
	// the worker and the loop take it in.
	leastLate = 20 * time.Millisecond
)

// before gives a moment such that every outcome of the partition that ended
// before it was committed by at.
//
// A transaction takes in what had ended when it was cut, which was some time
// before its records were made, but not before the one before it had ended. So
// what ended before the records of the last but one is in one of the two. A
// process that gets no time learns of an answer late; how busy the machine was
// then is known by timers.
func (c *commits) before(partition int32, at time.Duration) time.Duration {
	at -= 2 * time.Millisecond // Kafka's clock has whole milliseconds
	own := c.byPartition[partition]
	n, _ := slices.BinarySearchFunc(own, at, func(x *Commit, at time.Duration) int { return cmp.Compare(x.At, at) })
	if n == 0 {
		return 0
	}
	times := c.byProducer[producerID(own[n-1])]
	m, _ := slices.BinarySearch(times, at)
	cut := max(lastButOne(times[:m]), own[n-1].At-longestCut)
	return cut - c.late(cut, at)
}

// late is how late an answer may have been taken in between two moments.
func (c *commits) late(from, to time.Duration) time.Duration {
	worst := leastLate
	for _, b := range c.busy {
		if b.At >= from-2*time.Second && b.At <= to+time.Second {
			worst = max(worst, lateFactor*b.Late)
		}
	}
	return worst
}

// lastButOne gives when the last transaction but one made its records, or the
// only one. The times are those of all its records, ascending.
func lastButOne(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	begins := 0
	for i := len(times) - 1; i > 0; i-- {
		if times[i]-times[i-1] > sameTransaction {
			if begins++; begins == 2 {
				return times[i]
			}
		}
	}
	return times[0]
}
