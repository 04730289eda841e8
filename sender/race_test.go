//go:build race

package sender

import "time"

func init() { overrun = 250 * time.Millisecond }

const raceEnabled = true
