package endpoint

import (
	"errors"
	"strings"
	"testing"

	"github.com/hookline/hookline/pipeline"
)

func TestInboundsCheck(t *testing.T) {
	in, err := ParseInbounds([]string{"signl4=connect.signl4.com/webhook/*", " *.example.com/in/{tenant} ", "task = hooks.example.net/*/end"})
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		url, tenant, formats string
		loop                 bool
	}{
		{"https://connect.signl4.com/webhook/abc123", "t", "signl4", true},
		{"https://connect.signl4.com/webhook/abc123", "t", "", true},
		{"https://connect.signl4.com/webhook/abc123", "t", "task signl4", true},
		{"https://connect.signl4.com/webhook/abc123", "t", "cotalker", false},
		{"https://CONNECT.signl4.com:8443/Webhook/abc/x?q=1", "*", "signl4", true},
		{"https://connect.signl4.com//webhook/./x/../%61bc", "t", "signl4", true},
		{"https://connect.signl4.com/%77ebhook/abc", "t", "signl4", true},
		{"https://connect.signl4.com/a/..%2fwebhook/abc", "t", "signl4", true},
		{"https://connect.signl4.com/webhook", "t", "signl4", false},
		{"https://connect.signl4.com/api/webhook/x", "t", "signl4", false},
		{"https://xconnect.signl4.com/webhook/x", "t", "signl4", false},
		{"https://connect.signl4.com.evil.com/webhook/x", "t", "signl4", false},
		{"https://a.example.com/in/Acme", "acme", "json", true},
		{"https://a.example.com/in/acme/", "ACME", "", true},
		{"https://a.example.com/in/other", "acme", "", false},
		{"https://a.example.com/in/other", "*", "", true},
		{"https://example.com/in/acme", "acme", "", false},
		{"https://hooks.example.net/a/b/end", "t", "task", true},
		{"https://hooks.example.net/end", "t", "task", false},
		{"https://hooks.example.net/a/end/x", "t", "task", false},
	} {
		u, err := ParseURL(tc.url, Policy{Ports: PortSet{{1, 65535}}})
		if err != nil {
			t.Fatal(err)
		}
		var formats []pipeline.Format
		for _, f := range strings.Fields(tc.formats) {
			formats = append(formats, pipeline.Format(f))
		}
		err = in.Check(u, tc.tenant, formats...)
		if (err != nil) != tc.loop || err != nil && !errors.Is(err, ErrLoop) {
			t.Errorf("%s, tenant %s, %q: %v", tc.url, tc.tenant, tc.formats, err)
		}
		if tc.loop && in.At(u) == nil {
			t.Errorf("%s is not at any pattern", tc.url)
		}
	}
	u, _ := ParseURL("https://erp.example.org/", Policy{})
	if in.At(u) != nil {
		t.Error("a usual URL is at a pattern")
	}
}

func TestInboundErrorsKeepThePathToThemselves(t *testing.T) {
	in, _ := ParseInbounds([]string{"a.example.com/*"})
	u, _ := ParseURL("https://a.example.com/hush?hush", Policy{})
	const want = "a.example.com is an inbound webhook of the source system: the event would come back as a new one (send elsewhere; see HOOKLINE_INBOUND_WEBHOOKS)"
	if err := in.Check(u, "t"); err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
}

func TestParseInboundsRefuses(t *testing.T) {
	for _, entry := range []string{"", "signl4", "signl4=", "connect.signl4.com", "/webhook", "https://connect.signl4.com/webhook", "a.com:443/x", "a.com/x?y", "a@b.com/x", "a b.com/x"} {
		if in, err := ParseInbounds([]string{entry}); err == nil {
			t.Errorf("%q gives %+v", entry, in)
		}
	}
}
