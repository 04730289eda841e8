package proof

import "testing"

// broken has the endpoints of some subscriptions broken for a while.
func (p pen) broken(from, to int, subs ...int) pen {
	p.fault(Endpoint, 0, from, to)
	p.Faults[len(p.Faults)-1].Subs = subs
	return p
}

// beside is a ledger with a second subscription, of other events. The run begins
// at 0 with two processes; it is calm from 3 s on: two sessions and a request's time.
func beside() pen {
	p := newPen("")
	p.Plan.Subs = append(p.Plan.Subs, Sub{ID: "other", Kind: "good", Type: "u"})
	return p.acked(1, 4000).acked(2, 4000).acked(3, 9000)
}

// TestIsolation: a healthy subscription for which work waits is not left waiting
// while others are broken and nothing else is.
func TestIsolation(t *testing.T) {
	late := func() pen { return beside().post(1, 1, 200, 4100).post(2, 1, 200, 6500).post(3, 1, 200, 9100) }
	judge(t, []judged{
		{"goes on", beside().post(1, 1, 200, 4100).post(2, 1, 200, 6000).post(3, 1, 200, 9100).broken(3500, 10000, 1), ""},
		{"nothing waits", beside().acked(2, 8900).post(1, 1, 200, 4100).post(2, 1, 200, 9000).post(3, 1, 200, 9100).broken(3500, 10000, 1), ""},
		{"left waiting", late().broken(3500, 10000, 1), "I7 isolation s, whose endpoint is well, got no request from 4.1s to 6.5s"},
		{"left waiting since before the calm", beside().acked(1, 0).post(1, 1, 200, 5500).post(2, 1, 200, 5600).post(3, 1, 200, 9100).broken(3500, 10000, 1), "from 3s to 5.5s"},
		{"left waiting to the end of the calm", late().broken(3500, 10000, 1).kill(2, 6400, 6401), "from 4.1s to 6.4s"},
		{"left waiting, but nobody else is broken", late(), ""},
		{"left waiting, long after others were broken", late().broken(500, 900, 1), ""},
		{"left waiting, broken itself", late().broken(3500, 10000, 0, 1), ""},
		{"left waiting, broken itself until just before", late().broken(3500, 10000, 1).broken(100, 2500, 0), ""},
		{"left waiting after a kill", late().broken(3500, 10000, 1).kill(2, 4050, 4051), ""},
		{"left waiting while a process is frozen", late().broken(3500, 20000, 1).fault(Paused, 2, 4050, 4051).fault(Resumed, 2, 9000, 9001), ""},
		{"left waiting while ClickHouse is away", late().broken(3500, 10000, 1).fault(Engine, 0, 2000, 3500), ""},
	})
	v := Check(beside().post(1, 1, 200, 4100).post(2, 1, 200, 6000).post(3, 1, 200, 9100).broken(3500, 5000, 1).Ledger)
	want := Isolation{Calm: 6100 * ms, Broken: 1500 * ms, Subs: 2, Longest: 1900 * ms}
	if v.Isolation != want { // the other one until it is broken, at 3.5 s
		t.Errorf("got %+v, want %+v", v.Isolation, want)
	}
}
