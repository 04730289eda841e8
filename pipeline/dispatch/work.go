package dispatch

import (
	"context"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// fetchParkedTimeout bounds the reading of a parked record before its attempt;
// when it runs out that is our own fault and spends no attempt.
const fetchParkedTimeout = 10 * time.Second

// commitPatience is how long transactions may fail before no request is begun.
const commitPatience = 15 * time.Second

// job is one work on its way through a worker. Jobs are reused.
type job struct {
	work       *lane.Work
	deliveryID string
	req        pipeline.Request
	res        pipeline.Result

	// The loop's own: a ring of jobs under way in the order in which they began.
	prev, next *job
	began      time.Time
	slow       bool // counted in slots.slow; in no ring any more
}

// hand gives free slots to lanes that are ready. In the loop.
func (d *Dispatcher) hand(now time.Time) {
	// Without a live session nothing may be sent; while Kafka does not take the
	// attempts that were made, or does not commit what came of them, no more are
	// made: all of it would be sent again after a crash.
	if d.stopping || d.adrift || !d.deps.Gate.Open() || d.attemptBytes.Load() > attemptsBufferedBytes ||
		(!d.uncommitted.IsZero() && now.Sub(d.uncommitted) > commitPatience) {
		return
	}
	for d.slots.free() {
		w := d.sched.Next(now, d.slots.shares())
		if w == nil {
			return
		}
		j := d.newJob()
		j.work, j.req.Withdrawn = w, &d.tasks[w.Task.Partition()].withdrawn
		d.slots.take(now, j)
		if d.slots.inFlight() > d.nworkers {
			d.nworkers++
			d.workers.Go(d.work)
		}
		d.jobs <- j // never blocks: as many places as requests may be under way
	}
}

func (d *Dispatcher) newJob() *job {
	if n := len(d.spareJobs); n > 0 {
		j := d.spareJobs[n-1]
		d.spareJobs = d.spareJobs[:n-1]
		return j
	}
	return new(job)
}

// work makes attempts until jobs is closed.
func (d *Dispatcher) work() {
	for j := range d.jobs {
		d.attempt(j)
		d.finished.put(j)
	}
}

func (d *Dispatcher) attempt(j *job) {
	w := j.work
	if w.ParkedOffset >= 0 || w.FromOrigin {
		ctx, cancel := context.WithTimeout(context.Background(), fetchParkedTimeout)
		err := d.load(ctx, w)
		cancel()
		if err != nil {
			d.log.Error("reading a parked delivery", "partition", w.Task.Partition(), "offset", w.ParkedOffset, "err", err)
			reset(&j.res, d.now())
			j.res.Outcome, j.res.Error = pipeline.OutcomeLocalError, "reading the parked delivery from Kafka failed"
			return
		}
		if w.Unreadable != "" {
			reset(&j.res, d.now())
			return
		}
	}
	j.deliveryID = pipeline.DeliveryID(&w.Envelope.Source, pipeline.LaneSubscription(w.LaneKey()))
	if w.FetchOnly {
		reset(&j.res, d.now())
		return
	}
	j.req = pipeline.Request{
		Withdrawn:  j.req.Withdrawn,
		DeliveryID: j.deliveryID, Attempt: w.Attempt, Subscription: w.Subscription, Envelope: w.Envelope, Payload: w.Payload,
	}
	if span := d.beginSpan(&j.req); span != nil {
		j.req.Trace = span.Context()
		d.deps.Sender.Send(&j.req, &j.res)
		span.End(&j.res)
		return
	}
	d.deps.Sender.Send(&j.req, &j.res)
}

// beginSpan begins the try's span, where there is one.
func (d *Dispatcher) beginSpan(req *pipeline.Request) pipeline.AttemptSpan {
	if d.deps.Tracer == nil || !req.Envelope.Trace.Sampled() {
		return nil
	}
	return d.deps.Tracer.Attempt(req, d.deps.RedactURL(req.Subscription.URL))
}

// endDelivery tells of a delivery that ended. In the loop.
func (d *Dispatcher) endDelivery(a *pipeline.Attempt) {
	d.deps.Metrics.Delivered(a.Outcome)
	if d.deps.Tracer != nil && a.Envelope.Trace.Sampled() {
		d.deps.Tracer.Delivery(a)
	}
}

// reset clears a result for use without a sender, keeping its memory.
func reset(r *pipeline.Result, now time.Time) {
	*r = pipeline.Result{
		StartedAt: now, RequestHeaders: r.RequestHeaders[:0], ResponseHeaders: r.ResponseHeaders[:0], ResponseBody: r.ResponseBody[:0],
	}
}

// finish takes one finished job in. In the loop.
func (d *Dispatcher) finish(now time.Time, j *job) {
	w := j.work
	d.slots.release(j)
	v := w.Task.Done(now, w, &j.res)
	if !w.FetchOnly && w.Unreadable == "" {
		d.logAttempt(now, j, v)
	}
	j.work, j.req = nil, pipeline.Request{}
	d.spareJobs = append(d.spareJobs, j)
}
