package endpoint

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/hookline/hookline/pipeline"
)

// TenantPlaceholder in a pattern stands for the tenant.
const TenantPlaceholder = "{tenant}"

// Inbound is a pattern of the URLs at which a source system takes events in. An
// event of that system that is sent to one of its own comes back as a new event,
// and again, without end.
type Inbound struct {
	Format pipeline.Format // whose events must not go there; empty: anyone's
	host   string          // lower case; * is any run of characters
	path   string          // as canonical gives it; * likewise
}

// Inbounds are all patterns of a deployment.
type Inbounds []Inbound

// ParseInbounds reads entries such as "signl4=connect.signl4.com/webhook/*" and
// "*.example.com/in/{tenant}": a format and "=" or nothing, a host and a path.
// Scheme, port, query and letter case do not count.
func ParseInbounds(entries []string) (Inbounds, error) {
	var out Inbounds
	for _, entry := range entries {
		rest := strings.TrimSpace(entry)
		var in Inbound
		if format, after, ok := strings.Cut(rest, "="); ok {
			in.Format, rest = pipeline.Format(strings.TrimSpace(format)), strings.TrimSpace(after)
		}
		host, p, ok := strings.Cut(rest, "/")
		if !ok || host == "" || strings.ContainsAny(rest, " \t?#@\\") || strings.Contains(p, "//") || strings.Contains(host, ":") {
			return nil, fmt.Errorf("parsing inbound webhooks: %q is not a format, a host and a path (write signl4=connect.signl4.com/webhook/*)", entry)
		}
		in.host, in.path = strings.ToLower(host), canonical("/"+p)
		out = append(out, in)
	}
	return out, nil
}

// canonical is a path in the one spelling in which paths are compared:
// unescaped, without dots, empty segments and a final slash, in lower case,
// since the systems in question do not tell letter cases apart.
func canonical(p string) string {
	if plain, err := url.PathUnescape(p); err == nil {
		p = plain
	}
	return strings.ToLower(path.Clean(p))
}

// At gives the patterns that u has, for any tenant; nil for nearly every URL.
func (in Inbounds) At(u *URL) Inbounds {
	var out Inbounds
	for i := range in {
		if in[i].has(u, pipeline.AnyTenant) {
			out = append(out, in[i])
		}
	}
	return out
}

// ErrLoop is what errors of a refused loop are.
var ErrLoop = errors.New("the event would come back as a new one")

// Check refuses u for events of a tenant in formats (none: any format) where it
// is one of that tenant's own inbound webhooks. Tenant "*" is any tenant.
func (in Inbounds) Check(u *URL, tenant string, formats ...pipeline.Format) error {
	for i := range in {
		p := &in[i]
		if p.Format != "" && len(formats) > 0 && !slices.Contains(formats, p.Format) || !p.has(u, tenant) {
			continue
		}
		if p.Format == "" {
			return fmt.Errorf("%s is an inbound webhook of the source system: %w (send elsewhere; see HOOKLINE_INBOUND_WEBHOOKS)", u.Host, ErrLoop)
		}
		return fmt.Errorf("%s is an inbound webhook of format %s: %w (send elsewhere, or name the subscription's formats without it; see HOOKLINE_INBOUND_WEBHOOKS)",
			u.Host, p.Format, ErrLoop)
	}
	return nil
}

func (in *Inbound) has(u *URL, tenant string) bool {
	p, _, _ := strings.Cut(u.Target, "?")
	own := strings.ToLower(tenant)
	if tenant == pipeline.AnyTenant {
		own = "*"
	}
	// A tenant's own asterisks would be wildcards: it could only refuse more.
	return wildcard(strings.ReplaceAll(in.host, TenantPlaceholder, own), strings.ToLower(u.Host)) &&
		wildcard(strings.ReplaceAll(in.path, TenantPlaceholder, own), canonical(p))
}

// wildcard tells whether s fits pattern, in which * is any run of characters.
func wildcard(pattern, s string) bool {
	first, rest, ok := strings.Cut(pattern, "*")
	if !ok {
		return pattern == s
	}
	s, ok = strings.CutPrefix(s, first)
	if !ok {
		return false
	}
	parts := strings.Split(rest, "*")
	last := parts[len(parts)-1]
	for _, part := range parts[:len(parts)-1] {
		i := strings.Index(s, part)
		if i < 0 {
			return false
		}
		s = s[i+len(part):]
	}
	return strings.HasSuffix(s, last)
}
