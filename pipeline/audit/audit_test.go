package audit

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRoundTrip(t *testing.T) {
	e := Entry{
		V: Version, ID: NewID(), Time: time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC), Actor: "ann", Action: ActionTest, Subscription: "erp",
		Result: ResultFailed, Lanes: 2, Node: "n", Test: &Test{DeliveryID: "d", Outcome: "timeout", ElapsedUS: 5},
	}
	if got, err := Parse(Encode(&e)); err != nil || !reflect.DeepEqual(got, &e) {
		t.Errorf("got %+v, %v, want %+v", got, err, e)
	}
}

func TestHostileText(t *testing.T) {
	e := Entry{ID: "1", Actor: "ann\xff\xfe", Detail: strings.Repeat("é", maxText), Test: &Test{Error: "\x80"}}
	got, err := Parse(Encode(&e))
	if err != nil || len(got.Detail) > maxText+3 || !strings.HasPrefix(got.Actor, "ann") {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for _, text := range []string{"", "{", `{"v":2,"id":"1"}`, `{"v":1}`, `{"v":1,"id":"1"}` + strings.Repeat(" ", MaxBytes)} {
		if e, err := Parse([]byte(text)); err == nil {
			t.Errorf("%.40q: %+v", text, e)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Encode(&Entry{ID: "1", Action: ActionSkip}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && e.ID == "" {
			t.Fatal("no id")
		}
	})
}
