package testkit_test

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

func TestEngineKeepsDataOverRestartAndKill(t *testing.T) {
	e := testkit.Engine(t)
	query(t, e, "CREATE DATABASE kept")
	query(t, e, "CREATE TABLE kept.t (n UInt32) ENGINE = MergeTree ORDER BY n")
	query(t, e, "INSERT INTO kept.t SELECT 1")
	e.Restart()
	query(t, e, "INSERT INTO kept.t SELECT 2")
	e.Kill9()
	e.Start()
	if got := query(t, e, "SELECT sum(n) FROM kept.t"); got != "3" {
		t.Errorf("got a sum of %q, want 3", got)
	}
}

func query(t *testing.T, e *testkit.EngineProc, q string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(limited(t), http.MethodPost, e.URL()+"/?query="+url.QueryEscape(q), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("querying %q: status %d, %v: %s", q, res.StatusCode, err, body)
	}
	return strings.TrimSpace(string(body))
}
