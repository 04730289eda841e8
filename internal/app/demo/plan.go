// Package demo is what "hookline demo" shows: which events go to which
// endpoints, what must come of it, and whether it did.
package demo

import (
	"fmt"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/secret"
)

// Topics of the demo's events, and EventsTopics, which describes them as
// HOOKLINE_EVENTS_TOPICS does.
const (
	TopicTasks   = "cotalker.events"
	TopicOrders  = "orders"
	EventsTopics = TopicTasks + "=cotalker;" + TopicOrders + "=json:type=/type,id=/id,tenant=/shop,entity=/order,time=/time"
)

// The subscriptions.
const (
	Good   = "good"   // answers at once
	Slow   = "slow"   // answers late
	Flaky  = "flaky"  // is down for its first requests, then well
	Broken = "broken" // always fails: its event ends in the dead letters
	Gone   = "gone"   // answers 410: it is disabled
)

// flakyFailures is how many requests Flaky refuses; all for its first event.
const flakyFailures = 2

// Limits of the number of events.
const (
	MinEvents     = 10
	MaxEvents     = 100_000
	DefaultEvents = 200
)

// entities is the number of tasks and of orders that the events are about. The
// events about one of them are in order.
const entities = 5

// slowBudget is what all answers of Slow take together, at most slowest each.
const (
	slowBudget = 4 * time.Second
	slowest    = 20 * time.Millisecond
)

// Plan is a run of the demo.
type Plan struct {
	Events      int // in all
	RetryDelays []time.Duration
}

// Event is a record to produce.
type Event struct {
	Topic, Key string
	Value      []byte
}

// tasks and orders are the numbers of ordinary events; the two special orders
// come on top of them.
func (p *Plan) tasks() int  { return p.Events / 2 }
func (p *Plan) orders() int { return p.Events - p.tasks() - 2 }

// Records makes the events, numbered in the order in which they must arrive.
func (p *Plan) Records(now time.Time) []Event {
	events := make([]Event, 0, p.Events)
	for i := range max(p.tasks(), p.orders()) {
		if i < p.tasks() {
			events = append(events, task(i, now))
		}
		if i < p.orders() {
			events = append(events, order(i, "order.placed", now))
		}
	}
	return append(events, order(p.orders(), "order.refunded", now), order(p.orders()+1, "order.archived", now))
}

const stamp = "2006-01-02T15:04:05.000Z"

// task is an event of the format cotalker. Numbers count up within its entity.
func task(i int, now time.Time) Event {
	entity := fmt.Sprintf("64d9399914627%011d", i%entities)
	kind := "update"
	if i < entities {
		kind = "create"
	}
	return Event{TopicTasks, entity, fmt.Appendf(nil, `{"company":"64dbcdcc9a8e3a86dbf00001","type":"COTTask","extraData":null,"createdAt":%q,`+
		`"data":{"_id":%q,"name":"Pump %d: inspect","isActive":true,"serial":%d,"closedAt":null,"__v":0},"event":%q}`,
		now.UTC().Format(stamp), entity, i%entities, i, kind)}
}

func order(i int, kind string, now time.Time) Event {
	entity := "order-" + strconv.Itoa(i%entities)
	return Event{TopicOrders, entity, fmt.Appendf(nil, `{"id":"evt-%d","type":%q,"shop":"shop-1","order":%q,"time":%q,"serial":%d,"amount":"%d.90"}`,
		i, kind, entity, now.UTC().Format(stamp), i, 10+i%90)}
}

// The variables that have the secrets of Good.
const (
	BearerVariable  = "DEMO_BEARER_TOKEN"
	SigningVariable = "DEMO_SIGNING_SECRET" // whsec_
)

func refer(variable string) secret.Value {
	v, err := secret.Ref("env:" + variable)
	if err != nil {
		panic("BUG: a variable of the demo: " + err.Error())
	}
	return v
}

// Subscriptions are what is applied; base is the receiver's URL.
func (p *Plan) Subscriptions(base string) []registry.Document {
	sub := func(id, about, format string, events ...string) registry.Document {
		return registry.Document{ID: id, Tenant: "*", Description: about, URL: base + "/" + id, Format: []string{format}, Events: events}
	}
	good := sub(Good, "answers at once; signed, with a token", "cotalker", "COTTask.*")
	good.Auth = &registry.AuthDoc{Bearer: &registry.BearerDoc{Secret: refer(BearerVariable)}}
	good.Signing = &registry.SigningDoc{Secrets: []registry.SecretDoc{{Secret: refer(SigningVariable)}}}
	return []registry.Document{
		good,
		sub(Slow, "answers late", "json", "order.placed"),
		sub(Flaky, "is down at first, then well", "cotalker", "COTTask.*"),
		sub(Broken, "always fails", "json", "order.refunded"),
		sub(Gone, "has gone: 410", "json", "order.archived"),
	}
}

// Expected is what must come of a subscription.
type Expected struct {
	ID         string
	Deliveries int // events that it gets
	Requests   int // that its endpoint receives, retries included
	Successes  int
}

// Expect says what must come of the plan.
func (p *Plan) Expect() []Expected {
	attempts := 1 + len(p.RetryDelays)
	flaky := min(flakyFailures, len(p.RetryDelays))
	return []Expected{
		{Good, p.tasks(), p.tasks(), p.tasks()},
		{Slow, p.orders(), p.orders(), p.orders()},
		{Flaky, p.tasks(), p.tasks() + flaky, p.tasks()},
		{Broken, 1, attempts, 0},
		{Gone, 1, 1, 0},
	}
}

// Requests is how many requests all endpoints must get.
func (p *Plan) Requests() int {
	n := 0
	for _, e := range p.Expect() {
		n += e.Requests
	}
	return n
}

// Script answers for all endpoints.
func (p *Plan) Script() func(*receiver.Request) receiver.Reply {
	var mu sync.Mutex
	refuse := min(flakyFailures, len(p.RetryDelays)) // guarded by mu
	delay := min(slowest, slowBudget/time.Duration(max(1, p.orders())))
	return func(r *receiver.Request) receiver.Reply {
		switch r.Path {
		case "/" + Slow:
			return receiver.Reply{Delay: delay}
		case "/" + Flaky:
			mu.Lock()
			defer mu.Unlock()
			if refuse > 0 {
				refuse--
				return receiver.Reply{Status: http.StatusServiceUnavailable, Body: `{"error":"down for maintenance"}`}
			}
		case "/" + Broken:
			return receiver.Reply{Status: http.StatusInternalServerError, Body: `{"error":"no such table: refunds"}`}
		case "/" + Gone:
			return receiver.Reply{Status: http.StatusGone}
		}
		return receiver.Reply{}
	}
}

// Limit is how long the whole run may take before it counts as stuck.
func (p *Plan) Limit() time.Duration {
	d := 20*time.Second + slowBudget + time.Duration(p.Events)*2*time.Millisecond
	for _, r := range p.RetryDelays {
		d += r + time.Second
	}
	return d
}
