package kafkax

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline"
)

func sampleEnvelope() pipeline.Envelope {
	return pipeline.Envelope{
		Source:  pipeline.Position{Cluster: "c1", TopicID: [16]byte{1, 2, 15: 9}, Topic: "cotalker.events", Partition: 7, Offset: 1 << 40},
		Format:  pipeline.FormatCotalker,
		EventID: "62685990d918fb5557f9f992", Tenant: "acme", EventType: "COTTask.create", Entity: "task/1", Correlation: "corr",
		ContentType: "application/json", RegistryVersion: 42, Replay: "rpl_1",
		Time: time.Date(2022, 4, 26, 20, 43, 1, 123456789, time.UTC), ProducedAt: time.UnixMilli(1650998581999).UTC(),
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	full := sampleEnvelope()
	for name, env := range map[string]pipeline.Envelope{
		"full":     full,
		"zero":     {},
		"negative": {RegistryVersion: -1, Time: time.Date(1, 1, 2, 0, 0, 0, 0, time.UTC)},
	} {
		t.Run(name, func(t *testing.T) {
			b := EncodeEnvelope(nil, &env)
			got := sampleEnvelope() // every field must be overwritten
			if err := DecodeEnvelope(b, &got); err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, env) {
				t.Fatalf("got  %+v\nwant %+v", got, env)
			}
			if err := DecodeEnvelope(append(b, "\x7f\x05newer"...), &got); err != nil || !reflect.DeepEqual(got, env) {
				t.Fatalf("with a newer writer's field: %v, %+v", err, got)
			}
			for i := range b {
				if err := DecodeEnvelope(b[:i], &got); err == nil {
					t.Fatalf("decoding the first %d of %d bytes succeeded", i, len(b))
				}
			}
		})
	}
}

func TestEnvelopeRefusesOtherVersionsAndExcess(t *testing.T) {
	var env pipeline.Envelope
	full := sampleEnvelope()
	b := EncodeEnvelope(nil, &full)
	b[0] = 2
	if err := DecodeEnvelope(b, &env); !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "version 2") {
		t.Fatalf("got %v, want the unknown version named", err)
	}
	b[0] = envelopeVersion
	if err := DecodeEnvelope(append(b, make([]byte, MaxEnvelopeBytes)...), &env); err == nil {
		t.Fatal("an envelope over the limit was decoded")
	}
}

func TestEnvelopeTimeOutsideTheCalendarBecomesZero(t *testing.T) {
	env := pipeline.Envelope{Time: time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC)}
	var got pipeline.Envelope
	if err := DecodeEnvelope(EncodeEnvelope(nil, &env), &got); err != nil || !got.Time.IsZero() {
		t.Fatalf("got %v, %v; want the zero time", got.Time, err)
	}
}

func manySubs(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = strings.Repeat(string(rune('a'+i/pipeline.MaxSubscriptionID)), 1+i%pipeline.MaxSubscriptionID)
	}
	return out
}

func TestSubsRoundTrip(t *testing.T) {
	for _, n := range []int{1, 2, 255, 256} {
		ids := manySubs(n)
		b := EncodeSubs([]byte("before"), ids)[6:]
		got, err := DecodeSubs(b, []string{"kept"})
		if err != nil || !reflect.DeepEqual(got, append([]string{"kept"}, ids...)) {
			t.Fatalf("%d ids: %v, got %d", n, err, len(got))
		}
		for i := range b {
			if got, err := DecodeSubs(b[:i], []string{"kept"}); err == nil || len(got) != 1 {
				t.Fatalf("the first %d of %d bytes: %v, %d ids", i, len(b), err, len(got))
			}
		}
	}
}

func TestSubsRefuseBadInput(t *testing.T) {
	for name, b := range map[string][]byte{
		"version": {9, 1, 1, 'a'}, "no ids": {1, 0}, "257 ids": {1, 0x81, 2}, "empty id": {1, 1, 0}, "bad id": {1, 1, 3, 'a', '/', 'b'},
		"long id": append([]byte{1, 1, 0x81, 1}, bytes.Repeat([]byte("a"), 129)...), "endless number": bytes.Repeat([]byte{0xff}, 20),
	} {
		if _, err := DecodeSubs(b, nil); err == nil {
			t.Errorf("%s: decoded", name)
		}
	}
	for name, ids := range map[string][]string{"none": {}, "too many": manySubs(257), "slash": {"a/b"}, "empty": {""}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: encoding did not panic", name)
				}
			}()
			EncodeSubs(nil, ids)
		}()
	}
}

