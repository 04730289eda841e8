package pipeline

import "fmt"

// Outcome is how one attempt ended: a closed enum. The same words are the
// metric label, the ClickHouse enum, the log line and the table in the docs.
type Outcome uint8

// The outcomes. Their numbers are stored in Kafka and ClickHouse: never reuse
// or renumber one.
const (
	// OutcomeSuccess: a status within SUCCESS_STATUS (200-209 by default).
	OutcomeSuccess Outcome = 1
	// OutcomeResponseError: a complete answer with any other status.
	OutcomeResponseError Outcome = 2
	// OutcomeTimeout: the request's time limit ran out (connect, TLS or answer).
	OutcomeTimeout Outcome = 3
	// OutcomeConnectError: no connection, or it broke before a complete answer.
	OutcomeConnectError Outcome = 4
	// OutcomeDNSError: the name does not exist or has no address.
	OutcomeDNSError Outcome = 5
	// OutcomeTLSError: the handshake or the certificate failed.
	OutcomeTLSError Outcome = 6
	// OutcomeProtocolError: an answer that is not valid HTTP, or over a limit.
	OutcomeProtocolError Outcome = 7
	// OutcomeBlocked: the address guard refused the URL or the address.
	OutcomeBlocked Outcome = 8
	// OutcomeGone: 410; the subscription is disabled.
	OutcomeGone Outcome = 9
	// OutcomeCancelled: ended without a try (subscription deleted or disabled).
	OutcomeCancelled Outcome = 10
	// OutcomeLocalError: our own fault (descriptors, ports, resolver, pool,
	// shutdown); spends no attempt.
	OutcomeLocalError Outcome = 11
)

// Outcomes lists every outcome, in the order of their numbers.
var Outcomes = [...]Outcome{
	OutcomeSuccess, OutcomeResponseError, OutcomeTimeout, OutcomeConnectError, OutcomeDNSError, OutcomeTLSError,
	OutcomeProtocolError, OutcomeBlocked, OutcomeGone, OutcomeCancelled, OutcomeLocalError,
}

// String gives the outcome's one word; "" for a value outside the enum.
func (o Outcome) String() string {
	switch o {
	case OutcomeSuccess:
		return "success"
	case OutcomeResponseError:
		return "response_error"
	case OutcomeTimeout:
		return "timeout"
	case OutcomeConnectError:
		return "connect_error"
	case OutcomeDNSError:
		return "dns_error"
	case OutcomeTLSError:
		return "tls_error"
	case OutcomeProtocolError:
		return "protocol_error"
	case OutcomeBlocked:
		return "blocked"
	case OutcomeGone:
		return "gone"
	case OutcomeCancelled:
		return "cancelled"
	case OutcomeLocalError:
		return "local_error"
	}
	return ""
}

// ParseOutcome is the inverse of String.
func ParseOutcome(s string) (Outcome, error) {
	for _, o := range Outcomes {
		if o.String() == s {
			return o, nil
		}
	}
	return 0, fmt.Errorf("parsing outcome: %q is not an outcome", s)
}

// SpendsAttempt tells whether a try that ended so counts as one of the
// delivery's attempts.
func (o Outcome) SpendsAttempt() bool { return o != OutcomeLocalError && o != OutcomeCancelled }

// DeadReason says why a delivery ended in the dead topic: a closed enum.
type DeadReason string

// The reasons, as the header hookline-reason carries them.
const (
	DeadExhausted DeadReason = "exhausted" // every attempt failed, or 410
	DeadSkipped   DeadReason = "skipped"   // an operator's skip
	DeadBacklog   DeadReason = "backlog"   // max_parked or max_parked_age
	DeadCancelled DeadReason = "cancelled" // subscription deleted or disabled
	// DeadUnreadable: hookline's own copy of the delivery cannot be read, and
	// neither can the record that it was made of.
	DeadUnreadable DeadReason = "unreadable"
)
