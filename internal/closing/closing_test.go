package closing

import (
	"testing"
	"time"
)

// TestWithin: what ends is waited for, what does not is left.
func TestWithin(t *testing.T) {
	ended := false
	if !Within(time.Minute, func() { ended = true }) || !ended {
		t.Error("what ends was not waited for")
	}
	stuck := make(chan struct{})
	if Within(time.Millisecond, func() { <-stuck }) {
		t.Error("what is stuck counts as closed")
	}
	close(stuck)
}
