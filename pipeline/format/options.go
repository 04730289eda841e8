package format

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/format/jsonscan"
)

// ParseTopicOptions reads a topic's part of EVENTS_TOPICS behind the equals
// sign: a format and its options, such as "cotalker" or
// "json:type=/kind,tenant=/shop/id,default-tenant=acme" or
// "goflow:default-tenant=acme,unknown-types=allow". Empty: formats are told by
// header or by shape. The error joins everything that is wrong.
func ParseTopicOptions(s string) (TopicOptions, error) {
	var o TopicOptions
	name, rest, hasOptions := strings.Cut(s, ":")
	o.Format = pipeline.Format(name)
	var errs []error
	if name != "" && !Known(o.Format) {
		errs = append(errs, fmt.Errorf("reading topic options: format %q is unknown (one of %s)", name, Names()))
	}
	if hasOptions {
		seen, dedupe := map[string]bool{}, false
		for option := range strings.SplitSeq(rest, ",") {
			key, value, ok := strings.Cut(option, "=")
			switch {
			case !ok:
				errs = append(errs, fmt.Errorf("reading topic options: %q is no option (write name=value)", option))
			case seen[key]:
				errs = append(errs, fmt.Errorf("reading topic options: %s is set twice", key))
			default:
				if err := setOption(&o, key, value); err != nil {
					errs = append(errs, fmt.Errorf("reading topic options: %s: %w", key, err))
				}
			}
			seen[key] = true
			dedupe = dedupe || key == "dedupe"
		}
		if o.DedupeWindow > 0 && !dedupe {
			errs = append(errs, errors.New("reading topic options: window: it belongs to dedupe=event_id, which is not set"))
		}
	}
	return o, errors.Join(errs...)
}

func setOption(o *TopicOptions, key, value string) error {
	if key == "default-tenant" {
		if value == "" || value == pipeline.AnyTenant || !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
			return fmt.Errorf("%q is not a tenant", value)
		}
		o.DefaultTenant = value
		return nil
	}
	switch key {
	case "unknown-types":
		return setUnknownTypes(o, value)
	case "dedupe":
		if value != "event_id" {
			return fmt.Errorf("%q is not event_id", value)
		}
		o.DedupeWindow = cmp.Or(o.DedupeWindow, DefaultDedupeWindow)
		return nil
	case "window":
		return setWindow(o, value)
	}
	var p *jsonscan.Pointer
	switch key {
	case "type":
		p = &o.Type
	case "tenant":
		p = &o.Tenant
	case "id":
		p = &o.ID
	case "entity":
		p = &o.Entity
	case "time":
		p = &o.Time
	default:
		return errors.New("unknown option (one of default-tenant, dedupe, window, unknown-types, type, tenant, id, entity, time)")
	}
	if o.Format != pipeline.FormatJSON {
		return errors.New("pointers belong to format json")
	}
	// A pointer is quoted in errors, which are one line of UTF-8.
	if !utf8.ValidString(value) || strings.ContainsFunc(value, unicode.IsControl) {
		return fmt.Errorf("%q has control characters or is not UTF-8", value)
	}
	var err error
	*p, err = jsonscan.CompilePointer(value)
	return err
}

// Bounds of the option window.
const (
	DefaultDedupeWindow = 10 * time.Minute
	minDedupeWindow     = time.Second
	maxDedupeWindow     = 24 * time.Hour
)

func setWindow(o *TopicOptions, value string) error {
	d, err := time.ParseDuration(value)
	if err != nil || d < minDedupeWindow || d > maxDedupeWindow {
		return fmt.Errorf("%q is not a duration of 1s to 24h, such as 10m", value)
	}
	o.DedupeWindow = d
	return nil
}

func setUnknownTypes(o *TopicOptions, value string) error {
	if o.Format != pipeline.FormatGoflow {
		return errors.New("it belongs to format goflow")
	}
	switch value {
	case "allow":
		o.AllowUnknownTypes = true
	case "refuse":
		o.AllowUnknownTypes = false
	default:
		return fmt.Errorf("%q is neither allow nor refuse", value)
	}
	return nil
}