func sampleCopy() Copy {
	env := sampleEnvelope()
	return Copy{
		Subscription: "sub_1", Lane: "sub_1/e/task/1", Origin: 77, Attempts: 2, Round: 1,
		FailedAt: time.UnixMilli(1650998581999).UTC(), NotBefore: time.UnixMilli(1650998599000).UTC(),
		Envelope: EncodeEnvelope(nil, &env), Payload: []byte(`{"a":1}`),
	}
}

func TestCopyRoundTrip(t *testing.T) {
	full := sampleCopy()
	follower := Copy{Subscription: "s", Lane: "s", Envelope: full.Envelope}
	alone := Copy{Subscription: "s", Lane: "s/n/5", Origin: 5, Envelope: full.Envelope, Payload: []byte("x")}
	for _, c := range []Copy{full, follower, alone} {
		got, err := ParseCopy(c.Record("t", 3))
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, c)
		}
	}
	up := full
	up.FailedAt = full.FailedAt.Add(1)
	if got, err := ParseCopy(up.Record("t", 3)); err != nil || got.FailedAt != full.FailedAt.Add(time.Millisecond) {
		t.Fatalf("got %v, %v: a failure time is rounded up", got.FailedAt, err)
	}
}

func TestParseCopyRefusesForgedRecords(t *testing.T) {
	set := func(key, value string) func(*kgo.Record) {
		return func(r *kgo.Record) {
			for i := range r.Headers {
				if r.Headers[i].Key == key {
					r.Headers[i].Value = []byte(value)
				}
			}
		}
	}
	drop := func(key string) func(*kgo.Record) {
		return func(r *kgo.Record) {
			for i := range r.Headers {
				if r.Headers[i].Key == key {
					r.Headers[i].Key = "unknown"
				}
			}
		}
	}
	for name, change := range map[string]func(*kgo.Record){
		"key":               func(r *kgo.Record) { r.Key = []byte("a/b") },
		"no key":            func(r *kgo.Record) { r.Key = nil },
		"other lane":        set(HeaderLane, "sub_2"),
		"odd lane":          set(HeaderLane, "sub_1/x/y"),
		"other origin lane": set(HeaderLane, "sub_1/n/78"),
		"long lane":         set(HeaderLane, "sub_1/e/"+strings.Repeat("x", MaxLaneBytes)),
		"attempts 99":       set(HeaderAttempts, "99"),
		"attempts 5":        set(HeaderAttempts, "5"),
		"attempts -1":       set(HeaderAttempts, "-1"),
		"attempts text":     set(HeaderAttempts, "two"),
		"attempts empty":    set(HeaderAttempts, ""),
		"attempts 02":       set(HeaderAttempts, "02"),
		"origin huge":       set(HeaderOrigin, "9223372036854775808"),
		"origin negative":   set(HeaderOrigin, "-5"),
		"round huge":        set(HeaderRound, "1000001"),
		"due in 2099":       set(HeaderFailedAt, "4070908800000"),
		"failed at 0":       set(HeaderFailedAt, "0"),
		"not before 2099":   set(HeaderNotBefore, "4070908800000"),
		"no envelope":       drop(HeaderEnvelope),
		"no origin":         drop(HeaderOrigin),
		"no lane":           drop(HeaderLane),
		"no attempts":       drop(HeaderAttempts),
		"huge envelope":     set(HeaderEnvelope, strings.Repeat("x", MaxEnvelopeBytes+1)),
		"twice": func(r *kgo.Record) {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: HeaderOrigin, Value: []byte("1")})
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := sampleCopy()
			r := c.Record("t", 0)
			r.Timestamp = time.UnixMilli(1650998582000)
			change(r)
			if got, err := ParseCopy(r); err == nil {
				t.Fatalf("parsed as %+v", got)
			}
		})
	}
}

