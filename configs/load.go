package configs

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"

	"github.com/hookline/hookline/internal/failpoint"
)

// Prefix is what every variable's name begins with.
const Prefix = "HOOKLINE_"

// toolPrefixes begin the names of variables that only scripts and tests read:
// they are no part of the configuration, and no error.
var toolPrefixes = []string{Prefix + "TEST_", Prefix + "CHDB_", Prefix + "ENGINE_", Prefix + "KAFKA_HEAP", Prefix + "KAFKA_JVM", Prefix + "KAFKA_WAIT", Prefix + "KAFKA_EXTRA"}

// Problem is one thing wrong with the configuration.
type Problem struct {
	Variable string // empty: a matter of several variables
	Why      string
	Remedy   string // empty: plain from Why
}

// Error gives "reading configuration: VARIABLE: why (remedy)".
func (p Problem) Error() string {
	var b strings.Builder
	b.WriteString("reading configuration: ")
	if p.Variable != "" {
		b.WriteString(p.Variable + ": ")
	}
	b.WriteString(p.Why)
	if p.Remedy != "" {
		b.WriteString(" (" + p.Remedy + ")")
	}
	return b.String()
}

// Problems is everything wrong with the configuration, found in one go.
type Problems []Problem

// Error gives one line for each problem.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.Error()
	}
	return strings.Join(lines, "\n")
}

// Load reads the configuration out of environ (as os.Environ gives it) and
// checks it. The error, if any, is a Problems with everything that is wrong.
func Load(environ []string) (*Config, error) {
	c := new(Config)
	vars, problems := variables(environ)
	problems = append(problems, parse(c, vars)...)
	// The parts' own checks still say what they can about what did parse.
	problems = append(problems, without(c.check(), problems)...)
	if len(problems) > 0 {
		slices.SortStableFunc(problems, func(a, b Problem) int { return strings.Compare(a.Variable, b.Variable) })
		return nil, problems
	}
	return c, nil
}

// Default is the configuration with nothing set.
func Default() *Config {
	c := new(Config)
	if ps := parse(c, nil); len(ps) > 0 {
		panic("BUG: " + ps.Error())
	}
	return c
}

// SetDefault is Set where the variable was not given a value.
func (c *Config) SetDefault(name, value string) error {
	if _, given := c.set[Prefix+name]; given {
		return nil
	}
	return c.Set(name, value)
}

// Set parses value for one variable into c, as if it stood in the environment.
// The name is without the prefix.
func (c *Config) Set(name, value string) error {
	vars, problems := variables([]string{Prefix + name + "=" + value})
	merged := c.overrides()
	maps.Copy(merged, vars)
	fresh := new(Config)
	problems = append(problems, parse(fresh, merged)...)
	if len(problems) > 0 {
		return problems
	}
	*c = *fresh
	return nil
}

func (c *Config) overrides() map[string]string {
	if c.set == nil {
		return map[string]string{}
	}
	return maps.Clone(c.set)
}

// variables picks ours out of environ and tells the unknown ones.
func variables(environ []string) (map[string]string, Problems) {
	known := make(map[string]bool)
	for _, f := range Fields() {
		known[f.Name] = true
	}
	vars := make(map[string]string)
	var problems Problems
	for _, kv := range environ {
		name, value, _ := strings.Cut(kv, "=")
		if !strings.HasPrefix(name, Prefix) || isTool(name) {
			continue
		}
		switch {
		case !known[name]:
			problems = append(problems, Problem{Variable: name, Why: "unknown variable", Remedy: suggestion(name, slices.Sorted(maps.Keys(known)))})
		case value != "": // an empty value means the default
			if old, twice := vars[name]; twice && old != value {
				problems = append(problems, Problem{Variable: name, Why: "set twice, to different values"})
			}
			vars[name] = value
		}
	}
	return vars, problems
}

func isTool(name string) bool {
	return failpoint.Enabled && name == Prefix+"FAILPOINT" ||
		slices.ContainsFunc(toolPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

func suggestion(name string, known []string) string {
	if near := nearest(name, known); near != "" {
		return "did you mean " + near + "?"
	}
	return "hookline help config lists the variables"
}

// parse fills c. Every variable is tried alone first, so that each error names
// its variable and none hides another.
func parse(c *Config, vars map[string]string) Problems {
	var problems Problems
	good := make(map[string]string, len(vars))
	for _, name := range slices.Sorted(maps.Keys(vars)) {
		value, err := normalise(name, vars[name])
		if err == nil {
			err = env.ParseWithOptions(new(Config), options(map[string]string{name: value}))
		}
		if err != nil {
			problems = append(problems, Problem{Variable: name, Why: plain(err, isSecret(name))})
			continue
		}
		good[name] = value
	}
	if err := env.ParseWithOptions(c, options(good)); err != nil {
		problems = append(problems, Problem{Why: plain(err, true)})
	}
	c.set = vars
	return problems
}

func options(vars map[string]string) env.Options {
	if vars == nil {
		vars = map[string]string{} // nil would mean the process's environment
	}
	return env.Options{
		Prefix:      Prefix,
		Environment: vars,
		FuncMap: map[reflect.Type]env.ParserFunc{
			reflect.TypeFor[time.Duration](): func(s string) (any, error) { return ParseDuration(s) },
		},
	}
}

// normalise turns 1MiB into 1048576 for the variables that count bytes: their
// names end in _BYTES.
func normalise(name, value string) (string, error) {
	value = strings.TrimSpace(value)
	if !strings.HasSuffix(name, "_BYTES") { // kept as written
		return value, nil
	}
	n, err := ParseBytes(value)
	return strconv.FormatInt(n, 10), err
}

// plain takes the field names and Go types of libraries out of an error. With
// secret the value, which parsers quote, stays out too.
func plain(err error, secret bool) string {
	if agg, ok := errors.AsType[env.AggregateError](err); ok && len(agg.Errors) > 0 {
		err = agg.Errors[0]
	}
	if pe, ok := errors.AsType[env.ParseError](err); ok {
		err = pe.Err
	}
	if pv, ok := errors.AsType[env.ParseValueError](err); ok && pv.Err != nil {
		err = pv.Err
	}
	if secret {
		return "not a valid value"
	}
	if ne, ok := errors.AsType[*strconv.NumError](err); ok {
		return fmt.Sprintf("%q is not a %s (%v)", ne.Num, kindWord(ne.Func), ne.Err)
	}
	return strings.Join(strings.Fields(err.Error()), " ")
}

func kindWord(strconvFunc string) string {
	if strconvFunc == "ParseBool" {
		return "truth value: true or false"
	}
	return "number"
}

// without leaves out the findings about variables that failed to parse: these
// hold no value worth judging.
func without(found Problems, failed Problems) Problems {
	var rest Problems
	for _, p := range found {
		if !slices.ContainsFunc(failed, func(f Problem) bool { return f.Variable == p.Variable }) {
			rest = append(rest, p)
		}
	}
	return rest
}
