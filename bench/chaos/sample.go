package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/internal/proof"
)

// sample writes down what each process holds. In the end (healed) a process has
// o.giveBack to return what is too much; the last look counts.
func (r *runner) sample(ctx context.Context, healed bool) error {
	var errs []error
	for _, s := range r.slots {
		s.Lock()
		if s.running() {
			errs = append(errs, r.sampleOne(ctx, s, healed))
		}
		s.Unlock()
	}
	return errors.Join(errs...)
}

func (r *runner) sampleOne(ctx context.Context, s *slot, healed bool) error {
	until := time.Now().Add(r.o.giveBack)
	for {
		x, err := s.holds(ctx)
		if err != nil {
			return fmt.Errorf("looking at what %s holds: %w", s.name, err)
		}
		x.At, x.Healed = r.now(), healed
		if healed && r.held.OverLimit(x) {
			if time.Now().Before(until) && ctx.Err() == nil {
				wait(ctx, time.Second)
				continue
			}
			s.dump(ctx)
		}
		r.held.Add(&x)
		return r.journal.Sample(x)
	}
}

// dump writes down where the goroutines of a process are that keeps too much.
func (s *slot) dump(ctx context.Context) {
	path := strings.TrimSuffix(s.log, ".log") + ".goroutines"
	page, err := get(ctx, "http://"+s.admin+"/debug/pprof/goroutine?debug=1")
	if err == nil {
		err = os.WriteFile(path, []byte(page), 0o600)
	}
	if err != nil {
		fmt.Printf("%s keeps more than it may; where its goroutines are: %v\n", s.name, err)
		return
	}
	fmt.Printf("%s keeps more than it may: see %s\n", s.name, path)
}

// holds looks at a process by what the kernel and the Go runtime say of it.
func (s *slot) holds(ctx context.Context) (proof.Sample, error) {
	x := proof.Sample{Life: s.life}
	proc := fmt.Sprintf("/proc/%d/", s.cmd.Process.Pid)
	files, err := os.ReadDir(proc + "fd")
	if errors.Is(err, os.ErrNotExist) {
		return x, nil // no Linux
	}
	if err != nil {
		return x, err
	}
	x.Files = len(files)
	text, err := os.ReadFile(proc + "statm")
	if err != nil {
		return x, err
	}
	if f := strings.Fields(string(text)); len(f) > 1 {
		pages, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return x, err
		}
		x.RSSBytes = pages * int64(os.Getpagesize())
	}
	page, err := get(ctx, "http://"+s.admin+"/metrics")
	if err != nil {
		return x, err
	}
	for line := range strings.Lines(page) {
		if rest, ok := strings.CutPrefix(line, "go_goroutines "); ok {
			x.Goroutines, err = strconv.Atoi(strings.TrimSpace(rest))
		}
	}
	return x, err
}
