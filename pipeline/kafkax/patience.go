package kafkax

import (
	"context"
	"crypto/tls"
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

const (
	// startPatience is how long Persist tries anew while Kafka answers, however it does.
	startPatience = 30 * time.Second
	// pingTimeout bounds one look whether a broker answers.
	pingTimeout = 10 * time.Second
	// leftTries is how often Recall tries: each takes up to its own time.
	leftTries = 2
)

// Persist makes do's step until it is done, for a process that begins: Kafka may go
// away in the moment in which it does. While nobody answers it tries without end;
// what Kafka answers must become better within 30 s. tell is told of each failure
// that is tried anew. Errors: do's last, also when ctx is done.
func Persist(ctx context.Context, tell func(error), do func() error) error {
	var answered time.Time // since when Kafka has answered; zero: it does not
	for tries := 0; ; tries++ {
		err := do()
		if err == nil || ctx.Err() != nil || !transient(err) {
			return err
		}
		switch _, ok := errors.AsType[*kerr.Error](err); {
		case !ok:
			answered = time.Time{}
		case answered.IsZero():
			answered = time.Now()
		case time.Since(answered) > startPatience:
			return err
		}
		tell(err)
		if pause(ctx, tries) != nil {
			return err
		}
	}
}

// transient is retriable where a time limit was do's own, or the connection's.
func transient(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return false
	}
	return retriable(err) || errors.Is(err, context.DeadlineExceeded)
}

// Recall makes do, which looks for what a predecessor has left, twice at most, each
// time when a broker answers: a process that begins must not wait for ever for what
// it can do without.
func Recall(ctx context.Context, cl *kgo.Client, tell func(error), do func() error) error {
	for tries := 1; ; tries++ {
		err := Persist(ctx, tell, func() error {
			ctx, cancel := context.WithTimeout(ctx, pingTimeout)
			defer cancel()
			return cl.Ping(ctx)
		})
		if err == nil {
			err = do()
		}
		if err == nil || ctx.Err() != nil || tries == leftTries || !transient(err) {
			return err
		}
		tell(err)
	}
}
