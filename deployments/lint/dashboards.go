package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/prometheus/prometheus/promql/parser"
)

// checkDashboards decodes the dashboards strictly into Grafana's own types and
// parses their PromQL.
func checkDashboards() []error {
	paths, err := filepath.Glob(root + "/grafana/dashboards/*.json")
	if err != nil || len(paths) == 0 {
		return []error{fmt.Errorf("there are none: %w", err)}
	}
	var errs []error
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return append(errs, err)
		}
		if err := decodeDashboard(text); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
		}
		// That the decoder is strict at all:
		for _, wrong := range [][2]string{{`"type": "timeseries"`, `"kind": "timeseries"`}, {`"gridPos"`, `"gridpos"`}, {`"refresh": "30s"`, `"refreshes": "30s"`}} {
			if decodeDashboard(bytes.Replace(text, []byte(wrong[0]), []byte(wrong[1]), 1)) == nil {
				errs = append(errs, fmt.Errorf("%s: %s instead of %s is not noticed", path, wrong[1], wrong[0]))
			}
		}
		errs = append(errs, checkPromQL(path, text)...)
	}
	return errs
}

// decodeDashboard decodes strictly: no unknown field, none missing.
func decodeDashboard(text []byte) error {
	var board dashboard.Dashboard
	err := board.UnmarshalJSONStrict(text)
	if err != nil && err.Error() == "" {
		return nil // an empty list of errors, of a panel in which it found none
	}
	return err
}

func checkPromQL(path string, text []byte) []error {
	var board struct {
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &board); err != nil {
		return []error{fmt.Errorf("%s: %w", path, err)}
	}
	var errs []error
	for _, panel := range board.Panels {
		for _, target := range panel.Targets {
			if target.Expr == "" {
				continue
			}
			expr := strings.ReplaceAll(target.Expr, "$__rate_interval", "5m")
			if _, err := parser.NewParser(parser.Options{}).ParseExpr(expr); err != nil {
				errs = append(errs, fmt.Errorf("%s: %s: %w", path, panel.Title, err))
			}
		}
	}
	return errs
}
