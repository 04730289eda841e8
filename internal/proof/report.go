package proof

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report writes the figures, then the first violations with all evidence.
func (v *Verdict) Report(w io.Writer, l *Ledger) {
	fmt.Fprintf(w, "%d events, %d deliveries: %d succeeded, %d dead (%d both, %d cancelled), %d came while their subscription was deleted; %d requests\n",
		v.Events, v.Pairs, v.Succeeded, v.Dead, v.Both, v.Cancelled, v.Untaken, v.Posts)
	kinds := map[string]int{}
	for _, f := range l.Faults {
		kinds[f.Kind]++
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		fmt.Fprintf(w, "  %-9s %d\n", k, kinds[k])
	}
	v.reportBounds(w)
	for k, gaps := range v.Gaps {
		if len(gaps) > 0 {
			slices.Sort(gaps)
			fmt.Fprintf(w, "attempt %d: %d times, later than its delay by min %v, median %v, p99 %v, max %v\n", k+1, len(gaps),
				gaps[0].Round(time.Microsecond), gaps[len(gaps)/2].Round(time.Millisecond), gaps[len(gaps)*99/100].Round(time.Millisecond), gaps[len(gaps)-1].Round(time.Millisecond))
		}
	}
	fmt.Fprintf(w, "longest time without a success: %v\n", v.LongestSilence.Round(time.Millisecond))
	spread(w, "from a process's start after a kill to its first request", v.Recoveries)
	spread(w, "from SIGTERM to the end", v.Stops)
	if v.Unreachable > 0 {
		fmt.Fprintf(w, "%d processes ended at their start since there was no Kafka\n", v.Unreachable)
	}
	v.Held.report(w)
	v.Isolation.report(w)
	if l.HasRows {
		r := &v.Rows
		fmt.Fprintf(w, "ClickHouse: %d rows, %d twice; %d requests without a row, all of killed processes; %d resends, %d rows without a request; %v\n",
			r.Rows, r.Twice, r.Without, r.Resends, r.Unwritten, r.Outcomes)
	}
	count := map[string]int{}
	for i := range v.Violations {
		count[v.Violations[i].Invariant]++
	}
	for _, k := range slices.Sorted(maps.Keys(count)) {
		fmt.Fprintf(w, "VIOLATED %s: %d times\n", k, count[k])
	}
	v.reportViolations(w, l)
}

// spread writes what sorted times come to.
func spread(w io.Writer, what string, times []time.Duration) {
	if n := len(times); n > 0 {
		fmt.Fprintf(w, "%s: %d times, median %v, p99 %v, max %v\n", what, n,
			times[n/2].Round(time.Millisecond), times[n*99/100].Round(time.Millisecond), times[n-1].Round(time.Millisecond))
	}
}

// reportBounds tells how many attempts breaches excused, and could have.
func (v *Verdict) reportBounds(w io.Writer) {
	type sum struct{ n, with, repeats, allowed, worst, worstAllowed int }
	sums := map[string]*sum{}
	for _, b := range v.Breaches {
		s := sums[b.Kind]
		if s == nil {
			s = &sum{}
			sums[b.Kind] = s
		}
		s.n++
		s.repeats += b.Repeats
		s.allowed += b.Allowed
		if b.Repeats > 0 {
			s.with++
		}
		if b.Repeats > s.worst {
			s.worst, s.worstAllowed = b.Repeats, b.Allowed
		}
	}
	fmt.Fprintf(w, "attempts made again: %d (%d were under way, %d not surely committed)\n", v.Repeats, v.UnderWay, v.Uncommitted)
	for _, k := range slices.Sorted(maps.Keys(sums)) {
		s := sums[k]
		fmt.Fprintf(w, "  %s: %d times; %d attempts made again in %d of them, %d allowed; at most %d at one, %d allowed there\n",
			k, s.n, s.repeats, s.with, s.allowed, s.worst, s.worstAllowed)
	}
}

// evidenceOf so many violations of each invariant is shown.
const evidenceOf = 4

func (v *Verdict) reportViolations(w io.Writer, l *Ledger) {
	shown := map[string]int{}
	for i := range v.Violations {
		x := &v.Violations[i]
		if shown[x.Invariant]++; shown[x.Invariant] > evidenceOf {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", x.Invariant, x.Text)
		if x.has {
			l.evidence(w, x.pair)
		}
	}
}

// evidence is all that is known of a delivery, its neighbours in the lane, and
// what was done to the processes at the time.
func (l *Ledger) evidence(w io.Writer, k pair) {
	if e := l.Events[k.seq]; e != nil {
		fmt.Fprintf(w, "  event %d: type %s, entity %s, source %d/%d, acknowledged at %v; partition %d of deliveries\n",
			k.seq, e.Type, e.Entity, e.Partition, e.Offset, e.At, l.Plan.Subs[k.sub].Part)
	}
	var mine laneID
	var own []*Post
	for _, p := range l.Posts {
		if p.Sub == k.sub && p.Seq == k.seq {
			own, mine = append(own, p), l.lane(p)
		}
	}
	if len(own) > 0 {
		from, to := own[0].At-500*time.Millisecond, own[len(own)-1].At+500*time.Millisecond
		l.neighbours(w, k, mine, from, to)
		l.around(w, own, from-2*time.Second, to+time.Second)
	}
	for _, x := range l.Letters {
		if x.Sub == k.sub && x.Seq == k.seq {
			fmt.Fprintf(w, "  dead letter: %s after %d attempts, produced at %v\n", x.Reason, x.Attempts, x.At)
		}
	}
}

// linesShown of a lane's requests and of faults at most.
const linesShown = 24

func (l *Ledger) neighbours(w io.Writer, k pair, mine laneID, from, to time.Duration) {
	var near []*Post
	for _, p := range l.Posts {
		if p.Sub == k.sub && p.At >= from && p.At <= to && l.lane(p) == mine {
			near = append(near, p)
		}
	}
	for i, p := range near {
		if i > linesShown && p.Seq != k.seq {
			continue
		}
		mark := " "
		if p.Seq == k.seq {
			mark = "*"
		}
		fmt.Fprintf(w, "  %s request %d: event %d attempt %d by %s, read at %v, answered %d at %v\n", mark, p.N, p.Seq, p.Attempt, l.lifeName(p.Life), p.At, p.Status, p.end())
	}
}

func (l *Ledger) around(w io.Writer, own []*Post, from, to time.Duration) {
	lives := map[int]bool{}
	for _, p := range own {
		lives[p.Life] = true
	}
	n := 0
	for _, f := range l.Faults {
		if f.To < from || f.From > to || f.Life != 0 && !lives[f.Life] {
			continue
		}
		if n++; n > linesShown {
			fmt.Fprintln(w, "  ...")
			return
		}
		fmt.Fprintf(w, "    %v to %v: %s\n", f.From, f.To, strings.TrimSpace(fmt.Sprintf("%s %s life %d %s", f.Kind, f.Name, f.Life, f.Note)))
	}
}
