package router

import "time"

// When a transaction's end is answered its markers are still to be written: until
// then Kafka is busy with it, for one to ten milliseconds. A broker of 4.0 or
// later takes no record of the next one before: it looks again after
// add.partitions.to.txn.retry.backoff.ms, 20 ms by default, and the transaction
// takes so much longer. So the first records are held back, and more are
// gathered, for a little while; how long that is the transactions themselves tell.
const (
	// brokerBackoff is Kafka's default of add.partitions.to.txn.retry.backoff.ms.
	brokerBackoff = 20 * time.Millisecond
	// minSettle was enough for an idle broker 4.4 in 52 of 54 transactions (1 ms:
	// in 45; 0: in 9).
	minSettle = 2 * time.Millisecond
	// maxSettle is half of what it is to avoid: markers took up to 10 ms on a
	// busy machine.
	maxSettle = brokerBackoff / 2
	// settleUp after a write that took as if it had come too early, settleDown
	// after another one: one in eleven may.
	settleUp   = time.Millisecond
	settleDown = settleUp / 10
	// usualGrowth: by a 32nd with each transaction, twice as much after 23.
	usualGrowth = 32
)

// settling is how long a transaction's first records are held back. Its zero
// value holds nothing back.
type settling struct {
	ended time.Time // when the last transaction's end was answered
	wait  time.Duration
	// usual is what writing takes at its best. It grows slowly, so that a broker
	// that became slower is not taken for one that lets us wait.
	usual time.Duration
}

// until is when the first records may be written.
func (s *settling) until() time.Time { return s.ended.Add(s.wait) }

// wrote notes how long it took to write a transaction's records.
func (s *settling) wrote(took time.Duration) {
	step := -settleDown
	switch {
	case s.usual == 0 || took < s.usual:
		s.usual = took
	case took >= s.usual+brokerBackoff:
		step = settleUp
		fallthrough
	default:
		s.usual += s.usual / usualGrowth
	}
	s.wait = min(max(s.wait+step, minSettle), maxSettle)
}
