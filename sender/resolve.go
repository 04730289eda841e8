package sender

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Resolver looks names up; *net.Resolver is one. An error that tells of the
// name itself is a *net.DNSError with IsNotFound.
type Resolver interface {
	LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error)
}

const (
	// maxNames bounds the names in the cache.
	maxNames = 16384
	// staleNames is how long an old answer may be used while the resolver fails.
	staleNames = 10 * time.Minute
	// aliveWindow: a resolver that answered definitely within it is taken for
	// alive, so that a name for which it fails is the name's own fault.
	aliveWindow = 10 * time.Second
)

// errNameFails: the resolver works, but not for this name (its servers fail).
var errNameFails = errors.New("name servers fail")

// errResolver: the resolver itself does not answer; a fault of ours.
var errResolver = errors.New("resolver does not answer")

// lookupLimit bounds one look-up, for however many it is made.
const lookupLimit = 10 * time.Second

// names is a bounded cache over a Resolver. Failures are not kept. Of many that
// ask for the same name at once, one asks the resolver.
type names struct {
	resolver Resolver
	ttl      time.Duration // the longest that an answer is kept
	absolute bool          // no search domain is appended
	now      func() time.Time
	ctx      context.Context // ends the look-ups
	work     sync.WaitGroup  // the look-ups

	mu       sync.Mutex
	byHost   map[string]nameEntry
	asked    map[string]*question
	answered time.Time // the last definite answer, be it that there is no such name
}

func newNames(ctx context.Context, r Resolver, ttl time.Duration, now func() time.Time) *names {
	return &names{resolver: r, ttl: ttl, now: now, ctx: ctx, byHost: map[string]nameEntry{}, asked: map[string]*question{}}
}

type nameEntry struct {
	addrs []netip.Addr
	at    time.Time
	until time.Time
}

// question is a look-up under way. The fields are read once done is closed.
type question struct {
	done  chan struct{}
	entry nameEntry
	err   error
}

// lookup returns the host's addresses; callers must not change them. Errors: a
// *net.DNSError with IsNotFound, errNameFails, errResolver, or the context's.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	entry, err := n.find(ctx, host)
	return entry.addrs, err
}

func (n *names) find(ctx context.Context, host string) (nameEntry, error) {
	start := n.now()
	entry, ok := n.get(host)
	if ok && start.Before(entry.until) {
		return entry, nil
	}
	var err error
	q := n.ask(host, start)
	select {
	case <-q.done:
		err = q.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	var dns *net.DNSError
	switch {
	case err == nil:
		return q.entry, nil
	case errors.As(err, &dns) && dns.IsNotFound:
		return nameEntry{}, err
	case ok && n.now().Sub(entry.at) < staleNames:
		return entry, nil
	case n.alive(start) && !isOwnTrouble(err):
		return nameEntry{}, errNameFails
	default:
		return nameEntry{}, fmt.Errorf("%w: %w", errResolver, err)
	}
}

// ask joins the look-up that is under way for the host, or begins one. One that
// ended between the caller's look into the cache and now, which is later than
// start, is joined too: the caller lost the processor in between.
func (n *names) ask(host string, start time.Time) *question {
	n.mu.Lock()
	defer n.mu.Unlock()
	if q := n.asked[host]; q != nil {
		return q
	}
	if e, ok := n.byHost[host]; ok && start.Before(e.until) {
		q := &question{done: make(chan struct{}), entry: e}
		close(q.done)
		return q
	}
	q := &question{done: make(chan struct{})}
	n.asked[host] = q
	n.work.Go(func() {
		ctx, cancel := context.WithTimeout(n.ctx, lookupLimit)
		defer cancel()
		n.answer(ctx, host, q)
	})
	return q
}

// answer asks the resolver and keeps what it says.
func (n *names) answer(ctx context.Context, host string, q *question) {
	name := host
	if n.absolute {
		name += "."
	}
	ttl := n.ttl
	var addrs []netip.Addr
	if r, ok := n.resolver.(ttlResolver); ok {
		var said time.Duration
		if addrs, said, q.err = r.lookupTTL(ctx, name); said > 0 {
			ttl = min(ttl, max(said, minTTL))
		}
	} else {
		addrs, q.err = n.resolver.LookupNetIP(ctx, "ip", name)
	}
	if q.err == nil && len(addrs) == 0 {
		q.err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	now := n.now()
	q.entry = nameEntry{addrs: addrs, at: now, until: now.Add(ttl)}
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.asked, host)
	var dns *net.DNSError
	switch {
	case q.err == nil:
		n.answered = now
		n.put(host, q.entry)
	case errors.As(q.err, &dns) && dns.IsNotFound:
		n.answered = now
	}
	close(q.done)
}

// isOwnTrouble tells whether the resolver could not even be asked. net.DNSError
// keeps such an error as text only.
func isOwnTrouble(err error) bool {
	text := err.Error()
	for _, errno := range localErrnos {
		if strings.Contains(text, errno.Error()) {
			return true
		}
	}
	return strings.Contains(text, syscall.ECONNREFUSED.Error())
}

func (n *names) get(host string) (nameEntry, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e, ok := n.byHost[host]
	return e, ok
}

// put keeps an entry; with mu held.
func (n *names) put(host string, e nameEntry) {
	if len(n.byHost) >= maxNames {
		// Any one will do: it is looked up again when needed.
		for victim := range n.byHost {
			delete(n.byHost, victim)
			break
		}
	}
	n.byHost[host] = e
}

// forget drops what is too old to be used even while the resolver fails.
func (n *names) forget(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.byHost, func(_ string, e nameEntry) bool { return !now.Before(e.until) && now.Sub(e.at) >= staleNames })
}

func (n *names) alive(since time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.answered.IsZero() && since.Sub(n.answered) < aliveWindow
}
