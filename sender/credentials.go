package sender

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hookline/hookline/internal/failpoint"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender/sign"
)

// lookAgain is how often the files of a subscription's secrets are looked at,
// and how soon a secret that could not be had is asked for again.
const lookAgain = time.Second

// maxAuthorization bounds the Authorization header's value; bytes.
const maxAuthorization = 8 << 10

// credentials are a subscription's secrets, resolved, in the forms that its
// requests need. Immutable but for lookedAt. There may be those of very many
// subscriptions: they are one piece of memory.
type credentials struct {
	signer sign.Signer
	*besideSignature
	lookedAt atomic.Int64 // Unix nanoseconds
}

// besideSignature is what few subscriptions have besides a key to sign with.
// Immutable.
type besideSignature struct {
	err           error          // a secret is not to be had: nothing is sent
	stamps        []secret.Stamp // of files
	authorization string         // bearer and basic
	oauth         *tokens        // oauth2
	tls           *tls.Config
	identity      string // of tls, for the pool; empty: the process's own
}

func (b *besideSignature) empty() bool {
	return b.err == nil && len(b.stamps) == 0 && b.authorization == "" && b.oauth == nil && b.tls == nil && b.identity == ""
}

// onlySignature is the besideSignature of most.
var onlySignature = &besideSignature{}

// held has a target's credentials and renews them.
type held struct {
	current atomic.Pointer[credentials]
	mu      sync.Mutex // held by who renews
}

var noCredentials = &credentials{besideSignature: onlySignature}

// credentials returns the target's credentials as of at most lookAgain ago.
func (c *Client) credentials(t *target) *credentials {
	if sub := t.sub; sub.Signing == nil && sub.Auth == nil && sub.CA == "" {
		return noCredentials
	}
	now := c.now()
	cr := t.held.current.Load()
	if cr != nil && !cr.due(now) {
		return cr
	}
	t.held.mu.Lock()
	defer t.held.mu.Unlock()
	if newer := t.held.current.Load(); newer != cr && !newer.due(now) {
		return newer
	}
	if cr != nil && cr.err == nil && !cr.changed() {
		cr.lookedAt.Store(now.UnixNano())
		return cr
	}
	cr = c.resolveCredentials(t)
	cr.lookedAt.Store(now.UnixNano())
	t.held.current.Store(cr)
	return cr
}

func (cr *credentials) due(now time.Time) bool {
	return (cr.err != nil || len(cr.stamps) > 0) && now.UnixNano()-cr.lookedAt.Load() >= int64(lookAgain)
}

func (cr *credentials) changed() bool {
	for _, s := range cr.stamps {
		if s.Changed() {
			return true
		}
	}
	return false
}

// reader resolves the secrets of one subscription and gathers what they are.
type reader struct {
	c   *Client
	sub *pipeline.Subscription
	cr  *credentials
}

func (r *reader) read(what, stored string) (secret.Secret, error) {
	s, stamp, err := r.c.secrets.Resolve(r.sub.ID, stored)
	if err != nil {
		return secret.Secret{}, fmt.Errorf("%s: %w", what, err)
	}
	if !stamp.IsZero() {
		r.cr.stamps = append(r.cr.stamps, stamp)
	}
	return s, nil
}

// public reads what may stand in the subscription as it is.
func (r *reader) public(what, text string) (string, error) {
	if !secret.IsRef(text) {
		return text, nil
	}
	s, err := r.read(what, text)
	return s.Reveal(), err
}

func (c *Client) resolveCredentials(t *target) *credentials {
	r := &reader{c: c, sub: t.sub, cr: &credentials{besideSignature: &besideSignature{}}}
	r.cr.err = errors.Join(r.tls(), r.signing(), r.auth(t))
	if r.cr.err != nil {
		// None of it: a request without its signature is worse than none.
		return &credentials{besideSignature: &besideSignature{err: r.cr.err}}
	}
	if r.cr.empty() {
		r.cr.besideSignature = onlySignature // no memory of its own
	}
	failpoint.Holding(failpoint.CredentialsHeld, func() string { return r.cr.authorization })
	return r.cr
}

func (r *reader) signing() error {
	s := r.sub.Signing
	if s == nil {
		return nil
	}
	keys := make([]sign.Key, 0, len(s.Secrets))
	for i, k := range s.Secrets {
		text, err := r.read("signing.secrets."+strconv.Itoa(i), k.Secret)
		if err != nil {
			// What has expired, or soon will, may be gone already.
			if i > 0 && !k.ExpiresAt.IsZero() && !r.c.now().Before(k.ExpiresAt) {
				continue
			}
			return err
		}
		keys = append(keys, sign.Key{Secret: text, ExpiresAt: k.ExpiresAt})
	}
	signer, err := sign.New(s.Scheme, keys)
	if err != nil {
		return fmt.Errorf("signing: %w", err)
	}
	r.cr.signer = *signer
	return nil
}

