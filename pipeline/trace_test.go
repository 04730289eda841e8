package pipeline

import (
	"context"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const sampleParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

func TestTraceContext(t *testing.T) {
	tc, ok := ParseTraceContext([]byte(sampleParent), []byte("vendor=a:1, 7x@sys=b"))
	if !ok || !tc.Sampled() || tc.State != "vendor=a:1, 7x@sys=b" {
		t.Fatalf("%+v, %v", tc, ok)
	}
	if got := string(tc.AppendParent(nil)); got != sampleParent {
		t.Errorf("written again it is %s", got)
	}
	if tc, ok := ParseTraceContext([]byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"), nil); !ok || tc.Sampled() {
		t.Errorf("not sampled: %+v, %v", tc, ok)
	}
	if tc, ok := ParseTraceContext([]byte("01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd-more"), nil); !ok || tc.Flags != 1 {
		t.Errorf("a later version: %+v, %v", tc, ok)
	}
}

func TestTraceContextRefusals(t *testing.T) {
	for _, parent := range []string{
		"", "00", sampleParent + "-x", sampleParent[:54], "ff" + sampleParent[2:], strings.ToUpper(sampleParent),
		"00-00000000000000000000000000000000-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
		"00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
		"01" + sampleParent[2:] + "x",
	} {
		if tc, ok := ParseTraceContext([]byte(parent), []byte("a=1")); ok || tc != (TraceContext{}) {
			t.Errorf("%q is taken: %+v", parent, tc)
		}
	}
	for _, state := range []string{
		"", "a", "=1", "A=1", "a=", "a=1,a=2", "a=\x01", "a=é", "1=x", "a@=1", " a=1", "a=1\r\nX: y", "a=" + strings.Repeat("x", 257),
		strings.Repeat("x", 600), strings.Repeat("k=1,", 40), "a@b@c=1", ",,",
	} {
		if tc, ok := ParseTraceContext([]byte(sampleParent), []byte(state)); !ok || tc.State != "" {
			t.Errorf("tracestate %q: %q, %v", state, tc.State, ok)
		}
	}
}

func TestParseTraceContextDoesNotAllocate(t *testing.T) {
	parent, dst := []byte(sampleParent), make([]byte, 0, TraceParentBytes)
	n := testing.AllocsPerRun(100, func() {
		tc, _ := ParseTraceContext(parent, nil)
		dst = tc.AppendParent(dst[:0])
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What is taken is what OpenTelemetry's own propagator takes, less of a
// tracestate, and besides flags that are not defined, which the specification
// has ignored; what is passed on arrives there unchanged.
func FuzzTraceContext(f *testing.F) {
	f.Add(sampleParent, "a=1,b@c=2")
	f.Add("cc"+sampleParent[2:]+"-later", "a=1")
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-02", "a = 1")
	f.Fuzz(func(t *testing.T, parent, state string) {
		tc, ok := ParseTraceContext([]byte(parent), []byte(state))
		theirs := extract(parent, state)
		if ok && strings.HasPrefix(parent, "00-") && !theirs.IsValid() {
			theirs = extract(string(tc.AppendParent(nil)), state)
		}
		if ok != theirs.IsValid() {
			t.Fatalf("%q: %v, the propagator says %v", parent, ok, theirs.IsValid())
		}
		if !ok {
			return
		}
		if tc.TraceID != theirs.TraceID() || tc.SpanID != theirs.SpanID() || tc.Sampled() != theirs.IsSampled() {
			t.Fatalf("%q: %+v, the propagator has %v", parent, tc, theirs)
		}
		again := extract(string(tc.AppendParent(nil)), tc.State)
		if again.TraceID() != theirs.TraceID() || again.SpanID() != theirs.SpanID() || again.IsSampled() != theirs.IsSampled() {
			t.Fatalf("%q was passed on as %v", parent, again)
		}
		if tc.State != "" && again.TraceState().Len() == 0 {
			t.Fatalf("tracestate %q is passed on and nobody can read it", tc.State)
		}
	})
}

func extract(parent, state string) trace.SpanContext {
	carrier := propagation.MapCarrier{HeaderTraceParent: parent, HeaderTraceState: state}
	return trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
}
