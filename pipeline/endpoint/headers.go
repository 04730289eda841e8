package endpoint

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/hookline/hookline/pipeline"
)

// reservedNames are headers that a subscription must not set: they frame the
// message, steer connections, caches and proxies, or name the sender.
var reservedNames = []string{
	"age", "authorization", "cache-control", "clear-site-data", "connection", "cookie", "cookie2", "date", "expect",
	"expires", "forwarded", "host", "http2-settings", "keep-alive", "pragma", "te", "trailer", "trailers",
	"traceparent", "tracestate", "transfer-encoding", "upgrade", "user-agent", "via", "warning", "x-real-ip", "x-s4-externalid",
	"x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url",
}

// reservedPrefixes are families of headers that a subscription must not set:
// ours, those of the webhook and CloudEvents standards, and those by which
// proxies and clouds trust their callers.
var reservedPrefixes = []string{
	"content-", "webhook-", "x-hookline-", "ce-", "proxy-", "x-forwarded-", "x-amz-", "x-amzn-", "x-google", "x-goog-",
	"x-gfe", "x-azure-", "x-fd-", "x-svix-", "svix-",
}

// CheckHeaders checks a subscription's custom headers; it returns every problem
// at once, and never quotes a value.
func CheckHeaders(headers []pipeline.Header) error {
	var errs []error
	if len(headers) > pipeline.MaxHeaders {
		errs = append(errs, fmt.Errorf("checking headers: %d are over the limit of %d", len(headers), pipeline.MaxHeaders))
	}
	seen := make(map[string]bool, len(headers))
	total := 0
	for _, h := range headers {
		total += len(h.Name) + len(h.Value)
		if err := checkHeader(h); err != nil {
			errs = append(errs, err)
		}
		lower := strings.ToLower(h.Name)
		if seen[lower] {
			errs = append(errs, fmt.Errorf("checking headers: %q is there twice", h.Name))
		}
		seen[lower] = true
	}
	if total > pipeline.MaxHeadersBytes {
		errs = append(errs, fmt.Errorf("checking headers: %d bytes are over the limit of %d", total, pipeline.MaxHeadersBytes))
	}
	return errors.Join(errs...)
}

func checkHeader(h pipeline.Header) error {
	if !isToken(h.Name) {
		return fmt.Errorf("checking headers: name %q is not a header name (letters, digits and hyphens)", h.Name)
	}
	if Reserved(h.Name) {
		return fmt.Errorf("checking headers: %q is set by hookline or reserved (use auth for credentials, another name for the rest)", h.Name)
	}
	if !ValidValue(h.Value) {
		return fmt.Errorf("checking headers: the value of %q has characters that a header cannot carry (visible ASCII, inner spaces and tabs)", h.Name)
	}
	return nil
}

// Reserved tells whether a subscription may not set the header name.
func Reserved(name string) bool {
	name = strings.ToLower(name)
	return slices.Contains(reservedNames, name) ||
		slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// isToken is RFC 9110's token.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	return s != ""
}

// ValidValue tells whether s goes into a header as it is: visible ASCII, with
// spaces and tabs only inside.
func ValidValue(s string) bool {
	for i := range len(s) {
		if c := s[i]; c >= 0x7f || c < ' ' && c != '\t' {
			return false
		}
	}
	return s == "" || !isBlank(s[0]) && !isBlank(s[len(s)-1])
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// secretWords in a header's name say that its value is kept out of the log.
var secretWords = []string{"auth", "token", "secret", "key", "password", "passwd", "cookie", "credential", "session", "signature"}

// SecretHeader tells whether the header's value is kept out of the log.
func SecretHeader(name string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(name, w) })
}

// SafeValue makes any string a header value: what ValidValue accepts is kept,
// except that of anything else each byte which is not visible ASCII is
// percent-encoded, and so is a percent sign, so that it can be decoded again.
func SafeValue(s string) string {
	if ValidValue(s) {
		return s
	}
	const hex = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+16)
	for i := range len(s) {
		if c := s[i]; c > ' ' && c < 0x7f && c != '%' {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}
