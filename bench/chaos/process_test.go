package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/proof"
)

// TestLostSessions is what a process's log tells of the sessions it has lost.
func TestLostSessions(t *testing.T) {
	const (
		interrupted = "time=2026-01-02T03:04:10Z level=WARN msg=\"the session is interrupted: nothing is sent until\" partitions=4\n"
		lost        = "time=2026-01-02T03:04:15Z level=WARN msg=\"partitions lost: the session ended\" partitions=4\n"
		goesOn      = "time=2026-01-02T03:04:15Z level=INFO msg=\"the session goes on\" partitions=4\n"
		later       = "time=2026-01-02T03:04:17Z level=INFO msg=\"another\"\n"
	)
	fault := func(from, to int) proof.Fault {
		return proof.Fault{Kind: proof.Lost, From: time.Duration(from) * time.Second, To: time.Duration(to) * time.Second}
	}
	for name, tt := range map[string]struct {
		log  string
		want []proof.Fault
	}{
		"none":                              {later, nil},
		"interrupted, none lost":            {interrupted + goesOn + later, nil},
		"interrupted, all lost":             {interrupted + lost + goesOn + later, []proof.Fault{fault(10, 15)}},
		"lost at once":                      {lost + goesOn + later, []proof.Fault{fault(15, 15)}},
		"began anew meanwhile":              {interrupted + strings.Replace(lost, "the session ended", "Kafka had lost what", 1) + later, nil},
		"killed before it knew":             {interrupted + later + "time=2026-01-02T0", []proof.Fault{fault(10, 17)}},
		"killed before it knew, once again": {interrupted + lost + goesOn + interrupted + "goroutine 1\n", []proof.Fault{fault(10, 15), fault(10, 10)}},
	} {
		t.Run(name, func(t *testing.T) {
			if got := lostSessions(tt.log, time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)); !reflect.DeepEqual(got, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}
