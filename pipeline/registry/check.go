package registry

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/pipeline/filter"
	"github.com/hookline/hookline/pipeline/format"
	"github.com/hookline/hookline/pipeline/secret"
)

// Policy is what a deployment allows its subscriptions.
type Policy struct {
	URL endpoint.Policy
	// MaxTimeout is REQUEST_TIMEOUT, the most that a timeout may be; 0: an hour.
	MaxTimeout time.Duration
	// filters shares the programs of filters; nil: each has its own.
	filters *filter.Cache
	// Keys seal inline secrets and open sealed ones; nil: inline ones are refused.
	Keys *secret.Keyring
	// Sends says that this process needs the secrets: a subscription with a
	// sealed one that does not open is paused here. Processes that only have the
	// keys tell of it too; those without them cannot know.
	Sends bool
}

func (p *Policy) opens() bool { return p.Sends || p.Keys != nil }

// Limits of a document's fields.
const (
	MinTimeout     = time.Millisecond
	MaxConcurrency = 10_000 // requests under way at once
	MaxEvents      = 100    // event names of one subscription
	MaxEventBytes  = 256    // of one event name
	MaxTenantBytes = 256
	MaxDescription = 4096 // bytes
	// MaxResthookBytes is the longest name of a resthook.
	MaxResthookBytes = 256
)

// problem is an error of one field, not yet placed.
type problem struct{ field, why, remedy string }

// Check tells everything that is wrong with the document, as FieldErrors; the
// same where a document is applied and where its stored form is read.
func (d *Document) Check(pol *Policy) []*FieldError {
	var c checker
	c.identity(d)
	c.routing(d)
	c.delivery(d, pol)
	c.credentials(d, pol)
	c.filter(d, pol)
	c.limits(d)
	var out []*FieldError
	for _, f := range d.src.found {
		e := d.at(f.problem)
		e.Line = f.line
		out = append(out, e)
	}
	for _, p := range c.problems {
		name, _, _ := strings.Cut(p.field, ".")
		if !d.src.broken[name] {
			out = append(out, d.at(p))
		}
	}
	return out
}

type checker struct{ problems []problem }

func (c *checker) add(field, remedy, why string, args ...any) {
	c.problems = append(c.problems, problem{field, fmt.Sprintf(why, args...), remedy})
}

func (c *checker) identity(d *Document) {
	switch {
	case d.ID == "":
		c.add("id", "1 to 128 of A-Z a-z 0-9 _ -", "missing")
	case !ValidID(d.ID):
		c.add("id", "1 to 128 of A-Z a-z 0-9 _ -", "%.140q is not an id", d.ID)
	}
	switch {
	case d.Tenant == "":
		c.add("tenant", `name the tenant whose events it gets, or "*" for events of any tenant or of none`, "missing")
	case len(d.Tenant) > MaxTenantBytes:
		c.add("tenant", "", "%d bytes are over the limit of %d", len(d.Tenant), MaxTenantBytes)
	case !printable(d.Tenant):
		c.add("tenant", "", "it has control characters or is not UTF-8")
	case d.Tenant != pipeline.AnyTenant && strings.Contains(d.Tenant, "*"):
		c.add("tenant", `a tenant is named in full, or is "*"`, "%q is a pattern", d.Tenant)
	}
	if len(d.Description) > MaxDescription || !utf8.ValidString(d.Description) {
		c.add("description", fmt.Sprintf("at most %d bytes of UTF-8", MaxDescription), "too long or not UTF-8")
	}
}

// ValidID tells whether id is a subscription's id: [A-Za-z0-9_-]{1,128}.
func ValidID(id string) bool {
	return len(id) <= pipeline.MaxSubscriptionID && id != "" && pipeline.SafeID(id) == id
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
}

