package registry

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

const storedA = `{"v":1,"revision":3,"updated_at":"2026-01-02T03:04:05Z","id":"a","tenant":"t","url":"https://a.example.com/"}`

func TestParseRecord(t *testing.T) {
	pol := testPolicy()
	r, err := ParseRecord([]byte("a"), []byte(storedA), pol)
	if err != nil || r.Sub.ID != "a" || r.Sub.Revision != 3 || r.IsState || r.Deleted {
		t.Errorf("got %+v, %v", r, err)
	}
	if r, err = ParseRecord([]byte("a"), nil, pol); err != nil || !r.Deleted || r.ID != "a" {
		t.Errorf("tombstone: got %+v, %v", r, err)
	}
	since := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	key, value := StateRecord("a", &StateInfo{Revision: 3, State: pipeline.StateDisabled, Reason: "gone", Since: since, Missed: []MissedSpan{{From: since, To: since.Add(time.Hour), Reason: "gone"}}})
	if r, err = ParseRecord(key, value, pol); err != nil || !r.IsState || r.ID != "a" || r.State.Reason != "gone" || r.State.Missed[0].Reason != "gone" {
		t.Errorf("state: got %+v, %v", r, err)
	}
	const want = `{"v":1,"revision":3,"state":"disabled","reason":"gone","since":"2026-01-02T03:04:05Z","missed":[{"from":"2026-01-02T03:04:05Z","to":"2026-01-02T04:04:05Z","reason":"gone"}]}`
	if string(value) != want || string(key) != "a#state" {
		t.Errorf("got %s %s, want %s", key, value, want)
	}
}

func TestParseRecordRefuses(t *testing.T) {
	edit := func(old, replacement string) string { return strings.Replace(storedA, old, replacement, 1) }
	tests := []struct{ name, key, value, want string }{
		{"key", "a b", storedA, `key "a b" is not an id`},
		{"other key", "b", storedA, `reading subscription b: its key says b, its id "a"`},
		{"json", "a", storedA[:20], "not JSON at byte 20"},
		{"empty", "a", "", "not JSON at byte 0"},
		{"type", "a", edit(`"t"`, `{"secret":"CANARY"}`), "wrong type at /tenant"},
		{"newer", "a", edit(`"v":1`, `"v":2`), "schema version 2 is not 1: written by another version of hookline"},
		{"no version", "a", edit(`"v":1,`, ``), "schema version 0 is not 1"},
		{"revision", "a", edit(`3`, `0`), "revision 0 is not positive"},
		{"url", "a", edit(`https://a.example.com`, `http://169.254.169.254`), `subscription "a".url: scheme http is not allowed`},
		{"feature", "a", edit(`"id"`, `"rate":"50","id"`), "is not a number per s, m or h"},
		{"several", "a", edit(`https:`, `x:`) + " ", "url: "},
		{"large", "a", storedA + strings.Repeat(" ", MaxRecordBytes), "over the limit of 262144"},
		{"state", "a#state", `{"v":1,"revision":1,"state":"asleep"}`, `state "asleep" is not known`},
		{"state of a newer version", "a#state", `{"v":9}`, "schema version 9"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseRecord([]byte(tt.key), []byte(tt.value), testPolicy())
			if err == nil || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\n") || strings.Contains(err.Error(), "CANARY") {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	if _, err := ParseRecord([]byte("a"), []byte(edit(`"v":1`, `"v":2`)), testPolicy()); !errors.Is(err, errVersion) {
		t.Error("a newer version is not recognised")
	}
}

func TestTimeoutIsCutToTheLimit(t *testing.T) {
	pol := testPolicy()
	d := Document{ID: "a", Tenant: "t", URL: "https://a.example.com/", Timeout: "10s"}
	if pol.MaxTimeout = 5 * time.Second; d.Subscription(1, pol).Timeout != 5*time.Second {
		t.Error("the timeout is longer than the request timeout")
	}
}

// TestNotesOfFailures: what is noted of failures, hundreds of times a second where
// endpoints fail, is no new generation, for which all would be indexed anew; what
// changes how events are matched is.
func TestNotesOfFailures(t *testing.T) {
	b := newBuilder(testPolicy())
	add := func(key, value []byte) *Snapshot {
		t.Helper()
		if err := b.add(key, value); err != nil {
			t.Fatal(err)
		}
		return b.snapshot(b.next.version + 1)
	}
	first := add([]byte("a"), []byte(storedA))
	since := time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)
	noted := add(HealthRecord("a", 3, since))
	if s := noted.Get("a"); !s.FailingSince.Equal(since) || noted.Generation() != first.Generation() {
		t.Errorf("failing since %v, generation %d after %d", s.FailingSince, noted.Generation(), first.Generation())
	}
	if recovered := add(HealthRecord("a", 3, time.Time{})); recovered.Generation() != first.Generation() {
		t.Error("a recovery is a new generation")
	}
	if off := add(StateRecord("a", &StateInfo{Revision: 3, State: pipeline.StateDisabled})); off.Generation() <= first.Generation() {
		t.Error("a disabled one is matched on")
	}
}