func TestDeadRoundTrip(t *testing.T) {
	d := Dead{Subscription: "sub_1", Reason: pipeline.DeadExhausted, Attempts: 4, Error: "dial: refused", Envelope: sampleEnvelope(), Payload: []byte("{}")}
	rec := DeadRecord("dead", 1, &d)
	got, err := ParseDead(rec)
	if err != nil || !reflect.DeepEqual(got, d) {
		t.Fatalf("%v\ngot  %+v\nwant %+v", err, got, d)
	}
	want := map[string]string{
		"webhook-id": pipeline.DeliveryID(&d.Envelope.Source, "sub_1"), "hookline-subscription": "sub_1", "hookline-reason": "exhausted",
		"hookline-attempts": "4", "hookline-source": "cotalker.events/7/1099511627776", "hookline-error": "dial: refused",
	}
	for _, h := range rec.Headers {
		if w, ok := want[h.Key]; ok && w != string(h.Value) {
			t.Errorf("header %s is %q, want %q", h.Key, h.Value, w)
		}
		delete(want, h.Key)
	}
	if len(want) != 0 {
		t.Errorf("missing headers: %v", want)
	}
	rec.Key = []byte("sub_2")
	if _, err := ParseDead(rec); err == nil {
		t.Error("a record with another subscription's webhook-id was parsed")
	}
}

func TestCleanError(t *testing.T) {
	if got := CleanError("a\r\nb\x00\xff\x1b[31m"); got != "a  b \uFFFD [31m" && got != "a  b ? [31m" {
		t.Errorf("got %q", got)
	}
	if got := CleanError(strings.Repeat("é", MaxErrorBytes)); len(got) != MaxErrorBytes || !strings.HasSuffix(got, "é") {
		t.Errorf("cut to %d bytes, ending in %q", len(got), got[len(got)-4:])
	}
	if got := CleanError("x" + strings.Repeat("é", MaxErrorBytes)); len(got) != MaxErrorBytes-1 {
		t.Errorf("cut to %d bytes within a character", len(got))
	}
}

func TestPartitionIsKafkas(t *testing.T) {
	ref := kgo.StickyKeyPartitioner(nil).ForTopic("t")
	for _, id := range append(manySubs(200), "62685990d918fb5557f9f992", "a_b-C", "xyz1") {
		for _, n := range []int32{1, 6, 32, 1000} {
			if got, want := Partition(id, n), ref.Partition(&kgo.Record{Key: []byte(id)}, int(n)); int(got) != want {
				t.Fatalf("Partition(%q, %d) = %d, want %d", id, n, got, want)
			}
		}
	}
}

func TestCodecAllocations(t *testing.T) {
	env := sampleEnvelope()
	env.Trace = sectionedEnvelope().Trace
	b := EncodeEnvelope(nil, &env)
	ids := manySubs(100)
	list := EncodeSubs(nil, ids)
	buf, into, out := make([]byte, 0, 16<<10), new(pipeline.Envelope), make([]string, 0, 256)
	for name, f := range map[string]struct {
		most float64
		run  func()
	}{
		"EncodeEnvelope": {0, func() { buf = EncodeEnvelope(buf[:0], &env) }},
		"DecodeEnvelope": {1, func() { _ = DecodeEnvelope(b, into) }},
		"EncodeSubs":     {0, func() { buf = EncodeSubs(buf[:0], ids) }},
		"DecodeSubs":     {1, func() { out, _ = DecodeSubs(list, out[:0]) }},
		"Partition":      {0, func() { _ = Partition("62685990d918fb5557f9f992", 32) }},
	} {
		if got := testing.AllocsPerRun(100, f.run); got > f.most {
			t.Errorf("%s takes %v allocations, want at most %v", name, got, f.most)
		}
	}
}

func BenchmarkEnvelope(b *testing.B) {
	env := sampleEnvelope()
	enc := EncodeEnvelope(nil, &env)
	b.Run("encode", func(b *testing.B) {
		buf := make([]byte, 0, 1024)
		for b.Loop() {
			buf = EncodeEnvelope(buf[:0], &env)
		}
	})
	b.Run("decode", func(b *testing.B) {
		var into pipeline.Envelope
		for b.Loop() {
			_ = DecodeEnvelope(enc, &into)
		}
	})
}

func BenchmarkSubs(b *testing.B) {
	ids := manySubs(100)
	enc := EncodeSubs(nil, ids)
	b.Run("encode100", func(b *testing.B) {
		buf := make([]byte, 0, 16<<10)
		for b.Loop() {
			buf = EncodeSubs(buf[:0], ids)
		}
	})
	b.Run("decode100", func(b *testing.B) {
		out := make([]string, 0, 256)
		for b.Loop() {
			out, _ = DecodeSubs(enc, out[:0])
		}
	})
}

