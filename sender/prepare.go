package sender

import (
	"sync"
	"sync/atomic"

	"github.com/valyala/fasthttp"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

// maxPrepared bounds the subscriptions that are kept prepared; beyond it all are
// forgotten and prepared again, at a few microseconds each.
const maxPrepared = 1 << 18

// prepared keeps what is the same for every try of a subscription, by its id.
type prepared struct {
	byID sync.Map // string -> *target
	n    atomic.Int64
}

// target is a subscription ready to be sent to. Immutable.
type target struct {
	sub     *pipeline.Subscription
	err     error // the URL or the headers are refused
	url     *endpoint.URL
	key     poolKey
	header  fasthttp.RequestHeader // what every request has
	secrets bool                   // some header's value is kept out of the log
}

// prepare returns the subscription's target. A subscription that changed is
// another one to the registry, and is prepared anew.
func (c *Client) prepare(sub *pipeline.Subscription) *target {
	known, ok := c.prepared.byID.Load(sub.ID)
	if ok {
		if t := known.(*target); t.sub == sub {
			return t
		}
	}
	t := c.newTarget(sub)
	if !ok && c.prepared.n.Add(1) > maxPrepared {
		c.prepared.byID.Clear()
		c.prepared.n.Store(1)
	}
	c.prepared.byID.Store(sub.ID, t)
	return t
}

func (c *Client) newTarget(sub *pipeline.Subscription) *target {
	t := &target{sub: sub}
	if t.url, t.err = endpoint.ParseURL(sub.URL, c.parsed.policy); t.err != nil {
		return t
	}
	if t.err = endpoint.CheckHeaders(sub.Headers); t.err != nil {
		return t
	}
	t.key = poolKey{tenant: sub.Tenant, host: t.url.Host, port: t.url.Port, tls: t.url.TLS()}
	if c.cfg.ShareConnections {
		t.key.tenant = ""
	}
	h := &t.header
	h.DisableNormalizing() // names go out as they are written here and by the customer
	h.SetMethod(fasthttp.MethodPost)
	h.SetRequestURI(t.url.Target)
	h.SetHost(t.url.Authority)
	h.SetUserAgent(c.userAgent)
	h.Set("X-Hookline-Subscription", endpoint.SafeValue(sub.ID))
	for _, custom := range sub.Headers {
		h.Set(custom.Name, custom.Value)
		t.secrets = t.secrets || endpoint.SecretHeader(custom.Name)
	}
	return t
}
