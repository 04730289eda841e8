//go:build !failpoint

package failpoint

import "io"

// Enabled tells whether there are failpoints in this binary.
const Enabled = false

// Hit is a step between two effects.
func Hit(Point) {}

// Holding is a step at which something is at hand that must not be shown.
func Holding(Point, func() string) {}

// Halfway has p hit when half of the n bytes of r have been read.
func Halfway(_ Point, r io.Reader, _ int) io.Reader { return r }