// TestChangedSince compares it with a look at every subscription, between any two
// of many snapshots.
func TestChangedSince(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	b := newBuilder(testPolicy())
	var snaps []*Snapshot
	id := func() string { return "s" + strconv.Itoa(rnd.IntN(40)) }
	for i := range 900 {
		key, value := []byte(id()), []byte(nil)
		switch rnd.IntN(4) {
		case 0:
			key, value = HealthRecord(string(key), int64(1+rnd.IntN(3)), time.UnixMilli(int64(1+rnd.IntN(5))))
		case 1:
			key, value = StateRecord(string(key), &StateInfo{Revision: int64(1 + rnd.IntN(3)), State: pipeline.StatePaused})
		case 2:
			d := doc(string(key))
			value = encode(&d, int64(1+rnd.IntN(3)), time.Time{}, nil)
		}
		if err := b.add(key, value); err != nil {
			t.Fatal(err)
		}
		if rnd.IntN(3) == 0 {
			snaps = append(snaps, b.snapshot(int64(i)))
		}
	}
	compared, told := 0, 0
	for i, older := range snaps {
		for _, s := range snaps[i:min(len(snaps), i+30)] {
			ids, known := s.ChangedSince(older)
			if !known {
				continue
			}
			compared++
			for n := range 40 {
				id := "s" + strconv.Itoa(n)
				if s.Get(id) != older.Get(id) && !slices.Contains(ids, id) {
					t.Fatalf("%s has changed from version %d to %d, which is not told", id, older.Version(), s.Version())
				}
			}
			if told += len(ids); s == older && len(ids) > 0 {
				t.Errorf("%d differ from themselves", len(ids))
			}
		}
		if _, known := older.ChangedSince(snaps[len(snaps)-1]); known && older.Version() < snaps[len(snaps)-1].Version() {
			t.Fatal("it knows what a newer one has changed")
		}
	}
	if compared < 1000 || told == 0 {
		t.Errorf("%d compared, %d changes", compared, told)
	}
}

