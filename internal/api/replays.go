package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/replay"
)

// Replayer delivers past events again; replay.Replayer is one.
type Replayer interface {
	Run(ctx context.Context, sel replay.Selection, opts replay.Options) (replay.Plan, replay.Progress, error)
	List(ctx context.Context) ([]replay.Progress, error)
	Resume(ctx context.Context, id string, opts replay.Options) (*control.Result, error)
}

const (
	// planTimeout bounds the planning of a replay: whoever asks is waiting, and the
	// admin address writes an answer within 30 s or not at all.
	planTimeout = 20 * time.Second
	// soon is how long a begun replay is waited for before it is answered how far
	// it is: one delivery is through by then.
	soon = time.Second
	// maxReplays bounds how many replays a process plans and runs at once: a plan
	// of replay.MaxEvents takes about 120 MB.
	maxReplays = 4
	// keptReplays is how many ended ones are remembered with their errors.
	keptReplays = 100
	// stopReplays is how long those under way are waited for when the process stops.
	stopReplays = 3 * time.Second
)

// ErrNoReplays says that this process cannot replay.
var ErrNoReplays = errors.New("this process cannot replay: it does not know the event topics (set HOOKLINE_EVENTS_TOPICS for it, or use hookline replay)")

// ErrBusy says that enough replays are under way.
var ErrBusy = fmt.Errorf("%d replays are under way in this process (wait until one has ended)", maxReplays)

// ErrUnderWay says that the same is under way.
var ErrUnderWay = errors.New("the same replay is under way")

// ErrStopping says that the process stops, or has not begun.
var ErrStopping = errors.New("this process is stopping (ask another one, or again in a moment)")

// SelectionError says what is wrong with what was selected.
type SelectionError struct{ error }

// Unwrap gives the error itself.
func (e SelectionError) Unwrap() error { return e.error }

// Replay is one replay and how far it has come.
type Replay struct {
	replay.Progress
	// Plan is what it was to do; nil: another process, or an earlier one, began it.
	Plan *replay.Plan
	// Here: this process runs it now.
	Here bool
	// Waiting is why it does not go on at once.
	Waiting replay.Waiting
	// Error is why it ended before its end; empty: it did not, or not in this
	// process.
	Error string
}

// Replays plans and runs replays in the background of a process. Safe for
// concurrent use.
type Replays struct {
	replayer Replayer
	log      *slog.Logger

	mu      sync.Mutex
	ctx     context.Context // of those under way; nil: not running
	running sync.WaitGroup
	jobs    []*job // those under way and the last that ended, oldest first
	slots   int    // of those under way, planning ones too
	// catchUps has the last one of each subscription, by its id; guarded by mu
	catchUps map[string]*catchUp
}

// job is a replay under way, or one that has ended.
type job struct {
	sel   replay.Selection
	ended chan struct{} // closed when it has
	// failure is why it ended; written before ended is closed, read after.
	failure error

	mu    sync.Mutex
	state Replay // guarded by mu
}

func (j *job) look() Replay {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.state
}

func (j *job) set(f func(*Replay)) {
	j.mu.Lock()
	defer j.mu.Unlock()
	f(&j.state)
}

// NewReplays makes it; nothing is begun before Run.
func NewReplays(r Replayer, log *slog.Logger) *Replays {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Replays{replayer: r, log: log}
}

// Run lets replays be begun until ctx ends, interrupts those under way then, and
// waits for them. An interrupted one goes on when the same is begun again.
func (r *Replays) Run(ctx context.Context) error {
	r.mu.Lock()
	r.ctx = ctx
	r.mu.Unlock()
	<-ctx.Done()
	r.mu.Lock()
	r.ctx = nil // none begins any more
	r.mu.Unlock()
	all := make(chan struct{})
	go func() { r.running.Wait(); close(all) }() // ends with the last replay, each of which ctx ends
	select {
	case <-all:
	case <-time.After(stopReplays):
		r.log.Warn("stopping: a replay does not end")
		<-all
	}
	return nil
}

// take takes a slot; free gives it back.
func (r *Replays) take(sel replay.Selection, begins bool) (context.Context, *job, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ctx == nil {
		return nil, nil, ErrStopping
	}
	if r.slots >= maxReplays {
		return nil, nil, ErrBusy
	}
	j := &job{sel: sel, ended: make(chan struct{})}
	if begins {
		for _, other := range r.jobs {
			if st := other.look(); st.Here && other.sel == sel {
				return nil, nil, fmt.Errorf("%w: %s", ErrUnderWay, cmp.Or(st.ID, "it is being planned"))
			}
		}
		j.state.Here = true
		r.jobs = append(r.jobs, j)
	}
	r.slots++
	r.running.Add(1)
	return r.ctx, j, nil
}

func (r *Replays) free() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.slots--
	r.running.Done()
	for i := 0; len(r.jobs) > keptReplays && i < len(r.jobs); {
		if st := r.jobs[i].look(); st.Here {
			i++
			continue
		}
		r.jobs = slices.Delete(r.jobs, i, i+1)
	}
}

// forget takes a job out that came to nothing.
func (r *Replays) forget(j *job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.jobs = slices.DeleteFunc(r.jobs, func(o *job) bool { return o == j })
}

