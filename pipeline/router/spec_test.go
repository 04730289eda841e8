package router

import (
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline/kafkax"
)

func TestTopicSpecs(t *testing.T) {
	var s TopicSpecs
	text := `cotalker.events=cotalker; orders=json:type=/kind,tenant=/shop/id,entity=/order/id ;/shop\.[a-z;]+/=json:default-tenant=acme;/any.*/;bare`
	if err := s.UnmarshalText([]byte(text)); err != nil {
		t.Fatal(err)
	}
	for topic, want := range map[string]string{
		"cotalker.events": "cotalker.events", "orders": "orders", "shop.a": `shop\.[a-z;]+`, "anything": "any.*", "bare": "bare",
		"xshop.a": "", "shop.a1": "", "order": "",
	} {
		got := s.find(topic)
		switch {
		case got == nil && want != "":
			t.Errorf("%s: no entry", topic)
		case got != nil && got.Topic != want:
			t.Errorf("%s: entry %s, want %q", topic, got.Topic, want)
		}
	}
	if s[2].Options.DefaultTenant != "acme" || s[0].Options.Format != "cotalker" || s[4].Options.Format != "" {
		t.Errorf("options %+v", s)
	}
	out, err := s.MarshalText()
	var again TopicSpecs
	if err != nil || again.UnmarshalText(out) != nil || len(again) != len(s) {
		t.Errorf("written as %q", out)
	}
}

func TestTopicSpecsReportEverythingAtOnce(t *testing.T) {
	var s TopicSpecs
	err := s.UnmarshalText([]byte("a=nonsense;b b=json;c=json:type=x;/(/=json;/open=json;d=json;d=cotalker;..=json"))
	if err == nil {
		t.Fatalf("parsed %+v", s)
	}
	for _, entry := range []string{`"a=nonsense"`, `"b b=json"`, `"c=json:type=x"`, `"/(/=json"`, `"/open=json"`, `"d=cotalker"`, `"..=json"`} {
		if !strings.Contains(err.Error(), entry) {
			t.Errorf("%s is not in:\n%v", entry, err)
		}
	}
	if err := s.UnmarshalText([]byte(" ; ")); err == nil {
		t.Error("an empty list was parsed")
	}
}

func FuzzTopicSpecs(f *testing.F) {
	f.Add("cotalker.events=cotalker;/x.*/=json:type=/kind")
	f.Add("/;/=;/")
	f.Fuzz(func(t *testing.T, text string) {
		var s, again TopicSpecs
		if s.UnmarshalText([]byte(text)) != nil {
			return
		}
		out, err := s.MarshalText()
		if err != nil {
			t.Fatal(err)
		}
		if err := again.UnmarshalText(out); err != nil || len(again) != len(s) {
			t.Fatalf("%q was written as %q: %v", text, out, err)
		}
	})
}

func TestStart(t *testing.T) {
	for _, text := range []string{"latest", "earliest", "2026-01-31T08:00:00Z"} {
		var s Start
		if err := s.UnmarshalText([]byte(text)); err != nil || s.String() != text {
			t.Errorf("%s: %v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "Latest", "yesterday", "2026-01-31", "1960-01-01T00:00:00Z"} {
		var s Start
		if err := s.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was parsed as %v", text, s)
		}
	}
}

func TestConfigIsChecked(t *testing.T) {
	c := Config{Interval: time.Minute}
	if err := c.Validate(); err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("got %v, want two errors", err)
	}
	k := kafkax.DefaultConfig()
	own := Config{}
	if err := own.EventsTopics.UnmarshalText([]byte("hookline.retry.2=json")); err != nil {
		t.Fatal(err)
	}
	if _, err := New(own, Deps{Kafka: &k, Matcher: func() Matcher { return nil }}); err == nil || !strings.Contains(err.Error(), "hookline.retry.2") {
		t.Errorf("routing one of our own topics: %v", err)
	}
}