func TestBuilder(t *testing.T) {
	b := newBuilder(testPolicy())
	add := func(key, value string) *Snapshot {
		t.Helper()
		var v []byte
		if value != "" {
			v = []byte(value)
		}
		err := b.add([]byte(key), v)
		if refused := strings.Contains(value, "bad"); refused != (err != nil) {
			t.Errorf("%s: error %v", key, err)
		}
		return b.snapshot(b.next.version + 1)
	}
	state := func(revision int64, s pipeline.State) string {
		_, v := StateRecord("a", &StateInfo{Revision: revision, State: s, Reason: "why"})
		return string(v)
	}
	first := add("a", storedA)
	if s := first.Get("a"); s == nil || s.State != pipeline.StateActive || first.Len() != 1 || first.Version() != 0 {
		t.Fatalf("got %+v", s)
	}
	if s := add("a#state", state(2, pipeline.StateDisabled)).Get("a"); s.State != pipeline.StateActive {
		t.Error("a state of an older revision counts")
	}
	snap := add("a#state", state(3, pipeline.StatePaused))
	if s := snap.Get("a"); s.State != pipeline.StatePaused || s.StateReason != "why" || snap.State("a").Revision != 3 {
		t.Errorf("got %+v", s)
	}
	snap = add("a", `{"bad":1}`)
	if s := snap.Get("a"); s == nil || s.Revision != 3 || s.State != pipeline.StatePaused || snap.Bad() != 1 {
		t.Errorf("the last good version is not in force: %+v", s)
	}
	for id, err := range snap.Refused() {
		if id != "a" || err == nil {
			t.Errorf("refused %s: %v", id, err)
		}
	}
	snap = add("a", strings.Replace(storedA, `"revision":3`, `"revision":4`, 1))
	if s := snap.Get("a"); s.Revision != 4 || s.State != pipeline.StateActive || snap.Bad() != 0 {
		t.Errorf("got %+v", s)
	}
	snap = add("n", "bad")
	if s := snap.Get("n"); s == nil || s.State != pipeline.StatePaused || snap.Len() != 1 || snap.Bad() != 1 {
		t.Errorf("a subscription that cannot be read is not held: %+v", s)
	}
	if snap = add("n", ""); snap.Get("n") != nil {
		t.Error("a deleted one is still there")
	}
	if snap = add("a#state", "bad"); snap.Bad() != 1 || snap.Get("a") == nil {
		t.Error("a bad state is not reported, or ends the subscription")
	}
	add("a#state", "")
	if s := add("a#state", `{"v":9,"bad":1}`).Get("a"); s.State != pipeline.StatePaused || !strings.Contains(s.StateReason, "version 9") {
		t.Errorf("a state that a newer version decided, which may be a pause, is passed over: %+v", s)
	}
	if s := add("a#state", "").Get("a"); s.State != pipeline.StateActive {
		t.Errorf("still held: %+v", s)
	}
	if snap = add("a", ""); snap.Get("a") != nil || snap.Len() != 0 || snap.Bad() != 0 {
		t.Errorf("got %d and %d bad", snap.Len(), snap.Bad())
	}
	if first.Get("a") == nil || first.Get("a").State != pipeline.StateActive || first.Len() != 1 {
		t.Error("a published snapshot has changed")
	}
}

// Offsets of very many partitions do not make a state unreadable: those of the
// oldest times go first, and the times stay.
func TestStateWithTooManyOffsets(t *testing.T) {
	many := map[string][]int64{"events": make([]int64, 5000)}
	for i := range many["events"] {
		many["events"][i] = 1 << 40
	}
	st := StateInfo{Revision: 1, State: pipeline.StateDisabled, Routed: many, Missed: []MissedSpan{{Reason: "a", Routed: many}, {Reason: "b", Routed: many}}}
	key, value := StateRecord("s", &st)
	r, err := ParseRecord(key, value, testPolicy())
	if err != nil || len(r.State.Routed["events"]) != 5000 || len(r.State.Missed) != 2 || r.State.Missed[0].Routed != nil {
		t.Errorf("%v, %d bytes", err, len(value))
	}
	if len(st.Missed[0].Routed) == 0 {
		t.Error("what was given is changed")
	}
	many["events"] = slices.Repeat(many["events"], 4)
	if key, value = StateRecord("s", &st); len(value) > maxStateBytes {
		t.Errorf("%d bytes", len(value))
	}
	if r, err = ParseRecord(key, value, testPolicy()); err != nil || r.State.Routed != nil || len(r.State.Missed) != 2 {
		t.Errorf("%v, %+v", err, r.State)
	}
}
