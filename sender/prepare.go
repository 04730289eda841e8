package sender

import (
	"hash/maphash"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

const (
	// maxPrepared bounds the subscriptions that are kept prepared; beyond it all are
	// forgotten and prepared again, at a few microseconds each.
	maxPrepared = 1 << 18
	// forgetEvery is how often what was not used since the time before is
	// forgotten: subscriptions that are gone, or rarely get an event.
	forgetEvery = 5 * time.Minute
)

// cache is a map that forgets what has not been used for one to two times of
// forgetEvery, and everything where it has grown beyond limit. It is in shards, so
// that who looks waits for nobody; a sync.Map takes three times the memory, in
// as many pieces again, which each collection of garbage looks at.
type cache[V any] struct {
	limit  int64
	n      atomic.Int64
	seed   maphash.Seed
	shards [cacheShards]cacheShard[V]
}

// cacheShards: far more than there are drivers.
const cacheShards = 64

type cacheShard[V any] struct {
	mu sync.Mutex // guards what follows
	// younger has what was used since the last call of age, older what was used
	// between the last two.
	younger, older map[string]V
}

func newCache[V any](limit int64) *cache[V] {
	return &cache[V]{limit: limit, seed: maphash.MakeSeed()}
}

func (c *cache[V]) shard(key string) *cacheShard[V] {
	return &c.shards[maphash.String(c.seed, key)%cacheShards]
}

// clear forgets everything.
func (c *cache[V]) clear() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		c.n.Add(-int64(len(s.younger) + len(s.older)))
		s.younger, s.older = nil, nil
		s.mu.Unlock()
	}
}

func (c *cache[V]) get(key string) (value V, ok bool) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if value, ok = s.younger[key]; ok {
		return value, true
	}
	if value, ok = s.older[key]; ok {
		delete(s.older, key)
		s.set(key, value)
	}
	return value, ok
}

func (c *cache[V]) put(key string, value V) {
	s := c.shard(key)
	s.mu.Lock()
	before := len(s.younger) + len(s.older)
	delete(s.older, key)
	s.set(key, value)
	n := c.n.Add(int64(len(s.younger) + len(s.older) - before))
	s.mu.Unlock()
	if n > c.limit {
		c.clear()
	}
}

func (s *cacheShard[V]) set(key string, value V) {
	if s.younger == nil {
		s.younger = map[string]V{}
	}
	s.younger[key] = value
}

// age forgets what was not used since it was called last.
func (c *cache[V]) age() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		c.n.Add(-int64(len(s.older)))
		s.younger, s.older = nil, s.younger
		s.mu.Unlock()
	}
}

// len is how many there are.
func (c *cache[V]) len() int64 { return c.n.Load() }

// target is a subscription ready to be sent to. Immutable. There may be one for
// each of very many subscriptions: it is one piece of memory, what few have is
// apart, and what is cheap to tell from sub and url is not kept.
type target struct {
	sub *pipeline.Subscription
	url endpoint.URL
	*besideURL
	held held
}

// besideURL is what few targets have besides a URL. Immutable.
type besideURL struct {
	err      error             // the URL or the headers are refused
	shown    string            // the URL as the log has it; empty: as the subscription has it
	custom   *customHead       // nil: none
	inbound  endpoint.Inbounds // those that the URL is one of
	tokenURL *endpoint.URL     // of oauth2
}

func (b *besideURL) empty() bool {
	return b.err == nil && b.shown == "" && b.custom == nil && b.inbound == nil && b.tokenURL == nil
}

// onlyURL is the besideURL of most.
var onlyURL = &besideURL{}

// shownURL is the URL as the log has it.
func (t *target) shownURL() string {
	if t.shown != "" {
		return t.shown
	}
	return t.sub.URL
}

// prepare returns the subscription's target. A subscription that changed is
// another one to the registry, and is prepared anew.
func (c *Client) prepare(sub *pipeline.Subscription) *target {
	if t, ok := c.prepared.get(sub.ID); ok && t.sub == sub {
		return t
	}
	t := c.newTarget(sub)
	c.prepared.put(sub.ID, t)
	return t
}

// refuses tells why nothing of env may be sent to the target; nil: it may.
func (t *target) refuses(env *pipeline.Envelope) error {
	if t.err != nil || t.inbound == nil {
		return t.err
	}
	return t.inbound.Check(&t.url, env.Tenant, env.Format)
}

// RedactURL is a subscription's URL as the log has it: without the values of
// its query. What is not a URL that may be sent to is not shown at all. Cheap
// when called again for the same URL.
func (c *Client) RedactURL(raw string) string {
	if known, ok := c.redacted.get(raw); ok {
		return known
	}
	u, err := endpoint.ParseURL(raw, c.parsed.policy)
	shown := shownURL(raw, u, err)
	c.redacted.put(raw, shown)
	return shown
}

// shownURL is raw as the log has it; u and err are what came of parsing it.
func shownURL(raw string, u *endpoint.URL, err error) string {
	if err != nil {
		return "[not a valid URL]"
	}
	if shown := u.Redacted(); shown != raw {
		return shown
	}
	return raw
}

func (c *Client) newTarget(sub *pipeline.Subscription) *target {
	t := &target{sub: sub, besideURL: &besideURL{}}
	c.fill(t)
	if t.empty() {
		t.besideURL = onlyURL // no memory of its own
	}
	return t
}

func (c *Client) fill(t *target) {
	sub := t.sub
	url, err := endpoint.ParseURL(sub.URL, c.parsed.policy)
	if shown := shownURL(sub.URL, url, err); shown != sub.URL {
		t.shown = shown
	}
	if t.err = err; t.err != nil {
		return
	}
	t.url = *url
	if t.err = endpoint.CheckHeaders(sub.Headers); t.err != nil {
		return
	}
	t.inbound = c.parsed.policy.Inbound.At(&t.url)
	if a := sub.Auth; a != nil && a.OAuth2 != nil {
		t.tokenURL, t.err = endpoint.ParseURL(a.OAuth2.TokenURL, c.parsed.policy)
	}
	t.custom = newCustomHead(sub)
}

// key says whose connections the target's requests may use, with credentials of
// that identity.
func (c *Client) key(t *target, identity string) poolKey {
	key := poolKey{tenant: t.sub.Tenant, host: t.url.Host, port: t.url.Port, tls: t.url.TLS(), identity: identity}
	if c.cfg.ShareConnections {
		key.tenant = ""
	}
	return key
}

// signatureHeader is the header that carries the signature, and whether it is
// that of the older way; empty: requests are not signed.
func signatureHeader(sub *pipeline.Subscription) (name string, hub bool) {
	switch s := sub.Signing; {
	case s == nil:
		return "", false
	case s.Scheme == pipeline.SigningHub:
		return s.Header, true
	}
	return "webhook-signature", false
}
