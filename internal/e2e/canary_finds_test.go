package e2e

import (
	"compress/gzip"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

// TestSecretCanaryFinds: what the canary's own readers read is searched, so that
// it fails where a command, a page, its header, a profile or a table has a secret.
func TestSecretCanaryFinds(t *testing.T) {
	t.Parallel()
	const planted = "CANARY/PLANTED+SECRET=ABC"
	shown := ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/header":
			w.Header().Set("X-Shown", shown)
		case "/profile":
			z := gzip.NewWriter(w)
			_, _ = z.Write([]byte(shown))
			_ = z.Close()
		default:
			fmt.Fprint(w, shown)
		}
	}))
	t.Cleanup(srv.Close)
	c := &canary{t: t, ctx: t.Context(), forms: testkit.SecretForms(planted), engine: testkit.Engine(t)}
	c.proc = &process{admin: strings.TrimPrefix(srv.URL, "http://")}
	for form, text := range map[string]string{
		"plain": planted, "base64": base64.StdEncoding.EncodeToString([]byte("u:" + planted)), "hex": hex.EncodeToString([]byte(planted)), "URL": url.QueryEscape(planted),
	} {
		shown, c.seen = text, map[string]*strings.Builder{}
		c.page("page", "/")
		c.page("header", "/header")
		c.page("profile", "/profile")
		c.note("table", c.sql("SELECT '"+text+"' AS shown FORMAT JSONEachRow"))
		c.cli(2, nil, "", text) // no such command, which it says
		found := c.exposed()
		for _, place := range []string{"page", "header", "profile", "table", "command line"} {
			if !slices.ContainsFunc(found, func(s string) bool { return strings.HasPrefix(s, place+": ") }) {
				t.Errorf("%s: not found in %s: %q", form, place, c.seen[place])
			}
		}
	}
}
