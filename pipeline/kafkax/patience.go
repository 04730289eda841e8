package kafkax

import (
	"context"
	"errors"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// pause waits a moment that grows with tries (from 0), or until ctx is done.
func pause(ctx context.Context, tries int) error {
	t := time.NewTimer(min(minBackoff<<min(tries, 10), maxBackoff))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// retriable tells whether a request may do better a little later: what Kafka
// says so of, and everything that is not an answer of Kafka's at all.
func retriable(err error) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, kgo.ErrClientClosed) {
		return false
	}
	if _, ok := errors.AsType[*RecreatedError](err); ok {
		return false
	}
	if ke, ok := errors.AsType[*kerr.Error](err); ok {
		return ke.Retriable
	}
	return true
}

// startPatience is how long Persist tries anew while Kafka answers, however it does.
const startPatience = 2 * patience

// Persist makes do's step until it is done, for a process that begins: Kafka may go
// away in the moment in which it does. While nobody answers it tries without end;
// what Kafka answers, and what comes to no end in do's own time, must be done within
// 30 s. tell is told of each failure that is tried anew. Errors: do's last, also when
// ctx is done.
func Persist(ctx context.Context, tell func(error), do func() error) error {
	since := time.Now()
	for tries := 0; ; tries++ {
		err := do()
		if err == nil || ctx.Err() != nil {
			return err
		}
		late := errors.Is(err, context.DeadlineExceeded)
		if !late && !retriable(err) {
			return err
		}
		if _, answered := errors.AsType[*kerr.Error](err); !answered && !late {
			since = time.Now()
		} else if time.Since(since) > startPatience {
			return err
		}
		tell(err)
		if pause(ctx, tries) != nil {
			return err
		}
	}
}
