package sender

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// tokenServer answers with tokens t1, t2, ... or as answer says.
func tokenServer(t testing.TB, answer func(n int64, w http.ResponseWriter) bool) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := asked.Add(1)
		if answer != nil && answer(n, w) {
			return
		}
		id, password, _ := r.BasicAuth()
		if r.FormValue("grant_type") != "client_credentials" || id != "hookline" || password != secretCanary || r.FormValue("scope") != "a b" || r.FormValue("audience") != "erp" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"access_token":"t%d","token_type":"Bearer","expires_in":60}`, n)
	}))
	t.Cleanup(srv.Close)
	return srv.URL + "/token", asked
}

func oauth(url string) *pipeline.Auth {
	return &pipeline.Auth{OAuth2: &pipeline.OAuth2Auth{
		TokenURL: url, ClientID: "hookline", Secret: "env:ID", Scopes: []string{"a", "b"}, Audience: "erp",
	}}
}

func TestOAuth2(t *testing.T) {
	tokens, asked := tokenServer(t, nil)
	refuse := map[string]bool{}
	var seen []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		value := r.Header.Get("Authorization")
		seen = append(seen, value)
		if refuse[value] {
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	t.Cleanup(srv.Close)
	var ahead atomic.Int64 // read by the sender's own goroutines too
	c := newClient(t, localConfig(), Deps{
		Secrets: variables(map[string]string{"ID": secretCanary}), Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) },
	})
	req := request(srv.URL)
	req.Subscription.Auth = oauth(tokens)
	check := func(what string, outcome pipeline.Outcome, resends int, n int64, want ...string) {
		t.Helper()
		seen = nil
		res := send(c, req)
		if res.Outcome != outcome || res.Resends != resends || asked.Load() != n || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("%s: %s %q, %d resends, asked %d times, seen %v", what, res.Outcome, res.Error, res.Resends, asked.Load(), seen)
		}
		if strings.Contains(string(res.RequestHeaders), "Bearer") || strings.Count(string(res.RequestHeaders), "Authorization: [redacted]") != 1 {
			t.Errorf("%s: logged %q", what, res.RequestHeaders)
		}
	}
	check("first", pipeline.OutcomeSuccess, 0, 1, "Bearer t1")
	check("kept", pipeline.OutcomeSuccess, 0, 1, "Bearer t1")
	ahead.Add(int64(51 * time.Second))
	check("about to expire", pipeline.OutcomeSuccess, 0, 2, "Bearer t2")
	refuse["Bearer t2"] = true
	check("refused", pipeline.OutcomeSuccess, 1, 3, "Bearer t2", "Bearer t3")
	refuse["Bearer t3"], refuse["Bearer t4"], refuse["Bearer t5"] = true, true, true
	check("refused again: once only", pipeline.OutcomeResponseError, 1, 4, "Bearer t3", "Bearer t4")
}

// TestOAuth2AsksOnce: many requests that need a token make one request for it.
func TestOAuth2AsksOnce(t *testing.T) {
	url, _ := endpointServerConcurrent(t)
	tokens, asked := tokenServer(t, nil)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"ID": secretCanary})})
	req := request(url)
	req.Subscription.Auth = oauth(tokens)
	c.prepare(req.Subscription) // two that prepare it at once would have two tokens
	var done sync.WaitGroup
	for range 16 {
		done.Go(func() {
			if res := send(c, req); res.Outcome != pipeline.OutcomeSuccess {
				t.Errorf("%s %q", res.Outcome, res.Error)
			}
		})
	}
	done.Wait()
	if asked.Load() != 1 {
		t.Errorf("asked %d times", asked.Load())
	}
}

func endpointServerConcurrent(t testing.TB) (url string, n *atomic.Int64) {
	t.Helper()
	n = new(atomic.Int64)
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { n.Add(1) }))
	t.Cleanup(srv.Close)
	return srv.URL, n
}

func TestOAuth2Failures(t *testing.T) {
	endpointURL, got := endpointServerConcurrent(t)
	say := func(status int, body string) func(int64, http.ResponseWriter) bool {
		return func(_ int64, w http.ResponseWriter) bool {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(status)
			_, _ = w.Write([]byte(body))
			return true
		}
	}
	raw := serveRaw(t, (*peer).hold)
	closed := serveRaw(t, func(p *peer) { p.request() })
	other := serveTLSForTest(t)
	for _, tt := range []struct {
		name    string
		answer  func(int64, http.ResponseWriter) bool
		url     string
		outcome pipeline.Outcome
		text    string
	}{
		{"refused", say(401, `{"error":"invalid_client","error_description":"`+secretCanary+`"}`), "", pipeline.OutcomeResponseError, "oauth2: the token server answered 401 invalid_client"},
		{"own words", say(400, `{"error":"`+secretCanary+`"}`), "", pipeline.OutcomeResponseError, "oauth2: the token server answered 400"},
		{"down", say(503, secretCanary), "", pipeline.OutcomeResponseError, "oauth2: the token server answered 503"},
		{"redirect", say(302, ""), "", pipeline.OutcomeResponseError, "oauth2: the token server answered 302"},
		{"no JSON", say(200, secretCanary), "", pipeline.OutcomeProtocolError, "oauth2: the token server's answer has no token"},
		{"no token", say(200, `{"token_type":"bearer"}`), "", pipeline.OutcomeProtocolError, "oauth2: the token server's answer has no token"},
		{"another type", say(200, `{"access_token":"x","token_type":"mac"}`), "", pipeline.OutcomeProtocolError, "oauth2: not a bearer token that a header can carry"},
		{"injection", say(200, `{"access_token":"x\r\nX-A: 1","token_type":"bearer"}`), "", pipeline.OutcomeProtocolError, "oauth2: not a bearer token that a header can carry"},
		{"too long", say(200, `{"access_token":"`+strings.Repeat("x", maxAuthorization)+`"}`), "", pipeline.OutcomeProtocolError, "oauth2: not a bearer token that a header can carry"},
		{"nobody there", nil, "http://127.0.0.1:1/token", pipeline.OutcomeConnectError, "oauth2: connect ECONNREFUSED 127.0.0.1:1"},
		{"never answers", nil, raw.url(), pipeline.OutcomeTimeout, "oauth2: the token server did not answer in time"},
		{"hangs up", nil, closed.url(), pipeline.OutcomeConnectError, "oauth2: "},
		{"not trusted", nil, other, pipeline.OutcomeTLSError, "oauth2: "},
		{"forbidden address", nil, "http://10.0.0.1/token", pipeline.OutcomeBlocked, ""},
		{"forbidden at dial", nil, "http://metadata.example/token", pipeline.OutcomeBlocked, "oauth2: "},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := localConfig()
			c := newClient(t, cfg, Deps{Secrets: variables(map[string]string{"ID": secretCanary}), Resolver: resolverOf("169.254.169.254")})
			url := tt.url
			if tt.answer != nil {
				url, _ = tokenServer(t, tt.answer)
			}
			// Only the one that is about time is given little of it: a handshake on a
			// busy machine takes a while.
			limit := 10 * time.Second
			if tt.outcome == pipeline.OutcomeTimeout {
				limit = 300 * time.Millisecond
			}
			req := request(endpointURL)
			req.Subscription.Auth, req.Subscription.Timeout = oauth(url), limit
			late := lateness()
			res := send(c, req)
			allowed := limit + overrun + late()
			if res.Outcome != tt.outcome || !strings.HasPrefix(res.Error, tt.text) || strings.Contains(res.Error, secretCanary) || res.RequestWritten {
				t.Errorf("got %s %q, want %s %q", res.Outcome, res.Error, tt.outcome, tt.text)
			}
			if res.Elapsed > allowed {
				t.Errorf("took %s, more than %s", res.Elapsed, allowed)
			}
		})
	}
	if got.Load() != 0 {
		t.Errorf("%d requests went out without a token", got.Load())
	}
}

// resolverOf answers every name with addr.
func resolverOf(addr string) resolverFunc {
	return func(string) ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr(addr)}, nil }
}

// serveTLSForTest is a token server whose certificate nobody trusts.
func serveTLSForTest(t testing.TB) string {
	t.Helper()
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	return srv.URL + "/token"
}
