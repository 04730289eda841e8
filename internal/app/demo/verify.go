package demo

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/hookline/hookline/internal/receiver"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// Request is one request as the endpoints wrote it down.
type Request = receiver.Request

// Rows is what ClickHouse has of one subscription.
type Rows struct {
	Attempts  int // rows of tries that sent a request
	Unique    int // different attempt ids
	Successes int
	Final     int // deliveries that ended
}

// Observed is what came of a plan.
type Observed struct {
	Requests []Request // as received, oldest first, with their bodies
	Dead     []kafkax.Dead
	// GoneState is the effective state of the subscription Gone.
	GoneState pipeline.State
	// Rows by subscription; nil: no ClickHouse, its claim is not made.
	Rows map[string]Rows
	// EventRows is the number of different events in ClickHouse.
	EventRows int
}

// Claim is something that the demo says of hookline, checked.
type Claim struct {
	Text string
	Err  error // nil: it holds
}

// Verify checks everything that the demo claims.
func (p *Plan) Verify(o *Observed) []Claim {
	claims := []Claim{
		{"every event reached every endpoint that takes it", p.checkDelivered(o)},
		{"no request came twice", p.checkOnce(o)},
		{"events about one thing arrived in their order, also behind the endpoint that was down", checkOrder(o)},
		{fmt.Sprintf("retries waited for their delays (%s)", Delays(p.RetryDelays)), p.checkGaps(o)},
		{fmt.Sprintf("the event that always failed had %d attempts and is a dead letter", 1+len(p.RetryDelays)), p.checkDead(o)},
		{"the endpoint that answered 410 is disabled", checkGone(o)},
	}
	if o.Rows != nil {
		claims = append(claims, Claim{"ClickHouse has one row for each request, and each event once", p.checkRows(o)})
	}
	return claims
}

// Delays writes retry delays as RETRY_DELAYS has them.
func Delays(ds []time.Duration) string {
	s := ""
	for i, d := range ds {
		if i > 0 {
			s += ","
		}
		s += d.String()
	}
	return s
}

func ok(r *Request) bool { return r.Status >= 200 && r.Status < 210 }

// bySubscription splits the requests.
func bySubscription(requests []Request) map[string][]*Request {
	out := map[string][]*Request{}
	for i := range requests {
		r := &requests[i]
		out[r.Subscription] = append(out[r.Subscription], r)
	}
	return out
}

func (p *Plan) checkDelivered(o *Observed) error {
	got := bySubscription(o.Requests)
	for _, e := range p.Expect() {
		all, done := map[string]bool{}, map[string]bool{}
		for _, r := range got[e.ID] {
			if r.Path != "/"+e.ID {
				return fmt.Errorf("%s: a request went to %s", e.ID, r.Path)
			}
			all[r.DeliveryID] = true
			if ok(r) {
				done[r.DeliveryID] = true
			}
		}
		if len(all) != e.Deliveries || len(done) != e.Successes {
			return fmt.Errorf("%s: %d deliveries of which %d succeeded, expected %d and %d", e.ID, len(all), len(done), e.Deliveries, e.Successes)
		}
	}
	return nil
}

func (p *Plan) checkOnce(o *Observed) error {
	type try struct {
		delivery string
		attempt  int
	}
	seen := map[try]bool{}
	for i := range o.Requests {
		t := try{o.Requests[i].DeliveryID, o.Requests[i].Attempt}
		if seen[t] {
			return fmt.Errorf("attempt %d of %s came twice", t.attempt, t.delivery)
		}
		seen[t] = true
	}
	got := bySubscription(o.Requests)
	for _, e := range p.Expect() {
		if n := len(got[e.ID]); n != e.Requests {
			return fmt.Errorf("%s: %d requests, expected %d", e.ID, n, e.Requests)
		}
	}
	return nil
}

// Count gives a subscription's requests and the deliveries that succeeded.
func Count(o *Observed, subscription string) (requests, delivered int) {
	done := map[string]bool{}
	for _, r := range bySubscription(o.Requests)[subscription] {
		requests++
		if ok(r) {
			done[r.DeliveryID] = true
		}
	}
	return requests, len(done)
}

// content is what the events of both topics tell about their place.
type content struct {
	Serial int    `json:"serial"`
	Order  string `json:"order"`
	Data   struct {
		ID     string `json:"_id"`
		Serial int    `json:"serial"`
	} `json:"data"`
}

