package main

import (
	"testing"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/kafkax"
)

func TestDeadLine(t *testing.T) {
	for want, d := range map[string]kafkax.Dead{
		"broken: exhausted after 4 attempts: response_error: HTTP 500":                               {Subscription: "broken", Reason: pipeline.DeadExhausted, Attempts: 4, Error: "response_error: HTTP 500"},
		"gone: exhausted after 1 attempt: gone (410: not tried again, the subscription is disabled)": {Subscription: "gone", Reason: pipeline.DeadExhausted, Attempts: 1, Error: "gone"},
	} {
		if got := deadLine(&d); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
