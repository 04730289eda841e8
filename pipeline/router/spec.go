package router

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/hookline/hookline/pipeline/format"
)

// TopicSpec is one entry of EVENTS_TOPICS: which topics, and how their records
// are read.
type TopicSpec struct {
	// Topic is a topic's name, or the text of a regular expression.
	Topic string
	// Pattern is the expression, anchored at both ends; nil: Topic is a name.
	Pattern *regexp.Regexp
	// Options are the format and what it needs to know.
	Options format.TopicOptions
	// text is the entry as it was written.
	text string
}

// TopicSpecs is the value of EVENTS_TOPICS. Where several entries fit a topic, a
// name goes before an expression, and among expressions the first one counts.
type TopicSpecs []TopicSpec

var topicGrammar = regexp.MustCompile(`^[A-Za-z0-9._-]{1,249}$`)

// UnmarshalText parses entries separated by ";": a topic's name or "/regular
// expression/", then optionally "=" and a format with its options. The error
// joins everything that is wrong.
func (s *TopicSpecs) UnmarshalText(text []byte) error {
	var out TopicSpecs
	var errs []error
	seen := map[string]bool{}
	for rest := string(text); rest != ""; {
		var entry string
		entry, rest = cutEntry(rest)
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		spec, err := parseSpec(entry)
		if err == nil && seen[spec.Topic] {
			err = errors.New("it is there twice")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("parsing EVENTS_TOPICS: entry %q: %w", entry, err))
			continue
		}
		seen[spec.Topic] = true
		out = append(out, spec)
	}
	if len(out) == 0 && len(errs) == 0 {
		errs = append(errs, errors.New("parsing EVENTS_TOPICS: it has no entries (write topic=format, such as cotalker.events=cotalker)"))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	*s = out
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (s TopicSpecs) MarshalText() ([]byte, error) {
	texts := make([]string, len(s))
	for i := range s {
		texts[i] = s[i].text
	}
	return []byte(strings.Join(texts, ";")), nil
}

// cutEntry cuts off the first entry. Between slashes a semicolon is part of the
// expression.
func cutEntry(s string) (entry, rest string) {
	from := 0
	if trimmed := strings.TrimLeft(s, " \t\n"); strings.HasPrefix(trimmed, "/") {
		lead := len(s) - len(trimmed)
		if n := expressionEnd(trimmed); n > 0 {
			from = lead + n
		}
	}
	if i := strings.IndexByte(s[from:], ';'); i >= 0 {
		return s[:from+i], s[from+i+1:]
	}
	return s, ""
}

// expressionEnd is the length of "/expression/" at the start of s: its last
// slash stands before "=", ";" or the end. 0: there is none.
func expressionEnd(s string) int {
	for i := 1; i < len(s); i++ {
		if s[i] == '/' && (i+1 == len(s) || s[i+1] == '=' || s[i+1] == ';') {
			return i + 1
		}
	}
	return 0
}

func parseSpec(entry string) (TopicSpec, error) {
	spec := TopicSpec{text: entry}
	var options string
	if strings.HasPrefix(entry, "/") {
		n := expressionEnd(entry)
		if n < 3 {
			return spec, errors.New("the regular expression has no end (write /expression/=format)")
		}
		spec.Topic, options = entry[1:n-1], strings.TrimPrefix(entry[n:], "=")
		var err error
		if spec.Pattern, err = regexp.Compile("^(?:" + spec.Topic + ")$"); err != nil {
			return spec, err
		}
	} else {
		spec.Topic, options, _ = strings.Cut(entry, "=")
		spec.Topic = strings.TrimSpace(spec.Topic)
		if !topicGrammar.MatchString(spec.Topic) || spec.Topic == "." || spec.Topic == ".." {
			return spec, fmt.Errorf("%q is not a topic name", spec.Topic)
		}
	}
	var err error
	spec.Options, err = format.ParseTopicOptions(strings.TrimSpace(options))
	return spec, err
}

// find gives the entry for a topic; nil: none.
func (s TopicSpecs) find(topic string) *TopicSpec {
	for i := range s {
		if s[i].Pattern == nil && s[i].Topic == topic {
			return &s[i]
		}
	}
	for i := range s {
		if s[i].Pattern != nil && s[i].Pattern.MatchString(topic) {
			return &s[i]
		}
	}
	return nil
}