// Count says what a replay would do, and does nothing.
func (r *Replays) Count(ctx context.Context, who string, sel replay.Selection) (*replay.Plan, error) {
	if err := sel.Check(); err != nil {
		return nil, SelectionError{err}
	}
	base, _, err := r.take(sel, false)
	if err != nil {
		return nil, err
	}
	defer r.free()
	ctx, cancel := context.WithTimeoutCause(ctx, planTimeout, errPlanning)
	defer cancel()
	defer context.AfterFunc(base, cancel)()
	plan, _, err := r.replayer.Run(ctx, sel, replay.Options{Who: who, DryRun: true})
	if err != nil {
		return nil, planningError(ctx, err)
	}
	return &plan, nil
}

// errPlanning says that a plan took too long; nothing is enqueued then.
var errPlanning = fmt.Errorf("the events could not be looked through in %v: nothing was done (select a shorter time, or use hookline replay): %w", planTimeout, context.DeadlineExceeded)

func planningError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); errors.Is(cause, errPlanning) {
		return cause
	}
	return err
}

// Begin plans a replay and begins it; rate bounds the events in a second, 0 is
// replay.DefaultRate. When it returns, the replay goes on whether or not anybody
// looks, until it is through or the process stops. It goes on with an unfinished
// one of the same selection.
func (r *Replays) Begin(ctx context.Context, who string, sel replay.Selection, rate int) (*Replay, error) {
	if err := sel.Check(); err != nil {
		return nil, SelectionError{err}
	}
	base, j, err := r.take(sel, true)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancelCause(base)
	planned := make(chan struct{}) // closed by the goroutine below, by Confirm
	go func() {                    // Run waits for it
		defer r.free()
		defer cancel(nil)
		defer close(j.ended)
		r.run(run, j, who, rate, planned)
	}()
	patience, stop := context.WithTimeoutCause(ctx, planTimeout, errPlanning)
	defer stop()
	select {
	case <-planned:
	case <-j.ended:
	case <-patience.Done():
		// Before the plan is confirmed nothing is enqueued.
		cancel(context.Cause(patience))
		<-j.ended
	}
	select {
	case <-planned:
	default: // it ended before there was a plan
		r.forget(j)
		if cause := context.Cause(patience); errors.Is(cause, errPlanning) {
			return nil, cause
		}
		return nil, j.failure
	}
	wait := time.NewTimer(soon)
	defer wait.Stop()
	select {
	case <-j.ended:
	case <-wait.C:
	case <-ctx.Done():
	}
	out := j.look()
	return &out, nil
}

// run runs a job to its end.
func (r *Replays) run(ctx context.Context, j *job, who string, rate int, planned chan<- struct{}) {
	confirm := func(p replay.Plan) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		j.set(func(s *Replay) {
			s.Plan, s.ID, s.Selection, s.Actor, s.Total, s.Events = &p, p.ID, p.Selection, who, p.Events, p.Before
			s.State, s.BegunAt = replay.StateRunning, time.Now().UTC()
		})
		close(planned)
		r.log.Info("replay begins", "replay", p.ID, "actor", who, "subscription", p.Selection.Subscription, "events", p.Events-p.Before)
		return nil
	}
	_, progress, err := r.replayer.Run(ctx, j.sel, replay.Options{
		Who: who, Rate: rate, Confirm: confirm,
		OnProgress: func(p replay.Progress, w replay.Waiting) { j.set(func(s *Replay) { s.Progress, s.Waiting = p, w }) },
	})
	j.failure = err
	j.set(func(s *Replay) {
		s.Here, s.Waiting = false, replay.Waiting{}
		switch {
		case err != nil:
			s.Error = err.Error()
		default:
			s.Progress = progress
		}
	})
	if st := j.look(); st.Plan != nil {
		r.log.Info("replay ended", "replay", st.ID, "actor", who, "events", st.Events, "enqueued", st.Enqueued, "error", err)
	}
}

// List gives the replays of which Kafka knows and those of this process, the last
// begun first, at most limit.
func (r *Replays) List(ctx context.Context, limit int) ([]Replay, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	known, err := r.replayer.List(ctx)
	if err != nil {
		return nil, err
	}
	byID := map[string]Replay{}
	for i := range known {
		byID[known[i].ID] = Replay{Progress: known[i]}
	}
	for _, st := range r.here() {
		// What Kafka knows of one that is not here any more may be newer.
		if k, ok := byID[st.ID]; ok && !st.Here && k.UpdatedAt.After(st.UpdatedAt) {
			continue
		}
		byID[st.ID] = st
	}
	out := make([]Replay, 0, len(byID))
	for _, rep := range byID {
		out = append(out, rep)
	}
	slices.SortFunc(out, func(a, b Replay) int { return cmp.Or(b.BegunAt.Compare(a.BegunAt), cmp.Compare(a.ID, b.ID)) })
	return out[:min(limit, len(out))], nil
}

// here gives the planned jobs of this process, oldest first.
func (r *Replays) here() []Replay {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []Replay
	for _, j := range r.jobs {
		if st := j.look(); st.Plan != nil {
			out = append(out, st)
		}
	}
	return out
}

// Get gives one replay; ErrNotFound where nobody knows it.
func (r *Replays) Get(ctx context.Context, id string) (*Replay, error) {
	for _, st := range slices.Backward(r.here()) {
		if st.ID == id && (st.Here || st.State == replay.StateDone) {
			return &st, nil // without asking Kafka
		}
	}
	all, err := r.List(ctx, maxListed)
	if err != nil {
		return nil, err
	}
	for i := range all {
		if all[i].ID == id {
			return &all[i], nil
		}
	}
	return nil, fmt.Errorf("looking for replay %.64q: %w", id, ErrNotFound)
}

// maxListed is more than the topic of replays holds.
const maxListed = 1 << 30
