// Command hookline delivers Kafka events to webhooks, in order, with retries,
// and logs every attempt in ClickHouse. See hookline help.
package main

import (
	"os"
)

// version is set by the linker (make build).
var version string

func main() {
	c := &cli{in: os.Stdin, out: os.Stdout, err: os.Stderr, environ: os.Environ()}
	os.Exit(c.main(os.Args[1:]))
}
