package proof

import (
	"fmt"
	"slices"
	"time"
)

// StopSlack is what a graceful stop may take beyond the request timeout.
const StopSlack = 5 * time.Second

// exitUnreachable is hookline's exit code when it does not reach Kafka.
const exitUnreachable = 3

// startTime is how long a process may be at its start, if nobody freezes it.
const startTime = 15 * time.Second

// processes judges how processes ended: none by itself, each that was told to
// with code 0 and in time. A broker that is away excuses the time: what is under
// way must be committed first.
func (c *checker) processes() {
	told, killed, began, firsts := map[int]*Fault{}, map[string]*Fault{}, map[int]time.Duration{}, c.firstPosts()
	for _, f := range c.l.Faults {
		switch f.Kind {
		case Killed:
			killed[f.Name] = f
		case Told:
			told[f.Life] = f
		case Started:
			began[f.Life] = f.From
			if k := killed[f.Name]; k != nil && firsts[f.Life] > 0 {
				c.v.Recoveries = append(c.v.Recoveries, firsts[f.Life]-f.From)
			}
			delete(killed, f.Name)
		case Exited:
			c.exited(f, told[f.Life], began[f.Life], firsts)
		}
	}
	slices.Sort(c.v.Recoveries)
	slices.Sort(c.v.Stops)
}

func (c *checker) exited(f, told *Fault, began time.Duration, firsts map[int]time.Duration) {
	name := fmt.Sprintf("%s/life %d", f.Name, f.Life)
	killed := slices.ContainsFunc(c.l.Faults, func(k *Fault) bool { return k.Kind == Killed && k.Life == f.Life })
	switch {
	case killed:
	case f.Code == exitUnreachable && firsts[f.Life] == 0 && c.l.brokerAway(began, min(f.From, began+startTime)):
		c.v.Unreachable++ // it said that it finds no Kafka, which was so, be it that it was frozen before it said it
	case told != nil && firsts[f.Life] == 0 && f.Code == -1: // told before it could listen
	case told == nil || f.Code != 0:
		c.say("I9 processes", pair{}, "%s ended at %v with code %d: %s", name, f.From, f.Code, f.Note)
	default:
		took := f.From - told.From
		c.v.Stops = append(c.v.Stops, took)
		if took > c.l.Plan.Timeout+StopSlack && !c.l.brokerAway(told.From, f.From) {
			c.say("I9 processes", pair{}, "%s took %v to stop, at %v", name, took, told.From)
		}
	}
}

// firstPosts gives when each life's first request arrived.
func (c *checker) firstPosts() map[int]time.Duration {
	out := map[int]time.Duration{}
	for _, p := range c.l.Posts {
		if _, ok := out[p.Life]; !ok {
			out[p.Life] = p.At
		}
	}
	return out
}
