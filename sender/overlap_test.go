package sender

import (
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender/sign"
)

// TestRotatedSecretSignsUntilItsOverlapEnds: a receiver that has not changed its
// secret yet takes every request of the overlap, and one that has changed it takes
// all. The client, with the keys that it keeps, is the same all the time.
func TestRotatedSecretSignsUntilItsOverlapEnds(t *testing.T) {
	const overlap = 24 * time.Hour
	url, got := endpointServer(t, nil)
	var shift atomic.Int64 // the clock runs with real time, so much ahead of it
	now := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"NEW": newHMAC, "OLD": oldHMAC}), Now: now})
	rotated := signing(pipeline.SigningStandard, "env:NEW", "env:OLD")
	rotated.Secrets[1].ExpiresAt = now().Add(overlap)
	for _, tt := range []struct {
		name  string
		after time.Duration
		by    []string
	}{
		{"at once", 0, []string{newHMAC, oldHMAC}},
		{"a minute before the end", overlap - time.Minute, []string{newHMAC, oldHMAC}},
		{"at the end", overlap, []string{newHMAC}},
		{"a day later", 2 * overlap, []string{newHMAC}},
	} {
		shift.Store(int64(tt.after))
		req := request(url)
		req.Subscription.Signing = rotated
		*got = nil
		res := send(c, req)
		if res.Outcome != pipeline.OutcomeSuccess || len(*got) != 1 {
			t.Fatalf("%s: %s %q, %d requests", tt.name, res.Outcome, res.Error, len(*got))
		}
		h := (*got)[0].header
		signed := strings.Fields(h.Get("webhook-signature"))
		seconds, err := strconv.ParseInt(h.Get("webhook-timestamp"), 10, 64)
		if err != nil || len(signed) != len(tt.by) {
			t.Errorf("%s: signatures %q, want %d; timestamp: %v", tt.name, signed, len(tt.by), err)
			continue
		}
		for i, key := range tt.by {
			// What a receiver that has only this key finds.
			alone, err := sign.New(pipeline.SigningStandard, []sign.Key{{Secret: secret.New(key)}})
			if err != nil {
				t.Fatal(err)
			}
			want, err := alone.Append(nil, h.Get("webhook-id"), time.Unix(seconds, 0), (*got)[0].body)
			if err != nil || signed[i] != string(want) {
				t.Errorf("%s: signature %d is %s, want %s (%v)", tt.name, i, signed[i], want, err)
			}
		}
	}
}
