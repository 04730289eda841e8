package sender

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/pipeline/secret"
)

const (
	// earlyExpiry: a token is renewed so long before it expires, for clocks that
	// differ and requests that take time.
	earlyExpiry = 10 * time.Second
	// tokenFailure is how long a failure to get a token stands for all requests.
	tokenFailure = time.Second
)

// tokens gets and keeps the token of one subscription (OAuth 2.0 client
// credentials).
type tokens struct {
	cfg    clientcredentials.Config
	client *http.Client
	now    func() time.Time
	turn   chan struct{} // held by the one who asks the token server

	mu       sync.Mutex
	value    string    // the Authorization header; empty: none
	expires  time.Time // zero: not known
	failure  error
	failedAt time.Time
}

// newTokens goes to the token server as requests go to endpoints: the same
// address guard, no proxy, no redirects.
func (c *Client) newTokens(o *pipeline.OAuth2Auth, password secret.Secret, u *endpoint.URL, own *tls.Config) *tokens {
	if own == nil {
		own = c.dialer.tls
	}
	t := &tokens{
		cfg: clientcredentials.Config{
			ClientID: o.ClientID, ClientSecret: password.Reveal(), TokenURL: o.TokenURL, Scopes: o.Scopes,
		},
		now: c.now, turn: make(chan struct{}, 1),
		client: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					return c.dialer.plain(ctx, u)
				},
				// Our own handshake: an error of net/http's does not tell where it came up.
				DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
					ctx, cancel := context.WithTimeout(ctx, c.cfg.RequestTimeout)
					defer cancel()
					return c.dialer.secured(ctx, u, own)
				},
				DisableKeepAlives:      true, // one request in minutes
				DisableCompression:     true,
				MaxResponseHeaderBytes: maxHeaderBytes,
			},
		},
	}
	if o.Audience != "" {
		t.cfg.EndpointParams = url.Values{"audience": {o.Audience}}
	}
	return t
}

// plain is a guarded TCP connection, within the limit of dials.
func (d *dialer) plain(ctx context.Context, u *endpoint.URL) (net.Conn, error) {
	release, err := d.slot(ctx, false)
	if err != nil {
		return nil, err
	}
	defer release()
	addrs, err := d.resolve(ctx, u)
	if err != nil {
		return nil, err
	}
	return d.connect(ctx, addrs, u.Port)
}

// secured is plain under TLS.
func (d *dialer) secured(ctx context.Context, u *endpoint.URL, own *tls.Config) (net.Conn, error) {
	tcp, err := d.plain(ctx, u)
	if err != nil {
		return nil, err
	}
	cfg := own.Clone()
	cfg.ServerName = u.Host
	conn := tls.Client(tcp, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, &dialError{phaseTLS, u.Authority, err}
	}
	return conn, nil
}

// get returns the Authorization header's value. Of many callers one asks the
// token server, the others wait for what it got.
func (t *tokens) get(ctx context.Context, deadline time.Time) (string, error) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	if value, err := t.known(); value != "" || err != nil {
		return value, err
	}
	select {
	case t.turn <- struct{}{}:
		defer func() { <-t.turn }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	if value, err := t.known(); value != "" || err != nil {
		return value, err
	}
	value, expires, err := t.fetch(ctx)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.value, t.expires, t.failure, t.failedAt = value, expires, err, t.now()
	return value, err
}

// known is the token at hand, or a failure that is fresh; neither: ask.
func (t *tokens) known() (string, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	switch {
	case t.value != "" && (t.expires.IsZero() || now.Before(t.expires.Add(-earlyExpiry))):
		return t.value, nil
	case t.failure != nil && now.Sub(t.failedAt) < tokenFailure:
		return "", t.failure
	}
	return "", nil
}

// drop forgets the token that an endpoint refused, unless it was replaced.
func (t *tokens) drop(value string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.value == value {
		t.value = ""
	}
}

// errToken is an answer without a usable token. It never quotes the answer.
type errToken struct {
	outcome pipeline.Outcome
	text    string
}

func (e *errToken) Error() string { return e.text }

func (t *tokens) fetch(ctx context.Context) (value string, expires time.Time, err error) {
	token, err := t.cfg.Token(context.WithValue(ctx, oauth2.HTTPClient, t.client))
	if err != nil {
		return "", time.Time{}, tokenError(err)
	}
	value = "Bearer " + token.AccessToken
	if !strings.EqualFold(token.Type(), "bearer") || len(value) > maxAuthorization || !endpoint.ValidValue(value) {
		return "", time.Time{}, &errToken{pipeline.OutcomeProtocolError, "not a bearer token that a header can carry"}
	}
	if !token.Expiry.IsZero() {
		// By our own clock, which the library does not know.
		expires = t.now().Add(time.Until(token.Expiry))
	}
	return value, expires, nil
}

// tokenErrors are the codes of RFC 6749, section 5.2.
var tokenErrors = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
}

// tokenError keeps what classify understands and drops what quotes the answer.
func tokenError(err error) error {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		text := fmt.Sprintf("the token server answered %d", refused.Response.StatusCode)
		if slices.Contains(tokenErrors, refused.ErrorCode) {
			text += " " + refused.ErrorCode
		}
		return &errToken{pipeline.OutcomeResponseError, text}
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return err
	}
	return &errToken{pipeline.OutcomeProtocolError, "the token server's answer has no token"}
}

func classifyToken(err error) verdict {
	const prefix = "oauth2: "
	if own, ok := errors.AsType[*errToken](err); ok {
		return verdict{own.outcome, prefix + own.text}
	}
	if errors.Is(err, errClosed) || errors.Is(err, errDialSlots) {
		return verdict{pipeline.OutcomeLocalError, prefix + rootText(err)}
	}
	if isTimeout(err) {
		return verdict{pipeline.OutcomeTimeout, prefix + "the token server did not answer in time"}
	}
	v := classify(phaseRead, err, "")
	v.text = prefix + v.text
	return v
}
