package format

import (
	"errors"
	"fmt"
	"strings"
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
		seen := map[string]bool{}
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
		}
	}
	return o, errors.Join(errs...)
}

func setOption(o *TopicOptions, key, value string) error {
	if key == "default-tenant" {
		if value == "" || value == pipeline.AnyTenant || !utf8.ValidString(value) {
			return fmt.Errorf("%q is not a tenant", value)
		}
		o.DefaultTenant = value
		return nil
	}
	if key == "unknown-types" {
		return setUnknownTypes(o, value)
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
		return errors.New("unknown option (one of default-tenant, unknown-types, type, tenant, id, entity, time)")
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
