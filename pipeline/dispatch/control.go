package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/audit"
	"github.com/hookline/hookline/pipeline/command"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
	"github.com/hookline/hookline/pipeline/kafkax"
)

const (
	// controlWait is how long a read of the topic of operators' commands waits at the
	// broker for one, and so how long a task that has just begun, and is further behind,
	// may wait for its turn: the broker answers one read after the other.
	controlWait = 500 * time.Millisecond
	// controlEvery is the least time between two reads that bring nothing, where the
	// broker does not wait, or fails.
	controlEvery = 100 * time.Millisecond
	// controlBytes bounds one read of it.
	controlBytes = 1 << 20
	// answersWaiting bounds the answers of a task that wait for its next transaction:
	// more commands than that are carried out after it.
	answersWaiting = 256
	// testsAtOnce bounds the test requests of a process: they take no slot.
	testsAtOnce = 4
)

// controlRead is one read of the topic of operators' commands: all of it from
// from on, up to next.
type controlRead struct {
	from, next int64
	commands   []*givenCommand
	// start, where not negative: the topic no longer has from, or never had it;
	// it is to be read from there.
	start int64
}

// givenCommand is a command and where it stands.
type givenCommand struct {
	*command.Command
	offset int64
}

// controlState is what the loop knows of reading the commands; the loop's own.
type controlState struct {
	from  chan int64       // the reader's next position: the loop sends, the reader takes the newest
	reads chan controlRead // from the reader
	tests chan struct{}    // a place for each test under way
}

func newControlState() controlState {
	return controlState{from: make(chan int64, 1), reads: make(chan controlRead), tests: make(chan struct{}, testsAtOnce)}
}

// readControl reads the topic from where the loop wants it. Whatever it hands over the
// loop answers with where to go on, if there is a task.
func (d *Dispatcher) readControl(ctx context.Context) {
	var from int64
	var again <-chan time.Time // nil: the loop says where to go on
	for {
		select {
		case from = <-d.control.from: // first: nobody waits for what was wanted before
		default:
			select {
			case from = <-d.control.from:
			case <-again:
			case <-ctx.Done():
				return
			case <-d.loopDone:
				return
			}
		}
		begun := time.Now()
		r, ok := d.readControlFrom(ctx, from)
		switch {
		case !ok:
			again = time.After(controlEvery)
		case r.next == from && r.start < 0: // nothing, although the broker has waited
			again = time.After(controlEvery - time.Since(begun))
		default:
			again = nil
			select {
			case d.control.reads <- r:
			case <-ctx.Done():
				return
			case <-d.loopDone:
				return
			}
		}
	}
}

// readControlFrom makes one read; false: it failed.
func (d *Dispatcher) readControlFrom(ctx context.Context, from int64) (r controlRead, ok bool) {
	r = controlRead{from: from, next: from, start: -1}
	topic := d.topics.Control()
	recs, next, err := d.commands.At(ctx, topic, 0, from, controlBytes)
	if _, gone := errors.AsType[*kafkax.OutOfRangeError](err); gone {
		if start, err := d.fetcher.StartOffset(ctx, topic, 0); err == nil {
			r.start = start
		}
		return r, r.start >= 0
	}
	if err != nil {
		if ctx.Err() == nil {
			d.log.Warn("reading operators' commands; it is tried again", "err", err)
		}
		return r, false
	}
	r.next = next
	for _, rec := range recs {
		c, err := command.Parse(rec.Value)
		if err != nil {
			d.log.Warn("a command cannot be read: it is passed over", "topic", topic, "offset", rec.Offset, "err", err)
			continue
		}
		if c.Kind != command.KindStatus {
			r.commands = append(r.commands, &givenCommand{c, rec.Offset})
		}
	}
	return r, true
}

// takeControl takes a read in. A task takes only what follows on what it has:
// where one has come that is further behind, the reader goes back for it.
func (d *Dispatcher) takeControl(r controlRead) {
	for p, t := range d.tasks {
		switch {
		case r.start >= 0 && (t.controlRead == r.from || t.controlRead < r.start):
			// What was there is gone: removed by retention, and too old anyway, or
			// the topic was made anew.
			t.controlRead = r.start
		case r.start < 0 && t.controlRead >= r.from && t.controlRead < r.next:
			for _, c := range r.commands {
				if c.offset >= t.controlRead && kafkax.Partition(c.Subscription, d.deps.Kafka.Partitions) == p {
					t.commands = append(t.commands, c)
				}
			}
			t.controlRead = r.next
		}
	}
	if want := d.controlWanted(); want >= 0 {
		d.wantControl(want)
	}
}

// controlWanted is where to read on: where the task is that is furthest behind;
// -1: there is no task.
func (d *Dispatcher) controlWanted() int64 {
	want := int64(-1)
	for _, t := range d.tasks {
		if want < 0 || t.controlRead < want {
			want = t.controlRead
		}
	}
	return want
}

// wantControl tells the reader where to go on.
func (d *Dispatcher) wantControl(from int64) {
	select {
	case <-d.control.from: // what it has not taken is out of date
	default:
	}
	d.control.from <- from // has a place, and only the loop sends
}

