package sender

import (
	"sync"
	"sync/atomic"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

// maxPrepared bounds the subscriptions that are kept prepared; beyond it all are
// forgotten and prepared again, at a few microseconds each.
const maxPrepared = 1 << 18

// cache is a map that forgets everything when it has grown beyond limit.
type cache[V any] struct {
	limit int64
	m     sync.Map // string -> V
	n     atomic.Int64
}

func (c *cache[V]) get(key string) (value V, ok bool) {
	known, ok := c.m.Load(key)
	if ok {
		value = known.(V)
	}
	return value, ok
}

func (c *cache[V]) put(key string, value V) {
	if _, replaced := c.m.Swap(key, value); !replaced && c.n.Add(1) > c.limit {
		c.m.Clear()
		c.m.Store(key, value)
		c.n.Store(1)
	}
}

// target is a subscription ready to be sent to. Immutable.
type target struct {
	sub     *pipeline.Subscription
	shown   string // the URL as the log has it
	err     error  // the URL or the headers are refused
	url     *endpoint.URL
	key     poolKey
	head    head              // of every request
	inbound endpoint.Inbounds // those that the URL is one of

	signature string        // the header that carries the signature; empty: not signed
	hubHeader string        // the same, of the older way of signing
	tokenURL  *endpoint.URL // of oauth2
	held      held
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
	return t.inbound.Check(t.url, env.Tenant, env.Format)
}

// RedactURL is a subscription's URL as the log has it: without the values of
// its query. What is not a URL that may be sent to is not shown at all. Cheap
// when called again for the same URL.
func (c *Client) RedactURL(raw string) string {
	if known, ok := c.redacted.get(raw); ok {
		return known
	}
	shown := "[not a valid URL]"
	if u, err := endpoint.ParseURL(raw, c.parsed.policy); err == nil {
		shown = u.Redacted()
	}
	c.redacted.put(raw, shown)
	return shown
}

func (c *Client) newTarget(sub *pipeline.Subscription) *target {
	t := &target{sub: sub, shown: c.RedactURL(sub.URL)}
	if t.url, t.err = endpoint.ParseURL(sub.URL, c.parsed.policy); t.err != nil {
		return t
	}
	if t.err = endpoint.CheckHeaders(sub.Headers); t.err != nil {
		return t
	}
	t.inbound = c.parsed.policy.Inbound.At(t.url)
	t.key = poolKey{tenant: sub.Tenant, host: t.url.Host, port: t.url.Port, tls: t.url.TLS()}
	if c.cfg.ShareConnections {
		t.key.tenant = ""
	}
	t.err = c.prepareCredentials(t)
	t.head = newHead(t.url, c.userAgent, t.signature, sub)
	return t
}

// prepareCredentials notes what the target's secrets are for; they are read when
// they are first needed.
func (c *Client) prepareCredentials(t *target) (err error) {
	sub := t.sub
	t.held.needed = sub.Signing != nil || sub.Auth != nil || sub.CA != ""
	if s := sub.Signing; s != nil {
		t.signature = "webhook-signature"
		if s.Scheme == pipeline.SigningHub {
			t.hubHeader, t.signature = s.Header, s.Header
		}
	}
	if a := sub.Auth; a != nil && a.OAuth2 != nil {
		t.tokenURL, err = endpoint.ParseURL(a.OAuth2.TokenURL, c.parsed.policy)
	}
	return err
}
