// Lint checks what is in deployments with the libraries of those who read it:
// Helm, Kubernetes, the Prometheus operator, compose, BuildKit, Grafana and
// Prometheus. Run it from deployments/lint; it names everything that is wrong.
package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
)

// root is the folder that is checked.
const root = ".."

func main() {
	bad := 0
	for _, check := range []struct {
		name string
		run  func() []error
	}{
		{"chart", checkChart}, {"compose", checkCompose}, {"Dockerfile", checkDockerfile}, {"dashboards", checkDashboards},
	} {
		errs := check.run()
		for _, err := range errs {
			fmt.Fprintf(os.Stderr, "lint-deployments: %s: %v\n", check.name, err)
		}
		bad += len(errs)
	}
	if bad > 0 {
		os.Exit(1)
	}
}

// checkCompose loads the compose file with the example environment, in which
// what must be set is given a value here.
func checkCompose() []error {
	path := root + "/compose/compose.yaml"
	env := []string{"CLICKHOUSE_PASSWORD=x", "HOOKLINE_ADMIN_TOKEN=0123456789abcdef", "HOOKLINE_ADMIN_READ_TOKEN=0123456789abcdee", "GRAFANA_PASSWORD=x"}
	opts, err := cli.NewProjectOptions([]string{path}, cli.WithEnv(env), cli.WithResolvedPaths(true), cli.WithInterpolation(true))
	if err != nil {
		return []error{err}
	}
	project, err := opts.LoadProject(context.Background())
	if err != nil {
		return []error{err}
	}
	var errs []error
	for name, service := range project.Services {
		if service.Build == nil && !strings.Contains(service.Image, ":") {
			errs = append(errs, fmt.Errorf("%s: the image %s has no version", name, service.Image))
		}
		for _, v := range service.Volumes {
			if v.Type != "bind" {
				continue
			}
			if _, err := os.Stat(v.Source); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", name, err))
			}
		}
		for _, p := range service.Ports {
			if p.HostIP != "127.0.0.1" {
				errs = append(errs, fmt.Errorf("%s: port %s is open to everybody", name, p.Published))
			}
		}
	}
	// Without them it must say what is missing, not start with empty passwords.
	opts, err = cli.NewProjectOptions([]string{path}, cli.WithInterpolation(true))
	if err == nil {
		if _, err = opts.LoadProject(context.Background()); err == nil {
			errs = append(errs, fmt.Errorf("it loads without passwords"))
		}
	}
	return errs
}