func (r *reader) auth(t *target) error {
	a := r.sub.Auth
	switch {
	case a == nil:
		return nil
	case a.Bearer != nil:
		token, err := r.read("auth.bearer", a.Bearer.Secret)
		if err != nil {
			return err
		}
		return r.authorize("auth.bearer", "Bearer "+token.Reveal())
	case a.Basic != nil:
		password, err := r.read("auth.basic", a.Basic.Secret)
		if err != nil {
			return err
		}
		pair := a.Basic.Username + ":" + password.Reveal()
		return r.authorize("auth.basic", "Basic "+base64.StdEncoding.EncodeToString([]byte(pair)))
	case a.OAuth2 != nil:
		password, err := r.read("auth.oauth2", a.OAuth2.Secret)
		if err != nil {
			return err
		}
		r.cr.oauth = r.c.newTokens(a.OAuth2, password, t.tokenURL, r.cr.tls)
	}
	return nil
}

func (r *reader) authorize(what, value string) error {
	if len(value) > maxAuthorization || !endpoint.ValidValue(value) {
		return fmt.Errorf("%s: the secret has characters that a header cannot carry, or more than %d bytes", what, maxAuthorization)
	}
	r.cr.authorization = value
	return nil
}

// tls makes the subscription's own TLS configuration, where it has one.
func (r *reader) tls() error {
	var mtls *pipeline.MTLSAuth
	if r.sub.Auth != nil {
		mtls = r.sub.Auth.MTLS
	}
	if r.sub.CA == "" && mtls == nil {
		return nil
	}
	cfg := r.c.dialer.tls.Clone()
	id := sha256.New()
	if r.sub.CA != "" {
		pem, err := r.public("tls.ca", r.sub.CA)
		if err != nil {
			return err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM([]byte(pem)) {
			return errors.New("tls.ca: no certificate in PEM")
		}
		id.Write([]byte(pem))
	}
	id.Write([]byte{0})
	if mtls != nil {
		cert, err := r.certificate(mtls)
		if err != nil {
			return err
		}
		cfg.Certificates = []tls.Certificate{cert}
		for _, der := range cert.Certificate {
			id.Write(der)
		}
	}
	r.cr.tls, r.cr.identity = cfg, hex.EncodeToString(id.Sum(nil))
	return nil
}

func (r *reader) certificate(m *pipeline.MTLSAuth) (tls.Certificate, error) {
	pem, err := r.public("auth.mtls.cert", m.Cert)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := r.read("auth.mtls.key", m.Key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair([]byte(pem), []byte(key.Reveal()))
	if err != nil { // its text may tell of the key
		return tls.Certificate{}, errors.New("auth.mtls: certificate and key, in PEM, do not belong together")
	}
	return cert, nil
}

// authorization gives the Authorization header's value; empty: none. Where it
// cannot be had, the verdict says why.
func (c *Client) authorization(cr *credentials, deadline time.Time) (string, *verdict) {
	if cr.err != nil {
		return "", unavailable(cr.err)
	}
	if cr.oauth == nil {
		return cr.authorization, nil
	}
	value, err := cr.oauth.get(c.ctx, deadline)
	if err == nil {
		return value, nil
	}
	if c.closing.Load() {
		err = errClosed
	}
	v := classifyToken(err)
	return "", &v
}

// sendAuthorized makes the try; an answer of 401 to a token makes another one
// with a new token, once and within the same time limit.
func (c *Client) sendAuthorized(x *exchange, req *pipeline.Request, res *pipeline.Result) {
	cr := c.credentials(x.to)
	used, v := c.authorization(cr, x.deadline)
	if v != nil {
		res.Outcome, res.Error = v.outcome, v.text
		return
	}
	c.sendAs(x, cr, used, req, res)
	if cr.oauth == nil || res.StatusCode != http.StatusUnauthorized {
		return
	}
	cr.oauth.drop(used)
	fresh, v := c.authorization(cr, x.deadline)
	if v != nil || fresh == used {
		return // the answer that there was says more
	}
	res.Resends, res.StatusCode, res.Error = res.Resends+1, 0, ""
	res.RequestHeaders, res.ResponseHeaders, res.ResponseBody = res.RequestHeaders[:0], res.ResponseHeaders[:0], res.ResponseBody[:0]
	res.ResponseTruncated, res.RetryAfter = false, 0
	c.sendAs(x, cr, fresh, req, res)
}

// sendAs sends the request with that Authorization header.
func (c *Client) sendAs(x *exchange, cr *credentials, authorization string, req *pipeline.Request, res *pipeline.Result) {
	x.authorization = authorization
	if err := x.build(c, x.to, cr, req, res); err != nil {
		v := unavailable(err)
		res.Outcome, res.Error = v.outcome, v.text
		return
	}
	c.try(x, cr, res)
}

// unavailable is the verdict on credentials that are not to be had: a fault on
// our side, which spends no attempt.
func unavailable(err error) *verdict {
	return &verdict{pipeline.OutcomeLocalError, "secret: " + strings.ReplaceAll(err.Error(), "\n", "; ")}
}
