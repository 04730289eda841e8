package lane

// checkTask compares what the task counts with what it holds.
func checkTask(t *Task, fail func(string, ...any)) {
	type sums struct{ lanes, inflight, queued, parked, heads int }
	got := map[*sub]*sums{}
	for key, l := range t.lanes {
		n := got[l.sub]
		if n == nil {
			n = &sums{}
			got[l.sub] = n
		}
		n.lanes++
		n.queued += len(l.mem)
		n.parked += l.nparked() + l.pend
		if l.head != nil {
			n.heads++
		}
		if l.stage == stageReady || l.stage == stageFlying {
			n.inflight++
		}
		if l.key != key || t.bySub[l.sub.id] != l.sub {
			fail("lane %q: not where it belongs", key)
		}
		if l.waiting && len(l.mem) > 1 || l.head != nil && len(l.mem) > 0 || l.fence < 0 || l.pend < 0 {
			fail("lane %q: impossible: %+v", key, l)
		}
		if !l.waiting && (l.head != nil || len(l.parked) > 0 || l.pend > 0) {
			fail("lane %q: has no record, but a head or parked entries", key)
		}
		for i := 1; i < len(l.parked); i++ {
			if l.parked[i-1].origin >= l.parked[i].origin || i > 1 && l.parked[i-1].off >= l.parked[i].off {
				fail("lane %q: parked entries out of order", key)
			}
		}
	}
	refs := 0
	for key, l := range t.lanes {
		refs += len(l.parked)
		if l.tail.n < 0 || l.tail.late > l.tail.n || l.tail.n > 0 && len(l.parked) > 0 && l.parked[len(l.parked)-1].origin >= l.tail.origin {
			fail("lane %q: tail %+v behind %+v", key, l.tail, l.parked)
		}
	}
	if refs != t.parkedRefs {
		fail("task: counts %d places of parked deliveries, holds %d", t.parkedRefs, refs)
	}
	for id, s := range t.bySub {
		want := got[s]
		if want == nil {
			want = &sums{}
		}
		if have := (sums{s.lanes, s.inflight, s.queued, s.parked, s.heads}); have != *want {
			fail("subscription %s: counts %+v, holds %+v", id, have, *want)
		}
	}
	open, bytes := 0, 0
	for _, r := range t.recs {
		if r.open.count() != r.nopen {
			fail("record %d: counts %d open positions, has %d", r.Offset, r.nopen, r.open.count())
		}
		if r.nopen > 0 {
			open++
			bytes += len(r.Payload)
		}
	}
	if open != t.nopen || bytes != t.memBytes || t.inflight < 0 || t.outBytes < 0 {
		fail("task: counts %d records and %d bytes, holds %d and %d", t.nopen, t.memBytes, open, bytes)
	}
}

// checkEnd is the state in which nothing is left to do.
func (s *sim) checkEnd() {
	for _, id := range s.ids {
		if in := s.task.Inspect(id, 10); in.Waiting+in.Blocked+in.Parked+in.Heads+in.Queued+in.InFlight > 0 || len(in.Stuck) > 0 {
			s.fail("%s: nothing is left to do, but %+v", id, in)
		}
	}
	s.ledger.checkEnd()
	for _, r := range s.kafka.control.recs {
		if n := s.ledger.answers[r.off]; n != 1 {
			s.fail("the command at %d was answered %d times", r.off, n)
		}
	}
	t := s.task
	if len(t.lanes) > 0 || len(t.recs) > 0 || len(t.out) > 0 || len(t.dirty) > 0 || len(t.durable) > 0 {
		s.fail("left: %d lanes, %d records, %d outs, %d dirty, %d durable", len(t.lanes), len(t.recs), len(t.out), len(t.dirty), len(t.durable))
	}
	if t.nopen != 0 || t.memBytes != 0 || t.outBytes != 0 || t.inflight != 0 {
		s.fail("left: %d records, %d + %d bytes, %d under way", t.nopen, t.memBytes, t.outBytes, t.inflight)
	}
	for id, sub := range t.bySub {
		if sub.disabled == "" && !sub.bucket.used(s.now) && !sub.warm(s.now) && sub.health.settled(sub.conf, s.now) {
			s.fail("left: subscription %s", id)
		}
	}
	if h, f := s.sched.Waiting(); h+f > 0 {
		for w := s.sched.Next(s.now, anyShare); w != nil; w = s.sched.Next(s.now, anyShare) {
			s.fail("left: work for %s", w.LaneKey())
		}
	}
	for k := range t.retry {
		q := &t.retry[k]
		if len(q.slots) > 0 || q.position() < s.kafka.retry[k].last() || s.kafka.committedRetry[k] < s.kafka.retry[k].last() {
			s.fail("retry.%d: position %d (committed %d), end %d", k+1, q.position(), s.kafka.committedRetry[k], s.kafka.retry[k].last())
		}
	}
	if end := s.kafka.deliveries.last(); s.kafka.committed < end {
		s.fail("deliveries: committed %d, end %d", s.kafka.committed, end)
	}
	m := s.kafka.compacted()
	st, err := ParseState(m[StateKey])
	if err != nil && s.kafka.deliveries.end > 0 {
		s.fail("%v", err)
	}
	if _, open := st.Open.first(); open || len(m) > 1 {
		s.fail("left: state %+v and %d lane records", st, len(m)-1)
	}
}
