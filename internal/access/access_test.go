package access

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

const (
	writeToken = "write-token-0123456789"
	readToken  = "read-token-0123456789"
)

// ask sends a request through a guard and tells what it was granted; status 0:
// it came through.
func ask(g *Guard, change func(*http.Request)) (Granted, int) {
	r := httptest.NewRequest(http.MethodGet, "http://127.0.0.1:8080/", nil)
	change(r)
	var got Granted
	status := 0
	h := g.Check(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = Of(r.Context()) }),
		func(_ http.ResponseWriter, _ *http.Request, why Refusal) { status = why.Status })
	h.ServeHTTP(httptest.NewRecorder(), r)
	return got, status
}

func bearer(token string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }
}

func TestTokens(t *testing.T) {
	both := New(Options{Token: writeToken, ReadToken: readToken, Loopback: true})
	none := New(Options{Loopback: true, Anonymous: Read})
	for _, tt := range []struct {
		name   string
		g      *Guard
		change func(*http.Request)
		want   Scope
		bad    bool
	}{
		{"write", both, bearer(writeToken), Write, false},
		{"read", both, bearer(readToken), Read, false},
		{"lower case scheme", both, func(r *http.Request) { r.Header.Set("Authorization", "bearer "+readToken) }, Read, false},
		{"nothing", both, func(*http.Request) {}, None, false},
		{"unknown", both, bearer("unknown"), None, true},
		{"empty", both, bearer(""), None, true},
		{"longer", both, bearer(writeToken + "x"), None, true},
		{"another scheme", both, func(r *http.Request) { r.SetBasicAuth("admin", writeToken) }, None, true},
		{"no token configured", none, func(*http.Request) {}, Read, false},
		{"no token configured, an empty one given", none, bearer(""), None, true},
	} {
		got, status := ask(tt.g, tt.change)
		if status != 0 || got.Scope != tt.want || got.BadToken != tt.bad {
			t.Errorf("%s: %+v, status %d; want %v, bad %v", tt.name, got, status, tt.want, tt.bad)
		}
	}
}

// cookie logs in and returns the cookie that a browser then has.
func cookie(t *testing.T, g *Guard, token string) *http.Cookie {
	t.Helper()
	w := httptest.NewRecorder()
	if g.Login(w, httptest.NewRequest(http.MethodPost, "/login", nil), token) == None {
		t.Fatal("the login was refused")
	}
	c := w.Result().Cookies()[0]
	if !c.HttpOnly || c.SameSite != http.SameSiteStrictMode {
		t.Errorf("cookie %v", c)
	}
	return c
}

func TestSessions(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	clock := func() time.Time { return now }
	g := New(Options{Token: writeToken, ReadToken: readToken, Loopback: true, Now: clock})
	for token, want := range map[string]Scope{writeToken: Write, readToken: Read} {
		c := cookie(t, g, token)
		with := func(r *http.Request) { r.AddCookie(c) }
		if got, _ := ask(g, with); got.Scope != want || !got.Session {
			t.Errorf("%v: %+v", want, got)
		}
		for i := range c.Value {
			changed := *c
			flip := byte('A')
			if c.Value[i] == 'A' {
				flip = 'B'
			}
			changed.Value = c.Value[:i] + string(flip) + c.Value[i+1:]
			// The last letter has bits that are not part of the value.
			if got, _ := ask(g, func(r *http.Request) { r.AddCookie(&changed) }); got.Scope > want || got.Scope != None && i < len(c.Value)-1 {
				t.Errorf("letter %d changed: %+v", i, got)
			}
		}
		other := New(Options{Token: writeToken + "2", ReadToken: readToken, Loopback: true, Now: clock})
		if got, _ := ask(other, with); got.Scope != None {
			t.Errorf("after a change of the token: %+v", got)
		}
		now = now.Add(SessionLife)
		if got, _ := ask(g, with); got.Scope != None {
			t.Errorf("after its time: %+v", got)
		}
	}
	if g.Login(httptest.NewRecorder(), httptest.NewRequest(http.MethodPost, "/login", nil), "") != None {
		t.Error("an empty token logs in")
	}
}

