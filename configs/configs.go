// Package configs nests the configuration of every part, reads it from the
// environment, checks it as a whole and prints its reference. The parts own
// their settings: names, defaults, comments and checks stand beside the code
// that uses them.
package configs

import (
	"errors"
	"fmt"
	"iter"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/hookline/hookline/internal/app/admin"
	"github.com/hookline/hookline/internal/telemetry"
	"github.com/hookline/hookline/pipeline/dispatch"
	"github.com/hookline/hookline/pipeline/kafkax"
	"github.com/hookline/hookline/pipeline/router"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender"
	"github.com/hookline/hookline/sink"
)

// Config is the whole configuration. Its nesting gives the sections of the
// reference.
type Config struct {
	Kafka     kafkax.Config
	Router    router.Config
	Dispatch  dispatch.Config
	Sender    sender.Config
	Secrets   secret.Config
	Sink      sink.Config
	Admin     admin.Config
	Telemetry telemetry.Config

	set map[string]string // the variables that were given a value, as written
}

var sectionTitles = map[string]string{
	"Kafka":     "Kafka and hookline's topics",
	"Router":    "Events",
	"Dispatch":  "Order, retries and limits",
	"Sender":    "Requests",
	"Secrets":   "Secrets of subscriptions",
	"Sink":      "ClickHouse and the log",
	"Admin":     "Admin address",
	"Telemetry": "Logs and traces",
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

// CheckFiles reads the files that the configuration names, as the start does, and
// tells everything that is wrong with them, as Problems.
func (c *Config) CheckFiles() error {
	var problems Problems
	for part := range c.parts() {
		if p, ok := part.(interface{ CheckFiles() error }); ok {
			problems = append(problems, split(p.CheckFiles())...)
		}
	}
	if len(problems) == 0 {
		return nil
	}
	return problems
}

// parts gives a pointer to the configuration of each part.
func (c *Config) parts() iter.Seq[any] {
	return func(yield func(any) bool) {
		v := reflect.ValueOf(c).Elem()
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && !yield(v.Field(i).Addr().Interface()) {
				return
			}
		}
	}
}

// check gathers what the parts and the cross checks find wrong.
func (c *Config) check() Problems {
	var problems Problems
	for part := range c.parts() {
		if p, ok := part.(interface{ Validate() error }); ok {
			problems = append(problems, split(p.Validate())...)
		}
	}
	if len(c.Router.EventsTopics) == 0 { // NeedEvents tells, where it matters
		problems = slices.DeleteFunc(problems, func(p Problem) bool { return p.Variable == Prefix+"EVENTS_TOPICS" })
	}
	return append(problems, c.crossChecks()...)
}

// crossChecks are the rules that concern more than one part.
func (c *Config) crossChecks() Problems {
	var problems Problems
	for i := range c.Router.EventsTopics {
		spec := &c.Router.EventsTopics[i]
		for _, own := range c.Kafka.Settings() {
			if spec.Topic != own.Topic && (spec.Pattern == nil || !spec.Pattern.MatchString(own.Topic)) {
				continue
			}
			problems = append(problems, Problem{
				Variable: Prefix + "EVENTS_TOPICS",
				Why:      fmt.Sprintf("%s takes %s, which is a topic of hookline's own: its records would be events again", spec.Topic, own.Topic),
				Remedy:   "name the event topics alone, or choose another HOOKLINE_TOPIC_PREFIX",
			})
			break
		}
	}
	return problems
}

// NeedEvents is an error where no event topics are configured: what reads
// events cannot run then, all else can.
func (c *Config) NeedEvents() error {
	if len(c.Router.EventsTopics) > 0 {
		return nil
	}
	return Problems{{
		Variable: Prefix + "EVENTS_TOPICS", Why: "no event topics",
		Remedy: "name them with their formats, e.g. cotalker.events=cotalker",
	}}
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