func FuzzDecodeEnvelope(f *testing.F) {
	env := sampleEnvelope()
	f.Add(EncodeEnvelope(nil, &env))
	env = sectionedEnvelope()
	f.Add(EncodeEnvelope(nil, &env))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		var one, two pipeline.Envelope
		if DecodeEnvelope(b, &one) != nil {
			return
		}
		if err := DecodeEnvelope(EncodeEnvelope(nil, &one), &two); err != nil || !reflect.DeepEqual(one, two) {
			t.Fatalf("%v\n%+v\n%+v", err, one, two)
		}
	})
}

func TestDecodeSubsRefusesAnIDTwice(t *testing.T) {
	for _, n := range []int{2, 17, MaxSubs} {
		ids := make([]string, n)
		for i := range ids {
			ids[i] = fmt.Sprintf("subscription-%d", i)
		}
		if _, err := DecodeSubs(EncodeSubs(nil, ids), nil); err != nil {
			t.Errorf("%d different ids: %v", n, err)
		}
		ids[n-1] = ids[0]
		// What stands in dst already does not count.
		got, err := DecodeSubs(EncodeSubs(nil, ids), []string{"subscription-1"})
		if err == nil || !strings.Contains(err.Error(), "twice") || len(got) != 1 {
			t.Errorf("%d ids, one of them twice: %v, %v", n, got, err)
		}
	}
}

func FuzzDecodeSubs(f *testing.F) {
	f.Add(EncodeSubs(nil, []string{"a", "b-c"}))
	f.Add([]byte{1, 0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, err := DecodeSubs(b, nil)
		if err != nil {
			return
		}
		again, err := DecodeSubs(EncodeSubs(nil, ids), nil)
		if err != nil || !reflect.DeepEqual(ids, again) {
			t.Fatalf("%v: %q, %q", err, ids, again)
		}
	})
}

func FuzzParseCopy(f *testing.F) {
	f.Add([]byte("sub_1"), []byte("77"), []byte("sub_1/n/77"), []byte("2"), []byte("1"), []byte("1650998581999"), []byte("1650998599000"))
	f.Fuzz(func(t *testing.T, key, o, l, k, r, at, n []byte) {
		rec := &kgo.Record{Key: key, Headers: []kgo.RecordHeader{
			{Key: "e", Value: []byte{1}},
			{Key: "o", Value: o},
			{Key: "l", Value: l},
			{Key: "k", Value: k},
			{Key: "r", Value: r},
			{Key: "t", Value: at},
			{Key: "n", Value: n},
		}}
		c, err := ParseCopy(rec)
		if err != nil {
			return
		}
		if c.Attempts < 0 || c.Attempts > 4 || c.Origin < 0 || pipeline.LaneSubscription(c.Lane) != c.Subscription {
			t.Fatalf("accepted %+v", c)
		}
		again, err := ParseCopy(c.Record("t", 0))
		if err != nil || !reflect.DeepEqual(c, again) {
			t.Fatalf("%v\n%+v\n%+v", err, c, again)
		}
	})
}

func FuzzParseDead(f *testing.F) {
	d := Dead{Subscription: "sub_1", Reason: pipeline.DeadExhausted, Attempts: 4, Envelope: sampleEnvelope()}
	rec := DeadRecord("dead", 1, &d)
	f.Add([]byte("sub_1"), rec.Headers[0].Value, []byte("exhausted"), []byte("4"), []byte("error"), rec.Headers[6].Value)
	f.Fuzz(func(t *testing.T, key, id, reason, attempts, text, env []byte) {
		d, err := ParseDead(&kgo.Record{Key: key, Headers: []kgo.RecordHeader{
			{Key: HeaderWebhookID, Value: id},
			{Key: HeaderReason, Value: reason},
			{Key: HeaderMadeAttempts, Value: attempts},
			{Key: HeaderError, Value: text},
			{Key: HeaderEnvelope, Value: env},
		}})
		if err != nil {
			return
		}
		again, err := ParseDead(DeadRecord("dead", 0, &d))
		if err != nil || !reflect.DeepEqual(again, d) {
			t.Fatalf("%v\n%+v\n%+v", err, d, again)
		}
	})
}
