package command

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline/audit"
)

var given = time.Date(2026, 1, 31, 8, 0, 0, 0, time.UTC)

func TestRoundTrip(t *testing.T) {
	for _, c := range []Command{
		{Kind: KindSkip, ID: "1", Time: given, Actor: "ann", Subscription: "erp", Entity: "o1", RegistryVersion: 7},
		{Kind: KindTest, ID: "2", Time: given, Subscription: "erp", EventType: "a.b", Payload: []byte{0, 1, 0xff}},
		{Kind: KindStatus, ID: "3", Time: given, Subscription: "erp", Status: &Status{Node: "n", Stuck: []Stuck{{Delivery: "d", Attempts: 2, NextAt: given}}}},
	} {
		b, err := Encode(&c)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(b)
		c.V = Version
		if err != nil || !reflect.DeepEqual(got, &c) {
			t.Errorf("got %+v, %v, want %+v", got, err, c)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"not JSON":           `{`,
		"no id":              `{"v":1,"kind":"skip","subscription":"erp"}`,
		"no subscription":    `{"v":1,"kind":"skip","id":"1"}`,
		"a path":             `{"v":1,"kind":"skip","id":"1","subscription":"../erp"}`,
		"a long actor":       `{"v":1,"kind":"skip","id":"1","subscription":"erp","actor":"` + strings.Repeat("a", audit.MaxActor+1) + `"}`,
		"a status of skip":   `{"v":1,"kind":"skip","id":"1","subscription":"erp","status":{}}`,
		"a status with none": `{"v":1,"kind":"status","id":"1","subscription":"erp"}`,
		"too long":           `{"v":1,"kind":"skip","id":"1","subscription":"erp"}` + strings.Repeat(" ", MaxBytes),
	} {
		if c, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

// What a newer hookline writes can be answered, not carried out.
func TestNewer(t *testing.T) {
	for _, text := range []string{
		`{"v":2,"kind":"skip","id":"1","subscription":"erp","more":1}`, `{"v":1,"kind":"dance","id":"1","subscription":"erp"}`,
	} {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if why, ok := c.Supported(); ok || why == "" {
			t.Errorf("%s: supported", text)
		}
	}
}

func TestExpired(t *testing.T) {
	c := Command{Time: given}
	for after, want := range map[time.Duration]bool{0: false, MaxAge: false, MaxAge + 1: true, -MaxAhead: false, -MaxAhead - 1: true} {
		if got := c.Expired(given.Add(after)); got != want {
			t.Errorf("after %v: %v", after, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"v":1,"kind":"skip","id":"1","time":"2026-01-31T08:00:00Z","subscription":"erp","payload":"AAE="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil || c.V != Version {
			return
		}
		again, err := Encode(c)
		if err != nil {
			return // a time that JSON cannot have
		}
		got, err := Parse(again)
		if err != nil && len(again) <= MaxBytes || err == nil && got.ID != c.ID {
			t.Fatalf("%+v, then %+v, %v", c, got, err)
		}
	})
}
