package pipeline

import (
	"encoding/hex"
	"strings"
	"time"
)

// Names of the two fields of W3C Trace Context, as headers of Kafka records and
// of requests.
const (
	HeaderTraceParent = "traceparent"
	HeaderTraceState  = "tracestate"
)

// Limits of W3C Trace Context Level 1: the length of a version-00 traceparent
// (section 3.2.2), the least that must be passed on of a tracestate (3.3.1.5),
// and its most members (3.3.1.1).
const (
	TraceParentBytes     = 55
	MaxTraceStateBytes   = 512
	maxTraceStateMembers = 32
)

// The flags that are defined: the caller may have recorded its part of the trace
// (Level 1), the trace id is random (Level 2). Others must be zero when passed on.
const (
	flagSampled = 1
	flagRandom  = 2
)

// TraceContext is a place in a distributed trace: what traceparent and
// tracestate say. The zero value is none.
type TraceContext struct {
	TraceID [16]byte // all zero: no trace
	SpanID  [8]byte  // of the span that is the parent of what comes next
	Flags   byte
	State   string // tracestate as it came; empty: none
	// RoutedAt is when the router wrote the event's deliveries; zero where no
	// span is made of them.
	RoutedAt time.Time
}

// RouteSpan is the span of an event's routing.
type RouteSpan interface {
	// Routed tells what became of the event: a result as events_total has it, and
	// how many subscriptions it went to.
	Routed(ev *Event, result string, subscriptions int)
	// End ends the span when its transaction has ended.
	End(committed bool)
}

// AttemptSpan is the span of one try.
type AttemptSpan interface {
	// Context goes out with the request; valid until End.
	Context() *TraceContext
	// End ends the span with the try.
	End(res *Result)
}

// Valid tells whether there is a trace.
func (t *TraceContext) Valid() bool { return t.TraceID != [16]byte{} }

// Sampled tells whether spans are recorded of the trace.
func (t *TraceContext) Sampled() bool { return t.Valid() && t.Flags&flagSampled != 0 }

// AppendParent appends the value of a traceparent header, of version 00.
func (t *TraceContext) AppendParent(dst []byte) []byte {
	dst = append(dst, "00-"...)
	dst = hex.AppendEncode(dst, t.TraceID[:])
	dst = append(dst, '-')
	dst = hex.AppendEncode(dst, t.SpanID[:])
	dst = append(dst, '-')
	return hex.AppendEncode(dst, []byte{t.Flags})
}

// ParseTraceContext reads the two headers as W3C Trace Context prescribes: ok is
// false where traceparent is not valid, and then tracestate counts for nothing; a
// tracestate that is not valid is left out. A later version's traceparent is read
// as far as version 00 goes. It allocates only for a tracestate.
func ParseTraceContext(parent, state []byte) (t TraceContext, ok bool) {
	if len(parent) < TraceParentBytes || parent[2] != '-' || parent[35] != '-' || parent[52] != '-' {
		return TraceContext{}, false
	}
	var version, flags [1]byte
	if !lowerHex(version[:], parent[:2]) || version[0] == 0xff || !lowerHex(t.TraceID[:], parent[3:35]) ||
		!lowerHex(t.SpanID[:], parent[36:52]) || !lowerHex(flags[:], parent[53:55]) {
		return TraceContext{}, false
	}
	if longer := len(parent) > TraceParentBytes; longer && (version[0] == 0 || parent[TraceParentBytes] != '-') {
		return TraceContext{}, false
	}
	if !t.Valid() || t.SpanID == [8]byte{} {
		return TraceContext{}, false
	}
	t.Flags = flags[0] & (flagSampled | flagRandom)
	if validTraceState(state) {
		t.State = string(state)
	}
	return t, true
}

// lowerHex decodes src, which must be of digits and small letters.
func lowerHex(dst, src []byte) bool {
	for _, c := range src {
		if c >= 'A' && c <= 'F' {
			return false
		}
	}
	_, err := hex.Decode(dst, src)
	return err == nil
}

// validTraceState is the grammar of section 3.3.1, and its limits. What it
// accepts can stand in a header as it is.
func validTraceState(state []byte) bool {
	if len(state) == 0 || len(state) > MaxTraceStateBytes {
		return false
	}
	var seen [maxTraceStateMembers]string
	members := 0
	for member := range strings.SplitSeq(string(state), ",") {
		if member = strings.Trim(member, " \t"); member == "" {
			continue
		}
		key, value, found := strings.Cut(member, "=")
		if !found || members == maxTraceStateMembers || !validStateKey(key) || !validStateValue(value) {
			return false
		}
		for _, k := range seen[:members] {
			if k == key {
				return false
			}
		}
		seen[members] = key
		members++
	}
	first, last := state[0], state[len(state)-1]
	return members > 0 && first != ' ' && first != '\t' && last != ' ' && last != '\t'
}

// validStateKey: lcalpha, then lcalpha, digits and _-*/; or tenant@system, whose
// tenant may begin with a digit.
func validStateKey(key string) bool {
	tenant, system, multi := strings.Cut(key, "@")
	if !multi {
		return simpleKey(key, 256, false)
	}
	return simpleKey(tenant, 241, true) && simpleKey(system, 14, false)
}

func simpleKey(s string, longest int, digitFirst bool) bool {
	if s == "" || len(s) > longest {
		return false
	}
	for i := range len(s) {
		c := s[i]
		letter, digit := c >= 'a' && c <= 'z', c >= '0' && c <= '9'
		switch {
		case letter, digit && (i > 0 || digitFirst):
		case i > 0 && strings.IndexByte("_-*/", c) >= 0:
		default:
			return false
		}
	}
	return true
}

// validStateValue: visible ASCII and inner spaces without "," and "=", at most
// 256 bytes.
func validStateValue(s string) bool {
	if s == "" || len(s) > 256 {
		return false
	}
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == ',' || c == '=' {
			return false
		}
	}
	return true
}
