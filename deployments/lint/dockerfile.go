package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/instructions"
	"github.com/moby/buildkit/frontend/dockerfile/linter"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// checkDockerfile parses the Dockerfile as BuildKit does, with its linter, and
// looks for what the image must have.
func checkDockerfile() []error {
	f, err := os.Open(root + "/Dockerfile")
	if err != nil {
		return []error{err}
	}
	defer f.Close()
	parsed, err := parser.Parse(f)
	if err != nil {
		return []error{err}
	}
	var errs []error
	for _, w := range parsed.Warnings {
		errs = append(errs, fmt.Errorf("line %v: %s", w.Location, w.Short))
	}
	lint := linter.New(&linter.Config{Warn: func(rule, _, _, message string, at []parser.Range) {
		errs = append(errs, fmt.Errorf("%v: %s: %s", at, rule, message))
	}})
	stages, _, err := instructions.Parse(parsed.AST, lint)
	if err != nil {
		return append(errs, err)
	}
	last := stages[len(stages)-1]
	user, health := "", false
	for _, c := range last.Commands {
		switch c := c.(type) {
		case *instructions.UserCommand:
			user = c.User
		case *instructions.HealthCheckCommand:
			health = true
		}
	}
	if user == "" || strings.HasPrefix(user, "0") || strings.HasPrefix(user, "root") {
		errs = append(errs, fmt.Errorf("the image runs as root"))
	}
	if !health {
		errs = append(errs, fmt.Errorf("the image has no health check"))
	}
	return errs
}
