// Package api is what people and programs ask hookline for over HTTP at the
// admin address, under /api/v1: the subscriptions and how they do, deliveries
// and their attempts, sums over time. Service is the same without HTTP, for the
// console.
package api

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

// Log is the delivery log; sink.Reader is one.
type Log interface {
	Attempts(ctx context.Context, f sink.Filter) iter.Seq2[*sink.AttemptRow, error]
	Deliveries(ctx context.Context, q sink.DeliveryQuery) (*sink.DeliveryPage, error)
	Events(ctx context.Context, at []pipeline.Position) (map[pipeline.Position]*sink.StoredEvent, error)
	Series(ctx context.Context, q sink.SeriesQuery) ([]sink.Point, error)
	SubscriptionStats(ctx context.Context, ids []string, since time.Time) (map[string]sink.SubscriptionStats, error)
}

// Registry is the subscriptions at one version; registry.Snapshot is one.
type Registry interface {
	Get(id string) *pipeline.Subscription
	All() iter.Seq[*pipeline.Subscription]
	State(id string) *registry.StateInfo
	Refused() iter.Seq2[string, error]
}

// Deps is what a Service works with.
type Deps struct {
	Log Log
	// Snapshot is the registry as it is now; nil where it has not been read yet.
	Snapshot func() Registry
	// Operator and Editor carry out what changes something.
	Operator Operator
	Editor   Editor
	// Replays plans and runs replays; nil: this process cannot.
	Replays *Replays
	Logger  *slog.Logger // nil: nothing is logged
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Service answers questions and carries out what is asked. Safe for concurrent
// use.
type Service struct {
	deps    Deps
	answers answers
}

// NewService makes a service.
func NewService(d Deps) *Service {
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	return &Service{deps: d}
}

// Now is the service's clock.
func (s *Service) Now() time.Time { return s.deps.Now() }

// ErrNotFound says that there is no such thing.
var ErrNotFound = errors.New("there is no such thing")

// ErrNotReady says that the subscriptions have not been read yet.
var ErrNotReady = errors.New("the subscriptions are still being read (try again in a moment)")

// queryTimeout bounds a question to ClickHouse: who asks is waiting.
const queryTimeout = 10 * time.Second

// maxAttempts bounds the attempts of one delivery that are shown: four in each
// round, and rounds are begun by people.
const maxAttempts = 500

// Delivery is one delivery, with all its attempts, oldest first, and its event,
// which is nil where it is not stored (yet, or any longer).
type Delivery struct {
	ID       string
	State    sink.DeliveryState
	Attempts []*sink.AttemptRow
	Event    *sink.StoredEvent
}

// Last is the newest attempt.
func (d *Delivery) Last() *sink.AttemptRow { return d.Attempts[len(d.Attempts)-1] }

// Delivery gives one delivery; ErrNotFound where no attempt of it is stored.
func (s *Service) Delivery(ctx context.Context, id string) (*Delivery, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	d := &Delivery{ID: id}
	for row, err := range s.deps.Log.Attempts(ctx, sink.Filter{Delivery: id, Limit: maxAttempts}) {
		if err != nil {
			return nil, err
		}
		d.Attempts = append(d.Attempts, row)
	}
	if len(d.Attempts) == 0 {
		return nil, fmt.Errorf("looking for delivery %.64q: %w", id, ErrNotFound)
	}
	last := d.Last()
	d.State = sink.StateOf(&last.Attempt)
	events, err := s.deps.Log.Events(ctx, []pipeline.Position{last.Envelope.Source})
	if err != nil {
		return nil, err
	}
	d.Event = events[last.Envelope.Source]
	return d, nil
}

// Deliveries gives a page of deliveries.
func (s *Service) Deliveries(ctx context.Context, q sink.DeliveryQuery) (*sink.DeliveryPage, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return s.deps.Log.Deliveries(ctx, q)
}

// Series gives attempts over time.
func (s *Service) Series(ctx context.Context, q sink.SeriesQuery) ([]sink.Point, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	return s.deps.Log.Series(ctx, q)
}

// Operator is what carries out operators' commands.
func (s *Service) Operator() Operator { return s.deps.Operator }

// Editor is what changes subscriptions.
func (s *Service) Editor() Editor { return s.deps.Editor }

// Replays is what plans and runs replays; ErrNoReplays where this process cannot.
func (s *Service) Replays() (*Replays, error) {
	if s.deps.Replays == nil {
		return nil, ErrNoReplays
	}
	return s.deps.Replays, nil
}

// Found is what an id led to.
type Found struct {
	Subscription string // an id; empty: none
	Delivery     string // an id; empty: none
	Deliveries   []sink.DeliveryRow
	Next         sink.DeliveryCursor
}

// MaxSearch bounds what is looked for, in bytes.
const MaxSearch = 300

// searchRows is how many deliveries a search gives.
const searchRows = 50

// Search looks for what has this id: a subscription, a delivery, the deliveries of
// an event or of a correlation id.
func (s *Service) Search(ctx context.Context, id string) (*Found, error) {
	f := &Found{}
	if id == "" || len(id) > MaxSearch {
		return f, nil
	}
	if snap := s.deps.Snapshot(); snap != nil && snap.Get(id) != nil {
		f.Subscription = id
	}
	queries := [...]sink.DeliveryQuery{{Delivery: id}, {Event: id}, {Correlation: id}}
	var pages [len(queries)]*sink.DeliveryPage
	all, ctx := errgroup.WithContext(ctx)
	for i, q := range queries {
		q.Limit = searchRows
		all.Go(func() (err error) {
			pages[i], err = s.Deliveries(ctx, q)
			return err
		})
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	for i, page := range pages {
		if len(page.Deliveries) == 0 {
			continue
		}
		f.Deliveries, f.Next = page.Deliveries, page.Next
		f.Delivery = queries[i].Delivery
		break
	}
	return f, nil
}
