package dispatch

import (
	"fmt"
	"time"

	"github.com/go-json-experiment/json"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
)

// TestEventType is the event type of a test that names none.
const TestEventType = "hookline.test"

// sample is the payload of a test that brings none.
type sample struct {
	Type         string    `json:"type"`
	Subscription string    `json:"subscription"`
	Time         time.Time `json:"time"`
	Message      string    `json:"message"`
}

// test makes one request to the subscription's endpoint, by the rules by which
// deliveries are sent, whatever waits and whatever its state. It is in the log,
// and not tried again. In the loop.
func (d *Dispatcher) test(t *ownedTask, c *command.Command, e *audit.Entry) {
	sub := d.view.Get(c.Subscription)
	refuse := func(why string) {
		e.Result, e.Detail = audit.ResultRefused, why
		d.answer(t, e)
	}
	if sub == nil {
		refuse("there is no such subscription")
		return
	}
	select {
	case d.control.tests <- struct{}{}:
	default:
		refuse(fmt.Sprintf("%d tests are under way in this process already", testsAtOnce))
		return
	}
	req, err := testRequest(sub, c, d.now())
	if err != nil {
		<-d.control.tests
		refuse(err.Error())
		return
	}
	req.Withdrawn = &t.withdrawn
	d.testing.Go(func() {
		defer func() { <-d.control.tests }()
		if !d.gateOpens() {
			d.call(func() { refuse("this process has lost touch with Kafka and sends nothing now") })
			return
		}
		res := new(pipeline.Result)
		d.deps.Sender.Send(req, res)
		d.call(func() { d.tested(t, req, res, e) })
	})
}

// gatePatience is how long a test waits for the gate: a process that has just
// joined the group has had no heartbeat yet.
const gatePatience = 2 * time.Second

// gateOpens waits until requests may be begun.
func (d *Dispatcher) gateOpens() bool {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(gatePatience); !d.deps.Gate.Open(); {
		select {
		case <-tick.C:
		case <-d.loopDone:
			return false
		}
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// testRequest is the request of a test.
func testRequest(sub *pipeline.Subscription, c *command.Command, now time.Time) (*pipeline.Request, error) {
	payload, eventType := c.Payload, c.EventType
	if eventType == "" {
		eventType = TestEventType
	}
	if len(payload) == 0 {
		var err error
		payload, err = json.Marshal(&sample{
			Type: eventType, Subscription: sub.ID, Time: now.UTC().Truncate(time.Millisecond),
			Message: "a test, asked for by an operator: it is no event",
		}, json.Deterministic(true))
		if err != nil {
			return nil, fmt.Errorf("making the sample: %w", err)
		}
	}
	env := &pipeline.Envelope{
		Source: pipeline.Position{Cluster: c.ID, Topic: pipeline.TestTopic}, Format: pipeline.FormatJSON, EventID: pipeline.SafeID("test_" + c.ID),
		EventType: eventType, Time: now, ProducedAt: now,
	}
	if sub.Tenant != pipeline.AnyTenant {
		env.Tenant = sub.Tenant
	}
	return &pipeline.Request{
		DeliveryID: pipeline.DeliveryID(&env.Source, sub.ID), Attempt: 1, Subscription: sub, Envelope: env, Payload: payload, Test: true,
	}, nil
}

// tested takes the end of a test in: into the log, and as the answer. In the loop.
func (d *Dispatcher) tested(t *ownedTask, req *pipeline.Request, res *pipeline.Result, e *audit.Entry) {
	if d.tasks[t.Partition()] != t {
		return // its new owner has passed the command over: no answer is given
	}
	a := attemptOf(res)
	a.AttemptID = attemptID(req.DeliveryID, 1, 0, t.Incarnation(), d.tries)
	a.DeliveryID, a.SubscriptionID, a.Envelope, a.Attempt = req.DeliveryID, req.Subscription.ID, req.Envelope, 1
	a.Final, a.Node, a.URL = true, d.deps.Node, d.deps.RedactURL(req.Subscription.URL)
	d.tries++
	d.appendAttempt(t.Partition(), &a)
	e.Time = d.now().UTC().Truncate(time.Millisecond)
	e.Result = audit.ResultDone
	if res.Outcome != pipeline.OutcomeSuccess {
		e.Result, e.Detail = audit.ResultFailed, res.Error
	}
	e.Test = &audit.Test{
		DeliveryID: a.DeliveryID, Outcome: res.Outcome.String(), StatusCode: res.StatusCode, Error: res.Error,
		ElapsedUS: res.Elapsed.Microseconds(), URL: a.URL,
	}
	d.answer(t, e)
}
