package registry

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// Limits of rate and disable_after.
const (
	MaxRate         = 100_000 // requests per second
	MinDisableAfter = time.Minute
	MaxDisableAfter = 365 * 24 * time.Hour
)

// ParseRate reads "50/s", "600/m" or "1000/h"; "" is no limit.
func ParseRate(text string) (pipeline.Rate, error) {
	if text == "" {
		return pipeline.Rate{}, nil
	}
	count, unit, _ := strings.Cut(text, "/")
	var per time.Duration
	switch strings.TrimSpace(unit) {
	case "s":
		per = time.Second
	case "m":
		per = time.Minute
	case "h":
		per = time.Hour
	default:
		return pipeline.Rate{}, fmt.Errorf("%.60q is not a number per s, m or h", text)
	}
	n, err := strconv.ParseUint(strings.TrimSpace(count), 10, 32)
	if err != nil || n == 0 {
		return pipeline.Rate{}, fmt.Errorf("%.60q is not a whole number above 0 per s, m or h", text)
	}
	if most := MaxRate * uint64(per/time.Second); n > most {
		return pipeline.Rate{}, fmt.Errorf("%d/%s is more than %d/s", n, unit, MaxRate)
	}
	return pipeline.Rate{Count: int(n), Per: per}, nil
}

// parseDisableAfter reads a duration, with days as well ("5d"); "" is never.
func parseDisableAfter(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if days, ok := strings.CutSuffix(text, "d"); ok {
		var n uint64
		if n, err = strconv.ParseUint(days, 10, 16); err == nil {
			d = time.Duration(n) * 24 * time.Hour
		}
	}
	switch {
	case err != nil:
		return 0, fmt.Errorf("%.60q is not a duration", text)
	case d < MinDisableAfter || d > MaxDisableAfter:
		return 0, fmt.Errorf("%.60q is not within 1m to 365d", text)
	}
	return d, nil
}
