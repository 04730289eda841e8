package dispatch

import (
	"context"
	"time"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/dispatch/lane"
)

// fetchParkedTimeout bounds the reading of a parked record before its attempt;
// when it runs out that is our own fault and spends no attempt.
const fetchParkedTimeout = 10 * time.Second

// commitPatience is how long transactions may fail before no request is begun.
const commitPatience = 15 * time.Second

// job is one work on its way through the sender, or through a worker where more
// is to be done for it than to send. Jobs are reused.
type job struct {
	pipeline.Try
	work    *lane.Work
	blocked bool // a worker has it

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
		j.work, j.Request.Withdrawn = w, &d.tasks[w.Task.Partition()].withdrawn
		d.slots.take(now, j)
		if d.batch != nil && !w.FetchOnly && d.loaded(w) && !d.traced(w.Envelope) {
			j.request()
			d.starting = append(d.starting, &j.Try)
			continue
		}
		d.toWorker(j)
	}
}

// loaded tells that the work is in memory, or fetches it from where parked ones
// that were read already are.
func (d *Dispatcher) loaded(w *lane.Work) bool {
	if w.ParkedOffset >= 0 && !w.FromOrigin {
		return d.parked.loadKept(w)
	}
	return !w.FromOrigin
}

// toWorker has a worker do j.
func (d *Dispatcher) toWorker(j *job) {
	j.blocked = true
	d.blocked++
	d.mostBlocked = max(d.mostBlocked, d.blocked)
	if d.blocked > d.nworkers {
		d.nworkers++
		d.workers.Go(d.work)
	}
	d.jobs <- j // never blocks: as many places as requests may be under way
}

// retire ends the workers that were not needed since it was called last: what a
// burst of slow endpoints made is given back. In the loop.
func (d *Dispatcher) retire() {
	for d.nworkers > d.mostBlocked {
		select {
		case d.jobs <- nil: // for one of those that wait
			d.nworkers--
		default: // full: nobody is idle
			return
		}
	}
	d.mostBlocked = d.blocked
}

// start hands what hand has collected to the sender. In the loop.
func (d *Dispatcher) start() {
	if len(d.starting) == 0 {
		return
	}
	d.batch.Start(d.starting)
	clear(d.starting)
	d.starting = d.starting[:0]
}

// ended takes tries back. Called by the sender.
func (d *Dispatcher) ended(tries []*pipeline.Try) {
	var stack [64]*job
	jobs := stack[:0]
	for _, t := range tries {
		jobs = append(jobs, t.Owner.(*job))
	}
	d.finished.put(jobs...)
}

func (d *Dispatcher) newJob() *job {
	if n := len(d.spareJobs); n > 0 {
		j := d.spareJobs[n-1]
		d.spareJobs = d.spareJobs[:n-1]
		return j
	}
	j := new(job)
	j.Owner = j
	return j
}

// work makes attempts until jobs is closed, or a job is nil.
func (d *Dispatcher) work() {
	for j := range d.jobs {
		if j == nil {
			return
		}
		d.attempt(j)
		d.finished.put(j)
	}
}

func (d *Dispatcher) attempt(j *job) {
	w := j.work
	if w.Envelope == nil {
		ctx, cancel := context.WithTimeout(context.Background(), fetchParkedTimeout)
		err := d.load(ctx, w)
		cancel()
		if err != nil {
			d.log.Error("reading a parked delivery", "partition", w.Task.Partition(), "offset", w.ParkedOffset, "err", err)
			reset(&j.Result, d.now())
			j.Result.Outcome, j.Result.Error = pipeline.OutcomeLocalError, "reading the parked delivery from Kafka failed"
			return
		}
		if w.Unreadable != "" {
			reset(&j.Result, d.now())
			return
		}
	}
	if w.FetchOnly {
		reset(&j.Result, d.now())
		return
	}
	j.request()
	j.Request.DeliveryID = pipeline.DeliveryID(&w.Envelope.Source, pipeline.LaneSubscription(w.LaneKey()))
	if span := d.beginSpan(&j.Request); span != nil {
		j.Request.Trace = span.Context()
		d.deps.Sender.Send(&j.Request, &j.Result)
		span.End(&j.Result)
		return
	}
	d.deps.Sender.Send(&j.Request, &j.Result)
}

// request fills the request in but for the delivery's id.
func (j *job) request() {
	w := j.work
	j.Request = pipeline.Request{
		Withdrawn: j.Request.Withdrawn, Attempt: w.Attempt, Subscription: w.Subscription, Envelope: w.Envelope, Payload: w.Payload,
	}
}

// traced tells that a try gets a span.
func (d *Dispatcher) traced(env *pipeline.Envelope) bool {
	return d.deps.Tracer != nil && env.Trace.Sampled()
}

// beginSpan begins the try's span, where there is one.
func (d *Dispatcher) beginSpan(req *pipeline.Request) pipeline.AttemptSpan {
	if !d.traced(req.Envelope) {
		return nil
	}
	return d.deps.Tracer.Attempt(req, d.deps.RedactURL(req.Subscription.URL))
}

// endDelivery tells of a delivery that ended. In the loop.
func (d *Dispatcher) endDelivery(a *pipeline.Attempt) {
	d.deps.Metrics.Delivered(a.Outcome)
	if d.traced(a.Envelope) {
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
	if j.blocked {
		j.blocked = false
		d.blocked--
	}
	if !w.FetchOnly && w.Unreadable == "" {
		failpoint.Hit(failpoint.AttemptMade)
	}
	v := w.Task.Done(now, w, &j.Result)
	if !w.FetchOnly && w.Unreadable == "" {
		d.logAttempt(now, j, v)
	}
	d.sched.Recycle(w)
	j.work, j.Request = nil, pipeline.Request{}
	d.spareJobs = append(d.spareJobs, j)
}
