package lane

import "testing"

// TestAnswersAreCountedUntilTheirTransaction: those that a lost one had count again.
func TestAnswersAreCountedUntilTheirTransaction(t *testing.T) {
	r := newRig(t, nil)
	want := func(n int, when string) {
		t.Helper()
		if got := r.task.Answers(); got != n {
			t.Errorf("%s: %d answers wait, want %d", when, got, n)
		}
	}
	for range 3 {
		r.task.Answer(&Out{Kind: OutAnswer, Subscription: "s", Payload: []byte("answer")})
	}
	want(3, "given")
	b := r.task.Cut()
	want(0, "cut")
	r.task.Answer(&Out{Kind: OutAnswer, Subscription: "s", Payload: []byte("answer")})
	r.task.Aborted(b)
	want(4, "aborted")
	b = r.task.Cut()
	r.task.Committed(r.now, b, make([]int64, len(b.Outs)))
	want(0, "committed")
}
