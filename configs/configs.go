// Package configs nests the configuration of every part, reads it from the
// environment, checks it as a whole and prints its reference. The parts own
// their settings: names, defaults, comments and checks stand beside the code
// that uses them.
package configs

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/dispatch"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/sender"
	"github.com/hookline/hookline/sink"
)

// Config is the whole configuration. Its nesting gives the sections of the
// reference.
type Config struct {
	Kafka     kafkax.Config
	Dispatch  dispatch.Config
	Sender    sender.Config
	Sink      sink.Config
	Admin     admin.Config
	Telemetry telemetry.Config

	set map[string]string // the variables that were given a value, as written
}

var sectionTitles = map[string]string{
	"Kafka":     "Kafka and hookline's topics",
	"Dispatch":  "Order, retries and limits",
	"Sender":    "Requests",
	"Sink":      "ClickHouse and the log",
	"Admin":     "Admin address",
	"Telemetry": "Logs",
}

// Given lists the variables that were set, with secrets redacted.
func (c *Config) Given() map[string]string {
	out := c.overrides()
	for name := range out {
		if isSecret(name) {
			out[name] = "[redacted]"
		}
	}
	return out
}

// String keeps secrets out of %v and logs.
func (c *Config) String() string { return fmt.Sprint(c.Given()) }

// GoString keeps secrets out of %#v.
func (c *Config) GoString() string { return c.String() }

// check gathers what the parts and the cross checks find wrong.
func (c *Config) check() Problems {
	var problems Problems
	v := reflect.ValueOf(c).Elem()
	for i := range v.NumField() {
		if !v.Type().Field(i).IsExported() {
			continue
		}
		if part, ok := v.Field(i).Addr().Interface().(interface{ Validate() error }); ok {
			problems = append(problems, split(part.Validate())...)
		}
	}
	return append(problems, c.crossChecks()...)
}

// crossChecks are the rules that concern more than one part.
func (c *Config) crossChecks() Problems {
	var problems Problems
	return problems
}

// named finds the variable, and the remedy in brackets, that a part's message has.
var named = regexp.MustCompile(`^(?:[a-z]+ )?(?:HOOKLINE_)?([A-Z][A-Z0-9_]+): (.*?)(?: \(([^()]*)\))?$`)

// split takes a joined error apart into problems.
func split(err error) Problems {
	if err == nil {
		return nil
	}
	var many interface{ Unwrap() []error }
	if errors.As(err, &many) {
		var out Problems
		for _, e := range many.Unwrap() {
			out = append(out, split(e)...)
		}
		return out
	}
	text := strings.Join(strings.Fields(err.Error()), " ")
	if m := named.FindStringSubmatch(text); m != nil {
		return Problems{{Variable: Prefix + m[1], Why: m[2], Remedy: m[3]}}
	}
	return Problems{{Why: text}}
}
