package endpoint

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

func TestCheckHeaders(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		ok          bool
	}{
		{"X-Team", "ops", true},
		{"x_team.1", "a b\tc", true},
		{"X-Empty", "", true},
		{"Accept", "*/*", true},
		{"X-Api-Key", "k", true},
		{"", "v", false},
		{"X: 1", "v", false},
		{"X-A:", "v", false},
		{"X A", "v", false},
		{"X\r\nY", "v", false},
		{"X\x00", "v", false},
		{"Ü", "v", false},
		{"X-A", "a\r\nX-B: 1", false},
		{"X-A", "a\nb", false},
		{"X-A", "\x00", false},
		{"X-A", "ü", false},
		{"X-A", " a", false},
		{"X-A", "a ", false},
		{"Host", "evil", false},
		{"AUTHORIZATION", "Bearer x", false},
		{"Content-Length", "0", false},
		{"content-type", "text/plain", false},
		{"Transfer-Encoding", "chunked", false},
		{"Connection", "close", false},
		{"Expect", "100-continue", false},
		{"Trailer", "X", false},
		{"Cookie", "a=b", false},
		{"webhook-id", "x", false},
		{"Webhook-Signature", "x", false},
		{"ce-id", "x", false},
		{"X-Forwarded-For", "127.0.0.1", false},
		{"Proxy-Authorization", "x", false},
		{"X-Hookline-Attempt", "9", false},
		{"X-Amz-Meta", "x", false},
		{"svix-id", "x", false},
		{"User-Agent", "x", false},
		{"TE", "x", false},
		{"Upgrade", "h2c", false},
	} {
		err := CheckHeaders([]pipeline.Header{{Name: tc.name, Value: tc.value}})
		if (err == nil) != tc.ok {
			t.Errorf("%q: %q gives %v", tc.name, tc.value, err)
		}
	}
}

func TestCheckHeadersLimitsAndReportsAll(t *testing.T) {
	var many []pipeline.Header
	for i := range pipeline.MaxHeaders + 1 {
		many = append(many, pipeline.Header{Name: fmt.Sprintf("X-%d", i)})
	}
	if CheckHeaders(many) == nil || CheckHeaders(many[:pipeline.MaxHeaders]) != nil {
		t.Error("the limit of headers is not kept")
	}
	if CheckHeaders([]pipeline.Header{{Name: "X-A", Value: strings.Repeat("v", pipeline.MaxHeadersBytes)}}) == nil {
		t.Error("the limit of bytes is not kept")
	}
	err := CheckHeaders([]pipeline.Header{
		{Name: "X-A", Value: "hush"}, {Name: "x-a", Value: "hush"}, {Name: "Host", Value: "hush"}, {Name: "X B", Value: "hush\n"},
	})
	if err == nil || strings.Count(err.Error(), "\n") != 2 || strings.Contains(err.Error(), "hush") {
		t.Errorf("got %v", err)
	}
}

func TestSecretHeader(t *testing.T) {
	for name, want := range map[string]bool{
		"X-Api-Key": true, "X-Auth": true, "X-Access-Token": true, "Set-Cookie": true, "X-Team": false, "Accept": false,
	} {
		if SecretHeader(name) != want {
			t.Errorf("%s", name)
		}
	}
}

func FuzzSafeValue(f *testing.F) {
	for _, s := range []string{"", "COTTask.create", " a", "a\r\nX: 1", "ü%41", "a b", "\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		safe := SafeValue(s)
		if !ValidValue(safe) {
			t.Fatalf("%q became %q", s, safe)
		}
		if safe != s {
			if back, err := url.PathUnescape(safe); err != nil || back != s {
				t.Fatalf("%q became %q, which reads %q", s, safe, back)
			}
		}
	})
}
