// Package closing bounds how long a stop waits for what is closed last.
package closing

import "time"

// Within calls closing and waits for it for at most limit. It tells whether it has
// ended. What has not goes on until the process ends: in the middle of a rebalance
// the client of a Kafka group's member waits until all others have joined, which may
// take half a minute and gives a process that is about to end nothing.
func Within(limit time.Duration, closing func()) bool {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		closing()
	}()
	t := time.NewTimer(limit)
	defer t.Stop()
	select {
	case <-closed:
		return true
	case <-t.C:
		return false
	}
}
