package kafkax

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"
)

// A line of Kafka's client has the part of the process that it works for, once.
func TestLoggerKeepsThePart(t *testing.T) {
	var out bytes.Buffer
	l := NewLogger(slog.New(slog.NewJSONHandler(&out, nil)).With("part", "router"))
	l.Log(kgo.LogLevelWarn, "unable to open connection to broker")
	if got := out.String(); strings.Count(got, `"part":`) != 1 || !strings.Contains(got, `"part":"router","client":"kafka"`) {
		t.Errorf("logged %s", got)
	}
}
