package telemetry

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestThrottle(t *testing.T) {
	var out bytes.Buffer
	h := newThrottle(slog.NewTextHandler(&out, nil), time.Second)
	h.seen.closed = true // its lines have times of their own
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	log := func(l slog.Level, msg string, after time.Duration) {
		t.Helper()
		if err := h.Handle(context.Background(), slog.NewRecord(start.Add(after), l, msg, 0)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 10 {
		log(slog.LevelWarn, "broker away", time.Duration(i)*time.Millisecond)
		log(slog.LevelInfo, "delivered", time.Duration(i)*time.Millisecond)
	}
	log(slog.LevelError, "broker away", time.Millisecond) // another level is another line
	log(slog.LevelWarn, "broker away", time.Second)
	got := out.String()
	if n := strings.Count(got, `level=WARN msg="broker away"`); n != 2 {
		t.Errorf("%d warnings, want 2:\n%s", n, got)
	}
	if !strings.Contains(got, "repeated=9") {
		t.Errorf("the second warning does not tell of the 9 left out:\n%s", got)
	}
	if n := strings.Count(got, "msg=delivered"); n != 10 {
		t.Errorf("%d information lines, want all 10", n)
	}
	if n := strings.Count(got, "level=ERROR"); n != 1 {
		t.Errorf("%d errors, want 1", n)
	}
}

// Which subscriptions fail is told of each, up to a bound, and what was held back is
// told with the next line of any kind once its window is over.
func TestThrottleTellsEachSubscription(t *testing.T) {
	var out bytes.Buffer
	h := newThrottle(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}), time.Second)
	h.seen.closed = true
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	failing := func(after time.Duration, id string) {
		t.Helper()
		r := slog.NewRecord(start.Add(after), slog.LevelWarn, "failing", 0)
		r.AddAttrs(slog.String("subscription", id))
		if err := h.Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for i := range maxSubscriptions + 5 {
		failing(0, fmt.Sprint("s", i))
	}
	failing(500*time.Millisecond, "s0")
	if n := strings.Count(out.String(), "msg=failing"); n != maxSubscriptions || strings.Contains(out.String(), "repeated") {
		t.Fatalf("%d lines, want one for each of %d subscriptions:\n%s", n, maxSubscriptions, out.String())
	}
	out.Reset()
	for range 2 {
		if err := h.Handle(context.Background(), slog.NewRecord(start.Add(1001*time.Millisecond), slog.LevelInfo, "another", 0)); err != nil {
			t.Fatal(err)
		}
	}
	if got := out.String(); got != "msg=failing subscription=s0 repeated=5\nmsg=another\nmsg=another\n" {
		t.Errorf("after the window:\n%s", got)
	}
	out.Reset()
	failing(1200*time.Millisecond, "s1")
	failing(1200*time.Millisecond, "s1")
	failing(2300*time.Millisecond, "s1")
	if got := out.String(); got != "msg=failing subscription=s1\nmsg=failing subscription=s1 repeated=1\n" {
		t.Errorf("later:\n%s", got)
	}
}

func TestThrottleClockGoingBack(t *testing.T) {
	s := &throttleState{last: map[throttleKey]*throttleEntry{}}
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	at := func(when time.Time) bool {
		_, ok := s.pass(slog.NewRecord(when, slog.LevelWarn, "m", 0), slog.DiscardHandler, time.Second)
		return ok
	}
	at(now)
	if !at(now.Add(-time.Hour)) {
		t.Error("a clock that went back silences the message for an hour")
	}
}

// What was left out is written when its window is over, though no other line comes.
func TestWhatWasLeftOutIsWrittenInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := newThrottle(slog.NewTextHandler(&out, nil), time.Second)
		log := slog.New(h)
		log.Warn("away", "try", 1)
		time.Sleep(900 * time.Millisecond)
		log.Warn("away", "try", 2)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if n := strings.Count(out.String(), "away"); n != 2 {
			t.Errorf("%d lines:\n%s", n, &out)
		}
		h.close()
	})
}

// A message that comes in bursts is written once a second, what is written late
// included.
func TestOneLineASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		h := newThrottle(slog.NewTextHandler(&out, nil), time.Second)
		log := slog.New(h)
		for range 20 {
			for range 7 {
				log.Warn("away")
				time.Sleep(100 * time.Millisecond)
			}
			time.Sleep(400 * time.Millisecond)
		}
		synctest.Wait()
		if n := strings.Count(out.String(), "away"); n < 15 || n > 22 {
			t.Errorf("%d lines in 22 s:\n%s", n, &out)
		}
		h.close()
	})
}

func TestLoggerFormats(t *testing.T) {
	for format, want := range map[string]string{"text": "level=INFO msg=hello", "json": `"msg":"hello"`, "auto": `"msg":"hello"`} {
		var out bytes.Buffer
		l := NewLogger(&Config{LogLevel: "info", LogFormat: format}, &out)
		l.Info("hello", "took", 1500*time.Millisecond, "err", io.EOF)
		l.Close(time.Minute)
		if got := out.String(); !strings.Contains(got, "error=EOF") && !strings.Contains(got, `"error":"EOF"`) {
			t.Errorf("format %s: what went wrong is not under error: %q", format, got)
		}
		if !strings.Contains(out.String(), "1.5s") {
			t.Errorf("format %s: a duration without its unit: %q", format, out.String())
		}
		if !strings.Contains(out.String(), want) {
			t.Errorf("format %s: %q lacks %q", format, out.String(), want)
		}
	}
}

func TestConfigNamesEveryMistake(t *testing.T) {
	err := (&Config{LogLevel: "loud", LogFormat: "xml"}).Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"HOOKLINE_LOG_LEVEL", "HOOKLINE_LOG_FORMAT"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %s", err, want)
		}
	}
}

// Warnings of which no next one told are told at the end, once.
func TestHeldBackWarningsAreWrittenAtTheEnd(t *testing.T) {
	var out bytes.Buffer
	l := NewLogger(&Config{LogLevel: "info", LogFormat: "text"}, &out)
	part := l.With("part", "sink")
	for i := range 5 {
		part.Warn("storing", "try", i)
	}
	l.Warn("alone")
	l.Close(time.Minute)
	l.Close(time.Minute)
	got := out.String()
	if n := strings.Count(got, "msg=storing"); n != 2 || !strings.Contains(got, "part=sink try=4 repeated=3") {
		t.Errorf("%d lines, want the first one and the last one with those between:\n%s", n, got)
	}
	if n := strings.Count(got, "msg=alone"); n != 1 {
		t.Errorf("%d lines of what was not repeated:\n%s", n, got)
	}
}
