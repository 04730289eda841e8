// Package access says who may do what at the admin address: tokens and their
// scopes, the session of a browser that gave one, and the requests that are
// refused because another site made the browser send them.
package access

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Scope is what a request may do. Each one includes those before it.
type Scope int

// The scopes.
const (
	None  Scope = iota // nothing that tells of events or subscriptions
	Read               // look at everything but secrets
	Write              // change subscriptions and lanes
)

// String is the scope's word in messages and documents.
func (s Scope) String() string {
	switch s {
	case Read:
		return "read"
	case Write:
		return "write"
	case None:
	}
	return "none"
}

// Options of a Guard.
type Options struct {
	// Token gives the scope write, ReadToken read; empty: there is no such token.
	Token, ReadToken string
	// Anonymous is the scope of requests without a token: None or Read. Read is
	// for loopback addresses alone.
	Anonymous Scope
	// Loopback: the address is reached from this machine alone, so that a Host
	// which is none of this machine's names is that of a site whose name was made
	// to lead here. Hosts are further names that are accepted, without ports.
	Loopback bool
	Hosts    []string
	// Now is the clock; nil: time.Now.
	Now func() time.Time
}

// Guard tells the scope of requests. Safe for concurrent use.
type Guard struct {
	opts   Options
	tokens [2]digest // by scope: of Read, of Write; zero where there is none
	key    []byte    // of sessions: whoever changes a token ends them all
	origin *http.CrossOriginProtection
}

type digest struct {
	sum [sha256.Size]byte
	set bool
}

func digestOf(token string) digest {
	return digest{sha256.Sum256([]byte(token)), token != ""}
}

// New makes a guard.
func New(o Options) *Guard {
	if o.Now == nil {
		o.Now = time.Now
	}
	mac := hmac.New(sha256.New, []byte("hookline session/1\x00"+o.Token+"\x00"+o.ReadToken))
	return &Guard{
		opts: o, tokens: [2]digest{digestOf(o.ReadToken), digestOf(o.Token)}, key: mac.Sum(nil),
		origin: http.NewCrossOriginProtection(),
	}
}

// scopeOf is the scope of a token, None for one that is not known. It takes as
// long whatever the token is.
func (g *Guard) scopeOf(token string) Scope {
	got, scope := sha256.Sum256([]byte(token)), None
	for i, want := range g.tokens {
		if same := subtle.ConstantTimeCompare(got[:], want.sum[:]) == 1; same && want.set {
			scope = Scope(i + 1)
		}
	}
	return scope
}

// HasTokens tells whether there is anything to log in with.
func (g *Guard) HasTokens() bool { return g.tokens[0].set || g.tokens[1].set }

const (
	cookieName = "hookline_session"
	// SessionLife is how long a browser stays logged in.
	SessionLife = 12 * time.Hour
)

// Login gives a browser the scope of a token for SessionLife; None: the token is
// not known, and nothing was set.
func (g *Guard) Login(w http.ResponseWriter, r *http.Request, token string) Scope {
	scope := g.scopeOf(token)
	if scope == None {
		return None
	}
	setCookie(w, r, g.session(scope, g.opts.Now().Add(SessionLife)), int(SessionLife/time.Second))
	return scope
}

// Logout takes it back from this browser.
func (g *Guard) Logout(w http.ResponseWriter, r *http.Request) { setCookie(w, r, "", -1) }

func setCookie(w http.ResponseWriter, r *http.Request, value string, maxAge int) {
	// Strict: no request that another site caused carries it.
	http.SetCookie(w, &http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	})
}

// session is the cookie's value: what it grants and until when, and a seal. No
// process keeps anything: any that has the same tokens accepts it.
func (g *Guard) session(scope Scope, until time.Time) string {
	b := binary.BigEndian.AppendUint64([]byte{byte(scope)}, uint64(until.Unix()))
	mac := hmac.New(sha256.New, g.key)
	mac.Write(b)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(b))
}

// sessionScope is what a cookie grants, None for one that this guard did not
// give. It never grants a scope that no token gives: without the token the seal
// has nothing secret in it, and whoever reads this file could make one.
func (g *Guard) sessionScope(value string) Scope {
	if !g.HasTokens() {
		return None
	}
	b, err := base64.RawURLEncoding.DecodeString(value)
	if err != nil || len(b) != 9+sha256.Size {
		return None
	}
	mac := hmac.New(sha256.New, g.key)
	mac.Write(b[:9])
	if !hmac.Equal(mac.Sum(nil), b[9:]) || g.opts.Now().Unix() >= int64(binary.BigEndian.Uint64(b[1:9])) {
		return None
	}
	scope := min(Scope(b[0]), Write)
	if scope == None || !g.tokens[scope-1].set {
		return None
	}
	return scope
}

// Granted is what a request may do, and how it showed that.
type Granted struct {
	Scope Scope
	// Session: by a browser's cookie.
	Session bool
	// BadToken: it had a token that is not known.
	BadToken bool
}

// Granted tells the scope of a request. A token that is not known is worth less
// than none.
func (g *Guard) Granted(r *http.Request) Granted {
	if header := r.Header.Get("Authorization"); header != "" {
		token, ok := cutPrefixFold(header, "Bearer ")
		s := g.scopeOf(token)
		return Granted{Scope: s, BadToken: !ok || s == None}
	}
	if c, err := r.Cookie(cookieName); err == nil {
		if s := g.sessionScope(c.Value); s > g.opts.Anonymous {
			return Granted{Scope: s, Session: true}
		}
	}
	return Granted{Scope: g.opts.Anonymous}
}

func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return strings.TrimSpace(s[len(prefix):]), true
}

type grantedKey struct{}

// Of is what the request that next was called with may do.
func Of(ctx context.Context) Granted {
	g, _ := ctx.Value(grantedKey{}).(Granted)
	return g
}

// Refusal says why a request goes no further.
type Refusal struct {
	Status int
	Why    string
}

// Check is next with the request's scope in its context. Requests that another
// site caused, or that go to a name that is not ours, go to refuse instead.
func (g *Guard) Check(next http.Handler, refuse func(http.ResponseWriter, *http.Request, Refusal)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !g.hostOK(r.Host) {
			refuse(w, r, Refusal{http.StatusMisdirectedRequest, "this address is not served under that host name (set HOOKLINE_ADMIN_HOSTS to the names that people use for it)"})
			return
		}
		granted := g.Granted(r)
		// A token in the header was put there by a program that has it; a cookie
		// goes along by itself.
		if r.Header.Get("Authorization") == "" {
			if err := g.origin.Check(r); err != nil {
				refuse(w, r, Refusal{http.StatusForbidden, "the request comes from another site"})
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), grantedKey{}, granted)))
	})
}

// hostOK: on a loopback address without a login, whatever page is open in a
// browser on this machine could read all by a name that leads here.
func (g *Guard) hostOK(hostport string) bool {
	if !g.opts.Loopback {
		return true
	}
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") || slices.ContainsFunc(g.opts.Hosts, func(h string) bool { return strings.EqualFold(h, host) }) {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