// TestNoSessionWithoutItsToken: what seals a session is then known to everybody,
// or to those who may only read.
func TestNoSessionWithoutItsToken(t *testing.T) {
	for name, g := range map[string]*Guard{
		"no token":          New(Options{Loopback: true, Anonymous: Read}),
		"a read token only": New(Options{ReadToken: readToken, Loopback: true, Anonymous: Read}),
	} {
		forged := &http.Cookie{Name: cookieName, Value: g.session(Write, time.Now().Add(time.Hour))}
		if got, _ := ask(g, func(r *http.Request) { r.AddCookie(forged) }); got.Scope != Read || got.Session {
			t.Errorf("%s: a forged session is granted %+v", name, got)
		}
	}
	if s := New(Options{Token: writeToken}); s.sessionScope(s.session(Read, time.Now().Add(time.Hour))) != None {
		t.Error("a session of the scope read, which no token gives")
	}
}

func TestOtherSites(t *testing.T) {
	g := New(Options{Token: writeToken, Loopback: true, Anonymous: Read, Hosts: []string{"console.internal"}})
	c := cookie(t, g, writeToken)
	post := func(more func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			r.Method = http.MethodPost
			r.AddCookie(c)
			more(r)
		}
	}
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) { r.Header.Set(name, value) }
	}
	for name, tt := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"same origin":             {post(header("Sec-Fetch-Site", "same-origin")), 0},
		"another site":            {post(header("Sec-Fetch-Site", "cross-site")), 403},
		"another port, same site": {post(header("Sec-Fetch-Site", "same-site")), 403},
		"an old browser, ours":    {post(header("Origin", "http://127.0.0.1:8080")), 0},
		"an old browser, other":   {post(header("Origin", "https://evil.example")), 403},
		"a program with a token":  {post(func(r *http.Request) { bearer(writeToken)(r); header("Sec-Fetch-Site", "cross-site")(r) }), 0},
		"a name that leads here":  {func(r *http.Request) { r.Host = "evil.example:8080" }, 421},
		"much like ours":          {func(r *http.Request) { r.Host = "127.0.0.1.evil.example" }, 421},
		"empty":                   {func(r *http.Request) { r.Host = "" }, 421},
		"localhost":               {func(r *http.Request) { r.Host = "localhost:8080" }, 0},
		"IPv6":                    {func(r *http.Request) { r.Host = "[::1]:8080" }, 0},
		"IPv6 without a port":     {func(r *http.Request) { r.Host = "[::1]" }, 0},
		"a configured name":       {func(r *http.Request) { r.Host = "Console.Internal" }, 0},
	} {
		if _, status := ask(g, tt.change); status != tt.status {
			t.Errorf("%s: status %d, want %d", name, status, tt.status)
		}
	}
	public := New(Options{Token: writeToken})
	if _, status := ask(public, func(r *http.Request) { r.Host = "hookline.example.com" }); status != 0 {
		t.Errorf("an address that others reach asks for a host: %d", status)
	}
}

func FuzzSession(f *testing.F) {
	g := New(Options{Token: writeToken, Loopback: true})
	f.Add(g.session(Write, time.Now().Add(-time.Second)))
	f.Add("")
	f.Add(strings.Repeat("A", 55))
	f.Add(New(Options{}).session(Write, time.Now().Add(time.Hour)))
	f.Fuzz(func(t *testing.T, value string) {
		if s := g.sessionScope(value); s != None {
			t.Errorf("%q grants %v", value, s)
		}
	})
}

func TestWords(t *testing.T) {
	for s, want := range map[Scope]string{None: "none", Read: "read", Write: "write"} {
		if s.String() != want {
			t.Errorf("%d: %s", s, s)
		}
	}
}
