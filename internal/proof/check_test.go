package proof

import (
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// pen writes a ledger by hand: one subscription, events 1 to 3, retries after
// 100 ms, processes a (life 1) and b (life 2).
type pen struct{ *Ledger }

func newPen(ordering string) pen {
	l := &Ledger{
		Plan: Plan{
			Subs:   []Sub{{ID: "s", Kind: "good", Type: "t", Ordering: ordering}},
			Delays: []time.Duration{100 * ms, 100 * ms, 100 * ms}, Session: time.Second, Timeout: time.Second,
		},
		Events: map[int]*Event{},
	}
	for seq := 1; seq <= 3; seq++ {
		l.Events[seq] = &Event{Seq: seq, Type: "t", Offset: int64(seq)}
	}
	return pen{l}.fault(Started, 1, 0, 0).fault(Started, 2, 0, 0)
}

// by is answered 10 ms after it came.
func (p pen) by(life, seq, attempt, status, at int) pen {
	p.Posts = append(p.Posts, &Post{
		N: len(p.Posts) + 1, Seq: seq, Attempt: attempt, Life: life, ID: string(rune('a' + seq)), Status: status,
		At: time.Duration(at) * ms, Until: time.Duration(at+10) * ms, Replied: time.Duration(at+10) * ms,
	})
	return p
}

func (p pen) post(seq, attempt, status, at int) pen { return p.by(1, seq, attempt, status, at) }

// other is a second subscription, which gets the second event at a time.
func (p pen) other(at int) pen {
	p.Plan.Subs = append(p.Plan.Subs, Sub{ID: "o", Kind: "good", Type: "t"})
	for seq, at := range []int{20, at, 65_000} {
		p.by(1, seq+1, 1, 200, at)
		p.Posts[len(p.Posts)-1].Sub, p.Posts[len(p.Posts)-1].ID = 1, string(rune('A'+seq))
	}
	return p
}

func (p pen) letter(seq, at int) pen {
	p.Letters = append(p.Letters, &Letter{Seq: seq, Attempts: 4, ID: string(rune('a' + seq)), Reason: "exhausted", At: time.Duration(at) * ms})
	return p
}

func (p pen) fault(kind string, life, from, to int) pen {
	p.Faults = append(p.Faults, &Fault{Kind: kind, Life: life, Name: string(rune('a' + life - 1)), From: time.Duration(from) * ms, To: time.Duration(to) * ms})
	return p
}

// unreachable is the end of a process that says it finds no Kafka.
func (p pen) unreachable(life, at int) pen {
	p = p.fault(Exited, life, at, at)
	p.Faults[len(p.Faults)-1].Code = exitUnreachable
	return p
}

func (p pen) kill(life, from, until int) pen { return p.fault(Killed, life, from, until) }

// commit is one transaction of a process.
func (p pen) commit(producer string, at int) pen {
	p.Commits = append(p.Commits, &Commit{Producer: producer, At: time.Duration(at) * ms})
	return p
}

// rest succeeds what is not part of a case, by a process.
func (p pen) rest(life, from, at int) pen {
	for seq := from; seq <= 3; seq++ {
		p.by(life, seq, 1, 200, at+20*(seq-from))
	}
	return p
}

func (p pen) row(seq, attempt int, id string) pen {
	p.HasRows = true
	p.Rows = append(p.Rows, Row{AttemptID: id, DeliveryID: string(rune('a' + seq)), Attempt: attempt, Outcome: "success", Written: true})
	return p
}

// asks has the last answer ask for a pause.
func (p pen) asks(after int) pen {
	p.Posts[len(p.Posts)-1].RetryAfter = time.Duration(after) * ms
	return p
}

func (p pen) absent(from, gone, back, to int) pen {
	p.Absent = append(p.Absent, &Absence{0, time.Duration(from) * ms, time.Duration(gone) * ms, time.Duration(back) * ms, time.Duration(to) * ms})
	return p
}

func (p pen) acked(seq, at int) pen {
	p.Events[seq].At = time.Duration(at) * ms
	return p
}

func (p pen) cancelled(seq, attempts, at int) pen {
	p.Letters = append(p.Letters, &Letter{Seq: seq, Attempts: attempts, ID: string(rune('a' + seq)), Reason: "cancelled", At: time.Duration(at) * ms})
	return p
}

func (p pen) holds(healed bool, files, goroutines int) pen {
	p.Samples = append(p.Samples, Sample{Life: 1, Healed: healed, Files: files, Goroutines: goroutines})
	return p
}

func fails(p pen) pen {
	return p.post(1, 1, 500, 0).post(1, 2, 500, 120).post(1, 3, 500, 240).post(1, 4, 500, 360)
}

// TestCheck: each fault that a ledger can show is found, and only that.
func TestCheck(t *testing.T) {
	judge(t, []judged{
		{"good", newPen("").rest(1, 1, 0), ""},
		{"retried", newPen("").post(1, 1, 500, 0).post(1, 2, 200, 110).rest(1, 2, 130), ""},
		{"dead", fails(newPen("")).letter(1, 371).rest(1, 2, 380), ""},
		{"lost without a request", newPen("").post(1, 1, 200, 0).post(3, 1, 200, 20), "I1"},
		{"lost after four attempts", fails(newPen("")).rest(1, 2, 380), "I1"},
		{"overtaken", newPen("").post(1, 1, 500, 0).rest(1, 2, 20).post(1, 2, 200, 120), "overtook"},
		{"overtaken across a kill", newPen("").post(1, 1, 500, 0).kill(1, 12, 13).rest(2, 2, 20).by(2, 1, 2, 200, 120), "overtook"},
		{"overtaken, but another lane", newPen("none").post(1, 1, 500, 0).rest(1, 2, 20).post(1, 2, 200, 120), ""},
		{"source order", newPen("").post(2, 1, 200, 0).post(1, 1, 200, 20).rest(1, 3, 40), "came after offset"},
		{"two at once", newPen("").post(1, 1, 200, 0).rest(1, 2, 5), "was answered"},
		{"two at once, one of a killed process", newPen("").post(1, 1, 200, 0).kill(1, 2, 3).by(2, 1, 1, 200, 8).rest(2, 2, 30), ""},
		{"two at once, another was killed", newPen("").post(1, 1, 200, 0).kill(2, 2, 3).rest(2, 2, 5), "was answered"},
		{"before it was dead", fails(newPen("")).letter(1, 400).rest(1, 2, 380), "overtook"},
		{"dead too late, across a kill", fails(newPen("")).rest(1, 2, 380).kill(1, 390, 391).letter(1, 600), "overtook"},
		{"too early", newPen("").post(1, 1, 500, 0).post(1, 2, 200, 109).rest(1, 2, 130), "too early"},
		{"left out", newPen("").post(1, 1, 500, 0).post(1, 3, 200, 300).rest(1, 2, 330), "follows"},
		{"begun late", newPen("").post(1, 2, 200, 0).rest(1, 2, 20), "first that came"},
		{"sent after success", newPen("").post(1, 1, 200, 0).post(1, 2, 200, 120).rest(1, 2, 140), "follows"},
		{"a fifth attempt", fails(newPen("")).post(1, 5, 500, 480).letter(1, 491).rest(1, 2, 500), "follows"},
		{"sent twice", newPen("").post(1, 1, 200, 0).post(1, 1, 200, 20).rest(1, 2, 40), "I5"},
		{"under way at a kill", newPen("").post(1, 1, 200, 0).kill(1, 5, 50).by(2, 1, 1, 200, 60).rest(2, 2, 80), ""},
		{"sent before a kill, read late", newPen("").kill(1, 5, 50).post(1, 1, 200, 900).by(2, 1, 1, 200, 3000).rest(2, 2, 3020), ""},
		{"not yet committed at a kill", newPen("").post(1, 1, 200, 0).kill(1, 30, 50).by(2, 1, 1, 200, 60).rest(2, 2, 80), ""},
		{"at another's kill", newPen("").post(1, 1, 200, 0).kill(2, 5, 50).by(2, 1, 1, 200, 60).rest(2, 2, 80), "I5"},
		{
			"committed before a kill",
			newPen("").post(1, 1, 200, 0).commit("a", 60).commit("a", 120).commit("a", 180).kill(1, 300, 310).by(2, 1, 1, 200, 360).rest(2, 2, 380), "I5",
		},
		{
			"committed by one of two transactions before a kill",
			newPen("").post(1, 1, 200, 0).commit("a", 5).commit("a", 60).kill(1, 80, 90).by(2, 1, 1, 200, 160).rest(2, 2, 180), "",
		},
		{
			"committed before a kill, each transaction with an epoch of its own",
			newPen("").post(1, 1, 200, 0).commit("a/1", 60).commit("a/2", 120).commit("a/3", 180).kill(1, 300, 310).by(2, 1, 1, 200, 360).rest(2, 2, 380), "I5",
		},
		{
			"committed by one of two such transactions",
			newPen("").post(1, 1, 200, 0).commit("a/1", 5).commit("a/2", 60).kill(1, 80, 90).by(2, 1, 1, 200, 160).rest(2, 2, 180), "",
		},
		{
			"committed before a kill, and then undone by a transaction of one who was frozen",
			newPen("").by(1, 1, 1, 200, 1000).commit("z/1", 500).commit("y/1", 1100).commit("y/2", 1200).commit("z/2", 3000).kill(1, 3050, 3060).by(2, 1, 1, 200, 3100).rest(2, 2, 3120), "I5",
		},
		{"after a lost session", newPen("").post(1, 1, 200, 0).fault(Lost, 1, 20, 20).by(2, 1, 1, 200, 60).rest(2, 2, 80), ""},
		{"after a session that was lost long before that was known", newPen("").post(1, 1, 200, 0).fault(Lost, 1, 20, 9000).by(2, 1, 1, 200, 3000).rest(2, 2, 3020), ""},
		{"after a pause", newPen("").post(1, 1, 200, 0).fault(Paused, 1, 5, 5).fault(Resumed, 1, 2000, 2000).by(2, 1, 1, 200, 1500).rest(2, 2, 1520), ""},
		{"after a short pause", newPen("").post(1, 1, 200, 0).fault(Paused, 1, 5, 5).fault(Resumed, 1, 200, 200).by(2, 1, 1, 200, 400).rest(2, 2, 420), "I5"},
		{"back in its lane", newPen("").rest(1, 1, 0).post(2, 1, 200, 80), "after a later delivery"},
		{"dead twice", fails(newPen("")).letter(1, 371).letter(1, 372).rest(1, 2, 380), "2 dead letters"},
		{"dead too soon", newPen("").post(1, 1, 500, 0).letter(1, 11).rest(1, 2, 380), "after 1 attempts"},
		{"dead though it succeeded", newPen("").rest(1, 1, 0).letter(3, 100), "succeeded and is dead"},
		{"one row each", newPen("").rest(1, 1, 0).row(1, 1, "x").row(2, 1, "y").row(3, 1, "z"), ""},
		{"a row is missing", newPen("").rest(1, 1, 0).row(1, 1, "x").row(2, 1, "y"), "no row"},
		{"a row is missing after a kill", newPen("").rest(1, 1, 0).kill(1, 55, 56).row(1, 1, "x").row(2, 1, "y"), ""},
		{"a row too many", newPen("").rest(1, 1, 0).row(1, 1, "x").row(2, 1, "y").row(3, 1, "z").row(3, 1, "w"), "2 rows"},
		{"a row twice", newPen("").rest(1, 1, 0).row(1, 1, "x").row(2, 1, "y").row(3, 1, "z").row(3, 1, "z"), "twice"},
		{"ended by itself", newPen("").rest(1, 1, 0).fault(Exited, 1, 100, 100), "ended at"},
		{"found no Kafka, and said it when it woke", newPen("").rest(1, 1, 0).fault(Started, 3, 100, 100).fault(Broker, 0, 90, 200).unreachable(3, 20_000), ""},
		{"found no Kafka after it had worked", newPen("").rest(1, 1, 10).fault(Broker, 0, 90, 200).unreachable(1, 20_000), "ended at"},
		{"found no Kafka, which was there", newPen("").rest(1, 1, 0).fault(Broker, 0, 90, 200).fault(Started, 3, 19_000, 19_000).unreachable(3, 20_000), "ended at"},
		{"stopped late", newPen("").rest(1, 1, 0).fault(Told, 1, 100, 100).fault(Exited, 1, 7000, 7000), "to stop"},
	})
}

// TestCheckMore: the same of what subscriptions and endpoints ask for, and of what
// processes hold.
func TestCheckMore(t *testing.T) {
	judge(t, []judged{
		{"asked to wait", newPen("").post(1, 1, 429, 0).asks(300).post(1, 2, 200, 311).rest(1, 2, 330), ""},
		{"not waited as asked", newPen("").post(1, 1, 429, 0).asks(300).post(1, 2, 200, 250).rest(1, 2, 330), "too early"},
		{"deleted", newPen("").post(1, 1, 200, 0).absent(20, 21, 6000, 6001), ""},
		{"deleted, and cancelled", newPen("").post(1, 1, 500, 0).absent(20, 21, 6000, 6001).cancelled(1, 1, 30).rest(1, 2, 7000), ""},
		{"deleted, and sent", newPen("").post(1, 1, 200, 0).absent(20, 21, 6000, 6001).rest(1, 2, 3000), "had been deleted"},
		{"deleted, and still under way", newPen("").post(1, 1, 200, 0).absent(20, 21, 6000, 6001).rest(1, 2, 1500), ""},
		{"cancelled without being deleted", newPen("").post(1, 1, 500, 0).cancelled(1, 1, 30).rest(1, 2, 40), "is dead (cancelled"},
		{"delivered, and cancelled", newPen("").rest(1, 1, 0).absent(80, 81, 6000, 6001).cancelled(3, 0, 90), "succeeded and is dead"},
		{"delivered, killed, and cancelled", newPen("").rest(1, 1, 0).kill(1, 55, 56).absent(80, 81, 6000, 6001).cancelled(3, 0, 90), ""},
		{"routed late, when it was deleted", newPen("").post(1, 1, 200, 0).absent(60_000, 60_001, 63_000, 63_001).acked(2, 10).acked(3, 63_500).other(62_000).rest(1, 3, 66_000), ""},
		{"routed to another before it was deleted", newPen("").post(1, 1, 200, 0).absent(60_000, 60_001, 63_000, 63_001).acked(2, 10).acked(3, 63_500).other(59_000).rest(1, 3, 66_000), "I1"},
		{"lost, long after it was there again", newPen("").post(1, 1, 200, 0).absent(20, 21, 30, 31).acked(3, 9000).post(2, 1, 200, 40), "I1"},
		{"gives back", newPen("").rest(1, 1, 0).holds(false, 100, 200).holds(true, 110, 210), ""},
		{"keeps files", newPen("").rest(1, 1, 0).holds(false, 100, 200).holds(true, 200, 200), "holds 200 files"},
		{"keeps goroutines", newPen("").rest(1, 1, 0).holds(false, 100, 200).holds(true, 100, 300), "has 300 goroutines"},
	})
}

// judged is a ledger and what is wrong with it.
type judged struct {
	name   string
	ledger pen
	want   string // what is found; empty: nothing
}

func judge(t *testing.T, cases []judged) {
	t.Helper()
	for _, tt := range cases {
		t.Run(tt.name, func(t *testing.T) {
			var found []string
			for _, x := range Check(tt.ledger.Ledger).Violations {
				found = append(found, x.Invariant+" "+x.Text)
			}
			if all := strings.Join(found, "\n"); tt.want == "" && all != "" || !strings.Contains(all, tt.want) {
				t.Errorf("found:\n%s\nwant %q", all, tt.want)
			}
		})
	}
}

// TestJournal: what is written down is read again, and judged the same.
func TestJournal(t *testing.T) {
	p := newPen("").post(1, 1, 500, 0).kill(1, 5, 6).by(2, 1, 1, 200, 60).rest(2, 2, 80)
	j, err := NewJournal(t.TempDir(), &p.Plan)
	if err != nil {
		t.Fatal(err)
	}
	add := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, e := range p.Events {
		add(j.Event(e))
	}
	for _, x := range p.Posts {
		add(j.Post(x))
		add(j.Reply(Reply{x.N, x.Replied}))
	}
	for _, x := range p.Faults {
		add(j.Fault(x))
	}
	add(j.Stray("something"))
	add(j.Rows([]byte("i\tb\t1\tsuccess\t1\t0\n")))
	add(j.Close())
	l, err := Load(j.Dir())
	if err != nil {
		t.Fatal(err)
	}
	v := Check(l)
	if v.Posts != 4 || v.Repeats != 1 || v.Pairs != 3 || v.Rows.Rows != 1 || len(v.Violations) != 3 {
		t.Errorf("got %+v, want 4 requests, one made again, one row, and violations of the stray and of two requests without a row", v)
	}
	var out strings.Builder
	v.Report(&out, l)
	for _, want := range []string{"VIOLATED I6 log: 2 times", "something", "* request 3: event 2 attempt 1 by b/life 2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the report lacks %q:\n%s", want, out.String())
		}
	}
}

// TestASecondRunInOneFolderIsRefused: its ledgers would go on where those of the
// first end.
func TestASecondRunInOneFolderIsRefused(t *testing.T) {
	dir := t.TempDir()
	j, err := NewJournal(dir, &Plan{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := NewJournal(dir, &Plan{Seed: 2}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
