package kafkax

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

// TestTokenOfAServer: the login's token comes of the token server, asked by
// client credentials, once until it expires; no error says what a server said or
// what it was sent.
func TestTokenOfAServer(t *testing.T) {
	const secret, token = "TOKEN-CLIENT-SECRET", "TOKEN-OF-THE-SERVER"
	for name, tt := range map[string]struct {
		answer   http.HandlerFunc
		requests int64 // for two logins
		want     string
	}{
		"a token": {func(w http.ResponseWriter, r *http.Request) {
			user, password, _ := r.BasicAuth()
			if r.Method != http.MethodPost || r.FormValue("grant_type") != "client_credentials" || r.FormValue("scope") != "a b" || user != "client" || password != secret {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer","expires_in":3600}`, token)
		}, 1, ""},
		"refused": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no client with %s"}`, secret)
		}, 0, "the token server answered 401"},
		"sent elsewhere": {func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/elsewhere" {
				t.Error("a redirect was followed")
			}
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}, 0, "the token server answered 307"},
		"no JSON":    {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, secret) }, 0, "the token server gave no token"},
		"hanging up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 0, "the token server gave no token"},
	} {
		t.Run(name, func(t *testing.T) {
			var requests atomic.Int64 // one that hangs up is asked again at once
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				requests.Add(1)
				tt.answer(w, r)
			}))
			defer srv.Close()
			defer http.DefaultTransport.(*http.Transport).CloseIdleConnections()
			s := SASLConfig{Mechanism: mechanismOAuth, User: "client", Password: secret, TokenURL: srv.URL + "/token", Scopes: []string{"a", "b"}}
			m, err := s.load()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, message, err := m.Authenticate(t.Context(), "broker:9092")
				if tt.want == "" && (err != nil || !bytes.Contains(message, []byte("auth=Bearer "+token+"\x01"))) {
					t.Errorf("the login says %q, %v", message, err)
				}
				if tt.want == "" {
					continue
				}
				if _, ok := errors.AsType[*TokenError](err); !ok || err.Error() != tt.want {
					t.Errorf("got %v, want %s", err, tt.want)
				}
				if shown := testkit.Exposed(map[string]string{"error": fmt.Sprintf("%v %+v %#v", err, err, err)}, testkit.SecretForms(secret)); shown != nil {
					t.Error(strings.Join(shown, "\n"))
				}
			}
			if n := requests.Load(); tt.requests > 0 && n != tt.requests {
				t.Errorf("%d requests, want %d", n, tt.requests)
			}
		})
	}
}