// command carries out what was taken in for t. In the loop.
func (d *Dispatcher) command(now time.Time, t *ownedTask) {
	for len(t.commands) > 0 && !t.Draining() && t.Answers() < answersWaiting {
		c := t.commands[0]
		expired := c.Expired(now)
		if c.RegistryVersion > d.view.Version() && !expired {
			return // what its giver changed before is not known here yet
		}
		t.commands[0] = nil
		t.commands = t.commands[1:]
		// Its effect and its answer are part of one transaction with the position
		// behind it.
		t.ControlTo(c.offset + 1)
		if expired && c.Kind == command.KindInspect {
			continue // nobody waits for it any more, and a question changes nothing
		}
		if expired {
			e := c.Entry(now)
			e.Result, e.Detail = audit.ResultExpired, expiredDetail(c.Command, now)
			d.answer(t, e)
			continue
		}
		d.obey(now, t, c.Command)
	}
	if len(t.commands) == 0 {
		t.ControlTo(t.controlRead)
	}
}

func expiredDetail(c *command.Command, now time.Time) string {
	if age := now.Sub(c.Time); age < 0 {
		return fmt.Sprintf("by the clock of the process that carries it out, it was given %v in the future", (-age).Round(time.Second))
	}
	return fmt.Sprintf("its turn came %v after it was given", now.Sub(c.Time).Round(time.Second))
}

func (d *Dispatcher) obey(now time.Time, t *ownedTask, c *command.Command) {
	e := c.Entry(now)
	if why, ok := c.Supported(); !ok {
		e.Result, e.Detail = audit.ResultRefused, why
		d.answer(t, e)
		return
	}
	which := lane.Which{Entity: c.Entity, Delivery: c.Delivery}
	switch c.Kind {
	case command.KindInspect:
		d.status(t, c)
		return
	case command.KindTest:
		d.test(t, c, e)
		return
	case command.KindSkip:
		applied(e, t.Skip(now, c.Subscription, which))
	case command.KindRetry:
		applied(e, t.RetryNow(now, c.Subscription, which))
	case command.KindStatus:
	}
	if e.Result == audit.ResultNothing && d.view.Get(c.Subscription) == nil {
		e.Result, e.Detail = audit.ResultRefused, "there is no such subscription"
	}
	d.log.Info("an operator's command", "command", string(c.Kind), "subscription", c.Subscription, "actor", c.Actor, "result", string(e.Result), "lanes", e.Lanes)
	d.answer(t, e)
}

func applied(e *audit.Entry, a lane.Applied) {
	e.Lanes = a.Lanes
	e.Result = audit.ResultDone
	switch {
	case a.Lanes == 0 && a.UnderWay > 0:
		e.Result, e.Detail = audit.ResultNothing, fmt.Sprintf("a request is under way in %d lanes: nothing to decide before it ends", a.UnderWay)
	case a.Lanes == 0:
		e.Result, e.Detail = audit.ResultNothing, "nothing is waiting behind a failed delivery"
	case a.UnderWay > 0:
		e.Detail = fmt.Sprintf("in %d more lanes a request is under way", a.UnderWay)
	}
}

// answer puts e into the task's next transaction.
func (d *Dispatcher) answer(t *ownedTask, e *audit.Entry) {
	e.Node = d.deps.Node
	t.Answer(&lane.Out{Kind: lane.OutAnswer, Subscription: e.Subscription, Payload: audit.Encode(e)})
}

// answerRecord is an answer's Kafka record: an audit entry or, of a question, a
// status.
func (d *Dispatcher) answerRecord(o *lane.Out) *kgo.Record {
	topic := d.topics.Audit()
	if o.Attempts == answersQuestion {
		topic = d.topics.Control()
	}
	return &kgo.Record{Topic: topic, Key: []byte(o.Subscription), Value: o.Payload}
}

// maxLocalBytes of the reason why a try could not be made are told.
const maxLocalBytes = 500

// answersQuestion, as the Attempts of an OutAnswer, says that it is a status.
const answersQuestion = -1

// status answers a question.
func (d *Dispatcher) status(t *ownedTask, c *command.Command) {
	in := t.Inspect(c.Subscription, command.MaxStuck)
	st := &command.Status{
		Node: d.deps.Node, RegistryVersion: d.view.Version(), Partition: t.Partition(), Read: t.ReadPosition(),
		Lanes: in.Lanes, Waiting: in.Waiting, Blocked: in.Blocked, CatchUp: in.CatchUp, CatchUpDeliveries: in.CatchUpDeliveries, InFlight: in.InFlight, Queued: in.Queued,
		Parked: in.Parked, Heads: in.Heads,
	}
	st.Local = strings.ToValidUTF8(in.Local[:min(len(in.Local), maxLocalBytes)], "")
	if in.Conf != nil {
		st.Known, st.State, st.Reason = true, in.Conf.State, in.Conf.StateReason
	}
	if in.Reason != "" {
		st.State, st.Reason = pipeline.StateDisabled, in.Reason
	}
	for i := range in.Stuck {
		l := &in.Stuck[i]
		st.Stuck = append(st.Stuck, command.Stuck{
			Entity: pipeline.LaneEntity(l.Key), Delivery: l.Delivery, Attempts: l.Attempts, Round: l.Round, Blocked: l.Blocked,
			Behind: l.Behind, NextAt: l.NextAt.Round(0).UTC().Truncate(time.Millisecond),
		})
	}
	value, err := command.Encode(&command.Command{
		Kind: command.KindStatus, ID: c.ID, Time: d.now().UTC().Truncate(time.Millisecond), Actor: d.deps.Node, Subscription: c.Subscription, Status: st,
	})
	if err != nil {
		d.log.Error("answering a question", "subscription", c.Subscription, "err", err)
		return
	}
	t.Answer(&lane.Out{Kind: lane.OutAnswer, Subscription: c.Subscription, Payload: value, Attempts: answersQuestion})
}