func (c *checker) routing(d *Document) {
	seen := map[string]bool{}
	for _, f := range d.Format {
		switch {
		case !format.Known(pipeline.Format(f)):
			c.add("format", "one of "+format.Names(), "%.60q is not a format that this version reads", f)
		case seen[f]:
			c.add("format", "", "%q is there twice", f)
		}
		seen[f] = true
	}
	switch {
	case len(d.Resthook) > MaxResthookBytes:
		c.add("resthook", "", "%d bytes are over the limit of %d", len(d.Resthook), MaxResthookBytes)
	case !printable(d.Resthook):
		c.add("resthook", "", "it has control characters or is not UTF-8")
	}
	if len(d.Events) > MaxEvents {
		c.add("events", "use globs", "%d names are over the limit of %d", len(d.Events), MaxEvents)
	}
	for i, e := range d.Events {
		field := fmt.Sprintf("events.%d", i)
		switch {
		case e == "":
			c.add(field, `"*" is every event`, "empty name")
		case len(e) > MaxEventBytes:
			c.add(field, "", "%d bytes are over the limit of %d", len(e), MaxEventBytes)
		case !printable(e):
			c.add(field, "", "it has control characters or is not UTF-8")
		}
	}
	c.word("ordering", d.Ordering, "subscription", "entity", "none")
	c.word("on_exhausted", d.OnExhausted, "continue", "block")
	c.word("content_mode", d.ContentMode, string(pipeline.ContentRaw), string(pipeline.ContentStructured), string(pipeline.ContentBinary))
	c.word("state", d.State, "active", "paused", "disabled")
}

// word checks a value that is one of a few; empty is the default.
func (c *checker) word(field, value string, words ...string) {
	if value == "" {
		return
	}
	for _, w := range words {
		if w == value {
			return
		}
	}
	c.add(field, "one of "+strings.Join(words, ", "), "%.60q is not known", value)
}

func (c *checker) delivery(d *Document, pol *Policy) {
	if d.URL == "" {
		c.add("url", "write https://host/path", "missing")
	} else if u, err := endpoint.ParseURL(d.URL, pol.URL); err != nil {
		c.add("url", "", "%s", strings.TrimPrefix(err.Error(), "parsing url: "))
	} else if err := pol.URL.Inbound.Check(u, d.Tenant, d.formats()...); err != nil {
		c.add("url", "", "%s", err)
	}
	limit := pol.MaxTimeout
	if limit == 0 {
		limit = time.Hour
	}
	if d.Timeout != "" {
		t, err := time.ParseDuration(d.Timeout)
		switch {
		case err != nil:
			c.add("timeout", "write 10s or 500ms", "%.60q is not a duration", d.Timeout)
		case t < MinTimeout:
			c.add("timeout", "", "%v is less than %v", t, MinTimeout)
		case t > limit:
			c.add("timeout", "lower it or raise HOOKLINE_REQUEST_TIMEOUT", "%v is more than the request timeout of %v", t, limit)
		}
	}
	if d.Retries != nil && (*d.Retries < 0 || *d.Retries > pipeline.MaxRetries) {
		c.add("retries", "", "%d is not within 0 to %d", *d.Retries, pipeline.MaxRetries)
	}
	if d.Concurrency != nil && (*d.Concurrency < 1 || *d.Concurrency > MaxConcurrency) {
		c.add("concurrency", "", "%d is not within 1 to %d", *d.Concurrency, MaxConcurrency)
	}
	for _, err := range flatten(endpoint.CheckHeaders(d.headers())) {
		c.add("headers", "", "%s", strings.TrimPrefix(err.Error(), "checking headers: "))
	}
}

// flatten takes a joined error apart.
func flatten(err error) []error {
	if err == nil {
		return nil
	}
	if joined, ok := err.(interface{ Unwrap() []error }); ok { //nolint:errorlint // it is the join itself that is looked for
		return joined.Unwrap()
	}
	return []error{err}
}

func (c *checker) limits(d *Document) {
	if _, err := ParseRate(d.Rate); err != nil {
		c.add("rate", "write 50/s, 600/m or 1000/h", "%s", err)
	}
	if _, err := parseDisableAfter(d.DisableAfter); err != nil {
		c.add("disable_after", "write 12h or 5d", "%s", err)
	}
}

// join makes one error of many; nil of none.
func join(errs []*FieldError) error {
	out := make([]error, len(errs))
	for i, e := range errs {
		out[i] = e
	}
	return errors.Join(out...)
}
