// Command hookline-engine serves an embedded ClickHouse over HTTP, for "hookline
// dev", "hookline demo" and tests. It loads libchdb, which "make setup" brings.
package main

import (
	"os"
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}
