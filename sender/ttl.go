package sender

import (
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/dns/dnsmessage"
)

// minTTL is the shortest that an answer is kept, whatever it says of itself: one
// look-up a second for a name is enough.
const minTTL = time.Second

// ttlResolver is a Resolver that also tells for how long its answer holds; 0: it
// does not know.
type ttlResolver interface {
	lookupTTL(ctx context.Context, host string) ([]netip.Addr, time.Duration, error)
}

// systemResolver is Go's own resolver with the machine's configuration. Go keeps
// the answers' TTL to itself, so it is read off the wire.
type systemResolver struct{ net.Resolver }

// dialFunc reaches a name server.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

func newSystemResolver(dial dialFunc) *systemResolver {
	return &systemResolver{net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		seen, _ := ctx.Value(ttlKey{}).(*ttlSeen)
		// Go reads on until its own 5 s are over, whoever still waits; it closes
		// the connection before it ends the context.
		context.AfterFunc(ctx, func() { _ = c.Close() })
		if udp, ok := c.(*net.UDPConn); ok && seen != nil {
			return &ttlConn{udp, seen}, nil
		}
		return c, nil // answers that do not fit into UDP are kept for as long as may be
	}}}
}

// ttlKey is of the context value in which a look-up's *ttlSeen travels.
type ttlKey struct{}

// ttlSeen is the shortest TTL in the answers to one look-up.
type ttlSeen struct {
	mu    sync.Mutex // A and AAAA are asked for at once
	any   bool
	least time.Duration
}

func (r *systemResolver) lookupTTL(ctx context.Context, host string) ([]netip.Addr, time.Duration, error) {
	seen := &ttlSeen{}
	addrs, err := r.LookupNetIP(context.WithValue(ctx, ttlKey{}, seen), "ip", host)
	seen.mu.Lock()
	defer seen.mu.Unlock()
	if !seen.any {
		return addrs, 0, err // from the hosts file
	}
	return addrs, max(seen.least, 1), err // a TTL of 0 is known, too
}

// note takes the TTLs of a message; what is no answer has none.
func (s *ttlSeen) note(message []byte) {
	var p dnsmessage.Parser
	h, err := p.Start(message)
	if err != nil || !h.Response || h.RCode != dnsmessage.RCodeSuccess || p.SkipAllQuestions() != nil {
		return
	}
	for {
		rr, err := p.AnswerHeader()
		if err != nil || p.SkipAnswer() != nil {
			return
		}
		s.mu.Lock()
		if ttl := time.Duration(rr.TTL) * time.Second; !s.any || ttl < s.least {
			s.any, s.least = true, ttl
		}
		s.mu.Unlock()
	}
}

// ttlConn shows what is read from a name server to a ttlSeen.
type ttlConn struct {
	*net.UDPConn
	seen *ttlSeen
}

func (c *ttlConn) Read(b []byte) (int, error) {
	n, err := c.UDPConn.Read(b)
	if err == nil {
		c.seen.note(b[:n])
	}
	return n, err
}
