package registry

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/filter"
)

// Document is one subscription as people write it. Empty fields mean the
// default. Its JSON is part of the stored form.
type Document struct {
	ID          string            `json:"id"`
	Tenant      string            `json:"tenant"`
	Description string            `json:"description,omitempty"`
	URL         string            `json:"url"`
	Format      []string          `json:"format,omitempty"`
	Events      []string          `json:"events,omitempty"`
	Resthook    string            `json:"resthook,omitempty"`
	Filter      string            `json:"filter,omitempty"`
	Ordering    string            `json:"ordering,omitempty"`
	OnExhausted string            `json:"on_exhausted,omitempty"`
	Timeout     string            `json:"timeout,omitempty"` // as time.ParseDuration reads it
	Retries     *int              `json:"retries,omitempty"`
	Rate        string            `json:"rate,omitempty"`
	Concurrency *int              `json:"concurrency,omitempty"`
	Headers     map[string]string `json:"headers,omitempty"`
	ContentMode string            `json:"content_mode,omitempty"`
	// Auth and Signing hold secrets, which print as what kind they are.
	Auth         *AuthDoc    `json:"auth,omitempty"`
	Signing      *SigningDoc `json:"signing,omitempty"`
	TLS          *TLSDoc     `json:"tls,omitempty"`
	State        string      `json:"state,omitempty"`
	DisableAfter string      `json:"disable_after,omitempty"`

	src source
}

// source says where a document was written, for messages.
type source struct {
	file, path string          // path: "subscriptions[2]", or empty
	line       int             // of the document's first field
	lines      map[string]int  // of its fields; "auth.bearer.secret" too
	broken     map[string]bool // fields that have an error already
	program    *filter.Program // of the filter, when it has been compiled
	found      []found         // errors of nested fields
}

// foundAt tells whether reading found something wrong with a field, or within it.
func (s *source) foundAt(field string) bool {
	for _, f := range s.found {
		if f.field == field || strings.HasPrefix(f.field, field+".") {
			return true
		}
	}
	return false
}

// FieldError says what is wrong with one field, where, and what to do about it.
type FieldError struct {
	File   string // empty: not from a file
	Line   int    // 0: unknown
	Path   string // "subscriptions[2].url"
	Why    string
	Remedy string // may be empty
}

// Error gives file:line: path: why (remedy).
func (e *FieldError) Error() string {
	var b strings.Builder
	if e.File != "" {
		b.WriteString(e.File)
		if e.Line > 0 {
			fmt.Fprintf(&b, ":%d", e.Line)
		}
		b.WriteString(": ")
	}
	if e.Path != "" {
		b.WriteString(e.Path + ": ")
	}
	b.WriteString(e.Why)
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return b.String()
}

// at gives the error the place of one of the document's fields.
func (d *Document) at(p problem) *FieldError {
	e := &FieldError{File: d.src.file, Line: d.src.line, Path: p.field, Why: p.why, Remedy: p.remedy}
	switch {
	case d.src.path != "":
		e.Path = strings.TrimSuffix(d.src.path+"."+p.field, ".")
	case d.src.file == "" && d.ID != "":
		e.Path = strings.TrimSuffix(fmt.Sprintf("subscription %q.%s", d.ID, p.field), ".")
	}
	for name := p.field; name != ""; {
		if line, ok := d.src.lines[name]; ok {
			e.Line = line
			break
		}
		name = name[:max(0, strings.LastIndexByte(name, '.'))]
	}
	return e
}

// Subscription gives the document's effective form, defaults filled in; the
// document must have passed Check.
func (d *Document) Subscription(revision int64, pol *Policy) *pipeline.Subscription {
	s := &pipeline.Subscription{
		ID: d.ID, Tenant: d.Tenant, Description: d.Description, URL: d.URL, Events: d.Events, Resthook: d.Resthook,
		Ordering:    pipeline.Ordering(or(d.Ordering, string(pipeline.OrderingSubscription))),
		OnExhausted: pipeline.OnExhausted(or(d.OnExhausted, string(pipeline.OnExhaustedContinue))),
		ContentMode: pipeline.ContentMode(or(d.ContentMode, string(pipeline.ContentRaw))),
		State:       pipeline.State(or(d.State, string(pipeline.StateActive))),
		Retries:     pipeline.MaxRetries, Concurrency: pipeline.DefaultConcurrency, Revision: revision,
	}
	if len(s.Events) == 0 {
		s.Events = anyEvent
	}
	s.Formats = d.formats()
	if d.Retries != nil {
		s.Retries = int32(*d.Retries)
	}
	if d.Concurrency != nil {
		s.Concurrency = int32(*d.Concurrency)
	}
	s.Rate, _ = ParseRate(d.Rate)
	s.DisableAfter, _ = parseDisableAfter(d.DisableAfter)
	if d.Timeout != "" {
		s.Timeout, _ = time.ParseDuration(d.Timeout)
		// REQUEST_TIMEOUT may have been lowered since the subscription was applied.
		if pol.MaxTimeout > 0 {
			s.Timeout = min(s.Timeout, pol.MaxTimeout)
		}
	}
	s.Headers = d.headers()
	d.attach(s, pol)
	d.credentials(s)
	return s
}

// anyEvent is the default of events, shared: subscriptions are immutable.
var anyEvent = []string{"*"}

// formats is nil for any format.
func (d *Document) formats() []pipeline.Format {
	var out []pipeline.Format
	for _, f := range d.Format {
		out = append(out, pipeline.Format(f))
	}
	return out
}

func (d *Document) headers() []pipeline.Header {
	if len(d.Headers) == 0 {
		return nil
	}
	out := make([]pipeline.Header, 0, len(d.Headers))
	for _, name := range slices.Sorted(maps.Keys(d.Headers)) {
		out = append(out, pipeline.Header{Name: name, Value: d.Headers[name]})
	}
	return out
}

func or(s, fallback string) string {
	if s == "" {
		return fallback
	}
	return s
}
