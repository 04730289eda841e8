// Metricsdoc writes docs/metrics.md. Run it by `go generate ./internal/telemetry`.
package main

import (
	"bytes"
	"fmt"
	"os"

	"github.com/hookline/hookline/internal/telemetry"
)

// page is relative to internal/telemetry, where go generate runs.
const page = "../../docs/metrics.md"

func main() {
	var b bytes.Buffer
	err := telemetry.WriteMarkdown(&b)
	if err == nil {
		err = os.WriteFile(page, b.Bytes(), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "metricsdoc: writing "+page+": "+err.Error())
		os.Exit(1)
	}
}
