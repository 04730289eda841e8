package api

import (
	"maps"
	"sync"
	"time"

	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/control"
)

// answersAge is how long lists go on with what an owner said of its lanes. A
// question is a record that every dispatcher reads and one answers in a
// transaction, and an open list is made again every 5 s: for all who look
// together each subscription is asked after four times a minute at most.
const answersAge = 15 * time.Second

// maxAnswers bounds how many are remembered: more than two lists need at once.
const maxAnswers = 4 * control.MaxStatuses

// answers remembers what owners said of their lanes, and that they said nothing:
// one that is silent is not waited for by every list. Safe for concurrent use; the
// statuses are shared and not changed.
type answers struct {
	mu   sync.Mutex
	told map[string]answer // by subscription
}

type answer struct {
	status *command.Status // nil: nobody answered
	at     time.Time
}

// get gives the answer of a subscription; known: there is one that is not too old.
func (a *answers) get(id string, now time.Time) (st *command.Status, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	was, known := a.told[id]
	if !known || now.Sub(was.at) >= answersAge {
		return nil, false
	}
	return was.status, true
}

// put remembers the answers to one question, at most control.MaxStatuses.
func (a *answers) put(ids []string, told map[string]*command.Status, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.told)+len(ids) > maxAnswers {
		maps.DeleteFunc(a.told, func(_ string, was answer) bool { return now.Sub(was.at) >= answersAge })
	}
	if a.told == nil || len(a.told)+len(ids) > maxAnswers {
		a.told = make(map[string]answer, len(ids)) // what is forgotten is asked for again
	}
	for _, id := range ids {
		a.told[id] = answer{told[id], now}
	}
}