func (c *content) place() (entity string, serial int) {
	if c.Data.ID != "" {
		return c.Data.ID, c.Data.Serial
	}
	return c.Order, c.Serial
}

// checkOrder: for each subscription and entity the requests are for serials that
// never fall, and rise only after a success.
func checkOrder(o *Observed) error {
	type lane struct{ subscription, entity string }
	type state struct {
		serial  int
		settled bool
	}
	at := map[lane]state{}
	for i := range o.Requests {
		r := &o.Requests[i]
		var c content
		if err := json.Unmarshal([]byte(r.Body), &c); err != nil {
			return fmt.Errorf("%s: a body is not what was produced: %w", r.Subscription, err)
		}
		entity, serial := c.place()
		l := lane{r.Subscription, entity}
		before, known := at[l]
		switch {
		case known && serial < before.serial:
			return fmt.Errorf("%s: event %d of %s came after %d", r.Subscription, serial, entity, before.serial)
		case known && serial > before.serial && !before.settled:
			return fmt.Errorf("%s: event %d of %s came while %d was not settled", r.Subscription, serial, entity, before.serial)
		}
		at[l] = state{serial, ok(r)}
	}
	return nil
}

// Retried gives the requests of the subscription's first delivery that had more
// than one.
func Retried(o *Observed, subscription string) []*Request {
	requests := bySubscription(o.Requests)[subscription]
	byDelivery := map[string][]*Request{}
	for _, r := range requests {
		byDelivery[r.DeliveryID] = append(byDelivery[r.DeliveryID], r)
	}
	for _, r := range requests {
		if list := byDelivery[r.DeliveryID]; len(list) > 1 {
			return list
		}
	}
	return nil
}

// checkGaps: from one request to the next of the same delivery at least the
// delay passes, by the receiver's clock; that includes the time of the answer.
func (p *Plan) checkGaps(o *Observed) error {
	for _, id := range []string{Flaky, Broken} {
		list := Retried(o, id)
		if len(list) < 2 {
			return fmt.Errorf("%s: nothing was retried", id)
		}
		for i := 1; i < len(list); i++ {
			gap, least := list[i].Time.Sub(list[i-1].Time), p.RetryDelays[i-1]
			if gap < least {
				return fmt.Errorf("%s: attempt %d came %s after attempt %d, before its delay of %s", id, list[i].Attempt, gap, list[i-1].Attempt, least)
			}
		}
	}
	return nil
}

func (p *Plan) checkDead(o *Observed) error {
	attempts := 1 + len(p.RetryDelays)
	for i, r := range bySubscription(o.Requests)[Broken] {
		if r.Attempt != i+1 {
			return fmt.Errorf("request %d says that it is attempt %d", i+1, r.Attempt)
		}
	}
	found := 0
	for i := range o.Dead {
		d := &o.Dead[i]
		switch d.Subscription {
		case Broken:
			found++
			if d.Reason != pipeline.DeadExhausted || d.Attempts != attempts {
				return fmt.Errorf("its dead letter says %s after %d attempts", d.Reason, d.Attempts)
			}
		case Gone: // 410 ends a delivery, too
		default:
			return fmt.Errorf("%s has a dead letter (%s: %s)", d.Subscription, d.Reason, d.Error)
		}
	}
	if found != 1 {
		return fmt.Errorf("%d dead letters, expected 1", found)
	}
	return nil
}

func checkGone(o *Observed) error {
	if o.GoneState != pipeline.StateDisabled {
		return fmt.Errorf("it is %s", o.GoneState)
	}
	return nil
}

func (p *Plan) checkRows(o *Observed) error {
	for _, e := range p.Expect() {
		got := o.Rows[e.ID]
		want := Rows{Attempts: e.Requests, Unique: e.Requests, Successes: e.Successes, Final: e.Deliveries}
		if got != want {
			return fmt.Errorf("%s: %d rows, %d different, %d successes, %d ends; expected %d, %d, %d, %d", e.ID,
				got.Attempts, got.Unique, got.Successes, got.Final, want.Attempts, want.Unique, want.Successes, want.Final)
		}
	}
	if o.EventRows != p.Events {
		return fmt.Errorf("%d events, expected %d", o.EventRows, p.Events)
	}
	return nil
}

// Failed joins the claims that do not hold.
func Failed(claims []Claim) error {
	var errs []error
	for _, c := range claims {
		if c.Err != nil {
			errs = append(errs, fmt.Errorf("checking that %s: %w", c.Text, c.Err))
		}
	}
	return errors.Join(errs...)
}
