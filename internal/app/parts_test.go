package app

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// record is a part that notes when it starts and stops.
type record struct {
	mu     sync.Mutex
	events []string
}

func (r *record) note(s string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, s)
}

func (r *record) part(name string, started chan<- string) part {
	return part{name: name, stopWithin: time.Second, run: func(ctx context.Context) error {
		started <- name
		<-ctx.Done()
		r.note("stop " + name)
		return nil
	}}
}

func TestPartsStopInReverse(t *testing.T) {
	r := &record{}
	started := make(chan string, 3)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 3 {
			<-started
		}
		cancel()
	}()
	err := runParts(ctx, []part{r.part("a", started), r.part("b", started), r.part("c", started)}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"stop c", "stop b", "stop a"}; !slices.Equal(r.events, want) {
		t.Errorf("%v, want %v", r.events, want)
	}
}

// TestPartsDrainTogether: parts with work under way are told at once, before any
// other, which are there until they are through.
func TestPartsDrainTogether(t *testing.T) {
	r := &record{}
	var both sync.WaitGroup
	both.Add(2)
	drain := func(name string) part {
		return part{name: name, stopWithin: 10 * time.Second, drains: true, run: func(ctx context.Context) error {
			<-ctx.Done()
			both.Done()
			both.Wait() // until the other has been told too
			r.note("drained")
			return nil
		}}
	}
	started := make(chan string, 2)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		for range 2 {
			<-started
		}
		cancel()
	}()
	parts := []part{r.part("a", started), drain("x"), r.part("b", started), drain("y")}
	if err := runParts(ctx, parts, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	if want := []string{"drained", "drained", "stop b", "stop a"}; !slices.Equal(r.events, want) {
		t.Errorf("%v, want %v", r.events, want)
	}
}

func TestFailureOfOnePartStopsAll(t *testing.T) {
	r := &record{}
	started := make(chan string, 2)
	bad := part{name: "sink", stopWithin: time.Second, run: func(context.Context) error {
		<-started
		return errors.New("topic deleted")
	}}
	err := runParts(t.Context(), []part{r.part("registry", started), bad}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "running the sink: topic deleted") {
		t.Errorf("got %v", err)
	}
	if want := []string{"stop registry"}; !slices.Equal(r.events, want) {
		t.Errorf("%v, want %v", r.events, want)
	}
}

func TestPartThatEndsOfItselfIsAFailure(t *testing.T) {
	err := runParts(t.Context(), []part{{name: "router", stopWithin: time.Second, run: func(context.Context) error { return nil }}}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "running the router: it ended of itself") {
		t.Errorf("got %v", err)
	}
}

func TestPartThatHangsIsLeft(t *testing.T) {
	release := make(chan struct{})
	finished := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := runParts(ctx, []part{{name: "dispatcher", stopWithin: time.Millisecond, run: func(context.Context) error {
		defer close(finished)
		<-release
		return nil
	}}}, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "did not stop within 1ms") {
		t.Errorf("got %v", err)
	}
	close(release)
	<-finished
}
