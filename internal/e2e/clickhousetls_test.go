package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit"
)

// TestClickHouseTLS: a ClickHouse behind TLS is reached when its certificate is
// good, and refused with the cause when it is not.
func TestClickHouseTLS(t *testing.T) {
	t.Parallel()
	engine, err := url.Parse(testkit.Engine(t).URL())
	if err != nil {
		t.Fatal(err)
	}
	ca, strangers := testkit.NewAuthority(t), testkit.NewAuthority(t)
	serve := func(change func(*x509.Certificate)) string {
		srv := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(engine))
		srv.TLS = &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, change).TLS}}
		srv.StartTLS()
		t.Cleanup(srv.Close)
		return srv.URL
	}
	good := serve(nil)
	for _, tt := range []struct {
		name, addr, ca string
		code           int
		want           string
	}{
		{"good", good, ca.File, 0, "42"},
		{"wrong authority", good, strangers.File, 3, "HOOKLINE_CLICKHOUSE_CA_FILE"},
		{"no authority", good, "", 3, "HOOKLINE_CLICKHOUSE_CA_FILE"},
		{"expired", serve(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), ca.File, 3, "expired"},
		{"wrong name", serve(func(c *x509.Certificate) { c.IPAddresses = nil }), ca.File, 3, "x509"},
		{"no TLS there", "https://" + engine.Host, ca.File, 3, "HOOKLINE_CLICKHOUSE_ADDR"},
		{"no such file", good, "/nowhere", 2, "HOOKLINE_CLICKHOUSE_CA_FILE"},
		{"no TLS asked for", "http://" + engine.Host, ca.File, 2, "HOOKLINE_CLICKHOUSE_CA_FILE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			vars := map[string]string{"CLICKHOUSE_ADDR": tt.addr, "CLICKHOUSE_DATABASE": "default"}
			if tt.ca != "" {
				vars["CLICKHOUSE_CA_FILE"] = tt.ca
			}
			r := command(t, vars, "", "sql", "SELECT 6*7")
			if r.code != tt.code || !strings.Contains(r.stdout+r.stderr, tt.want) || r.took > refusedWithin {
				t.Errorf("code %d, want %d with %q, after %s:\n%s%s", r.code, tt.code, tt.want, r.took, r.stdout, r.stderr)
			}
		})
	}
}
