package router

import (
	"testing"
	"time"
)

func TestSettling(t *testing.T) {
	const fast = 3 * time.Millisecond
	var s settling
	now := time.Now()
	s.ended = now
	if s.until().After(now) {
		t.Error("records are held back before anything is known")
	}
	check := func(what string, want time.Duration) {
		t.Helper()
		if got := s.until().Sub(now); got != want {
			t.Errorf("held back for %v after %s, want %v", got, what, want)
		}
	}
	s.wrote(fast)
	check("a fast write", minSettle)
	s.wrote(fast + brokerBackoff)
	check("one that the broker let wait", minSettle+settleUp)
	for range 50 {
		s.wrote(time.Second)
	}
	check("many slow writes", maxSettle)
	for range 10 {
		s.wrote(fast)
	}
	check("ten fast ones", maxSettle-settleUp)
	for range 1000 {
		s.wrote(fast)
	}
	check("many fast ones", minSettle)
}

// Where writing takes longer than the broker's pause anyway, that is no reason to
// hold anything back.
func TestSettlingOnASlowBroker(t *testing.T) {
	s := settling{}
	for range 100 {
		s.wrote(2 * brokerBackoff)
	}
	if s.wait != minSettle {
		t.Errorf("held back for %v by writes that always take %v, want %v", s.wait, 2*brokerBackoff, minSettle)
	}
	for range 3 { // it became slower: taken for a wait at first
		s.wrote(4 * brokerBackoff)
	}
	for range 200 {
		s.wrote(4 * brokerBackoff)
	}
	if s.wait != minSettle {
		t.Errorf("held back for %v by writes that take %v now, want %v", s.wait, 4*brokerBackoff, minSettle)
	}
}
