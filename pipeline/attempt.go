package pipeline

import "time"

// Attempt is one row of the delivery log: one try of one delivery.
type Attempt struct {
	AttemptID      string // unique per try: delivery, attempt, round, incarnation, try
	DeliveryID     string
	SubscriptionID string
	URL            string // without user info; query values redacted
	Envelope       *Envelope
	Attempt        int // 1..4; 0: cancelled without a try
	Round          int // 0; +1 for each operator's retry of an exhausted head
	Outcome        Outcome
	StatusCode     int // 0: no complete answer
	Error          string
	StartedAt      time.Time
	Elapsed        time.Duration
	DNS            time.Duration
	Connect        time.Duration
	TLS            time.Duration
	TTFB           time.Duration // to the first byte of the answer
	RequestHeaders []byte        // as sent, "Name: value\r\n" lines, secrets redacted
	RequestBytes   int           // body bytes
	// RequestWritten: at least one byte of a request went out; false for tries
	// that ended before (blocked, DNS, dial).
	RequestWritten    bool
	ResponseHeaders   []byte
	ResponseBody      []byte
	ResponseTruncated bool
	Resends           int // requests sent again on a fresh connection within this try (0 or 1)
	// AckID is the number by which the receiver of a task event acknowledged it:
	// the "id" of its answer, as it is spelled there; else empty.
	AckID         string
	Final         bool      // the delivery ended with this attempt
	NextAttemptAt time.Time // zero: none
	Node          string    // the process that made it
}

// Retry is the number of retries made before this attempt: 0 for the first.
func (a *Attempt) Retry() int { return max(0, a.Attempt-1) }
