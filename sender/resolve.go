package sender

import (
	"context"
	"errors"
	"fmt"
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

// names is a bounded cache over a Resolver. Failures are not kept.
type names struct {
	resolver Resolver
	ttl      time.Duration
	now      func() time.Time

	mu       sync.Mutex
	byHost   map[string]nameEntry
	answered time.Time // the last definite answer, be it that there is no such name
}

type nameEntry struct {
	addrs []netip.Addr
	at    time.Time
}

// lookup returns the host's addresses; callers must not change them. Errors: a
// *net.DNSError with IsNotFound, errNameFails, errResolver, or the context's.
func (n *names) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	start := n.now()
	entry, ok := n.get(host)
	if ok && start.Sub(entry.at) < n.ttl {
		return entry.addrs, nil
	}
	addrs, err := n.resolver.LookupNetIP(ctx, "ip", host)
	now := n.now()
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	var dns *net.DNSError
	switch {
	case err == nil:
		n.put(host, addrs, now)
		return addrs, nil
	case errors.As(err, &dns) && dns.IsNotFound:
		n.sawAnswer(now)
		return nil, err
	case ok && now.Sub(entry.at) < staleNames:
		return entry.addrs, nil
	case n.alive(start) && !isOwnTrouble(err):
		return nil, errNameFails
	default:
		return nil, fmt.Errorf("%w: %w", errResolver, err)
	}
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

func (n *names) put(host string, addrs []netip.Addr, now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answered = now
	if len(n.byHost) >= maxNames {
		// Any one will do: it is looked up again when needed.
		for victim := range n.byHost {
			delete(n.byHost, victim)
			break
		}
	}
	n.byHost[host] = nameEntry{addrs: addrs, at: now}
}

func (n *names) sawAnswer(now time.Time) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.answered = now
}

func (n *names) alive(since time.Time) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.answered.IsZero() && since.Sub(n.answered) < aliveWindow
}
