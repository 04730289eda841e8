package attemptlog_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/attemptlog"
)

// sample gives n attempts of n/fanOut events, about 1.2 kB each.
func sample(n, fanOut int) []pipeline.Attempt {
	out := make([]pipeline.Attempt, n)
	start := time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)
	for i := range out {
		ev := i / fanOut
		env := &pipeline.Envelope{
			Source: pipeline.Position{Cluster: "MkU3OEVBNTcwNTJENDM2Qg", TopicID: [16]byte{1, 2, 3}, Topic: "cotalker.events", Partition: 3, Offset: int64(1000 + ev)},
			Format: pipeline.FormatCotalker, EventID: fmt.Sprintf("evt_%026d", ev), Tenant: "625bcbdcc9a8e3a86dbf041c", EventType: "COTTask.create",
			Entity: fmt.Sprintf("62685990d918fb5557f%05d", ev), Time: start.Add(-time.Second), ProducedAt: start.Add(-time.Millisecond), RegistryVersion: 77,
		}
		out[i] = pipeline.Attempt{
			AttemptID: fmt.Sprintf("att_%026d", i), DeliveryID: fmt.Sprintf("dlv_%026d", i), SubscriptionID: fmt.Sprintf("sub-%08d", i%50),
			URL: fmt.Sprintf("https://erp%d.example.com/hooks/tasks", i%50), Envelope: env, Attempt: 1 + i%4, Outcome: pipeline.OutcomeSuccess, StatusCode: 200,
			StartedAt: start.Add(time.Duration(i) * time.Millisecond), Elapsed: 12345678, DNS: 1000, Connect: 2000000, TLS: 5000000, TTFB: 11000000,
			RequestHeaders: []byte(strings.Repeat("X-Header-Name: some value\r\n", 12)), RequestBytes: 900, RequestWritten: true,
			ResponseHeaders: []byte(strings.Repeat("Server: nginx\r\n", 10)), ResponseBody: []byte(fmt.Sprintf(`{"ok":true,"n":%d}`, i)), AckID: "201", Final: i%4 == 0, Node: "node-1",
		}
		if i%4 != 0 {
			out[i].NextAttemptAt = out[i].StartedAt.Add(30 * time.Second)
		}
	}
	return out
}

func decodeAll(t *testing.T, b []byte) []pipeline.Attempt {
	t.Helper()
	var got []pipeline.Attempt
	err := attemptlog.Decode(b, func(r *attemptlog.Row) error {
		if r.Index != len(got) {
			t.Fatalf("index %d, want %d", r.Index, len(got))
		}
		a := r.Attempt
		env := *a.Envelope
		a.Envelope = &env
		got = append(got, a)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestRoundTrip(t *testing.T) {
	for _, fanOut := range []int{1, 10, 256} {
		want := sample(256, fanOut)
		b := attemptlog.AppendBatch([]byte("before"), want, attemptlog.Options{})
		got := decodeAll(t, b[len("before"):])
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("fan-out %d: decoded attempts differ", fanOut)
		}
	}
}

// TestEveryField sets each field of Attempt and Envelope to something other than
// its zero value, so that a new field cannot be forgotten here.
func TestEveryField(t *testing.T) {
	var a pipeline.Attempt
	a.Envelope = &pipeline.Envelope{}
	fill(t, reflect.ValueOf(a.Envelope).Elem())
	fill(t, reflect.ValueOf(&a).Elem())
	got := decodeAll(t, attemptlog.AppendBatch(nil, []pipeline.Attempt{a}, attemptlog.Options{}))
	if !reflect.DeepEqual(got[0], a) {
		t.Fatalf("got %+v %+v\nwant %+v %+v", got[0], got[0].Envelope, a, a.Envelope)
	}
}

func fill(t *testing.T, v reflect.Value) {
	t.Helper()
	for i := range v.NumField() {
		f := v.Field(i)
		switch x := f.Addr().Interface().(type) {
		case *time.Time:
			*x = time.Date(2026, 1, 2, 3, 4, 5, i+1, time.UTC)
			continue
		case *[]byte:
			*x = []byte{byte(i), 1}
			continue
		case *[16]byte:
			*x = [16]byte{9, byte(i), 15: 1}
			continue
		case **pipeline.Envelope:
			continue
		case *pipeline.TraceContext:
			continue // the row's request headers have it
		case **pipeline.Splice, *[]pipeline.Attribute:
			continue // how a body is made is told by the event, which is stored whole; a row needs none of it
		}
		switch f.Kind() {
		case reflect.String:
			f.SetString(fmt.Sprint("s", i))
		case reflect.Int, reflect.Int64, reflect.Int32:
			f.SetInt(int64(i + 300))
		case reflect.Uint8:
			f.SetUint(uint64(i + 1))
		case reflect.Bool:
			f.SetBool(true)
		case reflect.Struct:
			fill(t, f)
		default:
			t.Fatalf("field %s: kind %s is new: write it", v.Type().Field(i).Name, f.Kind())
		}
	}
}

func TestTimesBeyondUnixNano(t *testing.T) {
	want := sample(2, 1)
	want[0].Envelope.Time = time.Time{}
	want[1].Envelope.Time = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC)
	got := decodeAll(t, attemptlog.AppendBatch(nil, want, attemptlog.Options{}))
	if !got[0].Envelope.Time.IsZero() || !got[1].Envelope.Time.Equal(want[1].Envelope.Time) {
		t.Fatalf("times %v, %v", got[0].Envelope.Time, got[1].Envelope.Time)
	}
}

func TestEncoderSharesEnvelopesAndReuses(t *testing.T) {
	var e attemptlog.Encoder
	shared, apart := sample(250, 10), sample(250, 1)
	e.Reset(nil, attemptlog.Options{})
	for i := range apart {
		e.Append(&apart[i])
	}
	large := e.Len()
	first := bytes.Clone(e.Bytes())
	for range 3 {
		e.Reset(e.Bytes(), attemptlog.Options{})
		for i := range shared {
			e.Append(&shared[i])
		}
	}
	if e.Len() > large-200*100 {
		t.Fatalf("shared envelopes: %d bytes, apart %d", e.Len(), large)
	}
	if attemptlog.Count(e.Bytes()) != 250 || attemptlog.Count(nil) != 0 || attemptlog.Count([]byte{9, 1, 0, 0, 0}) != 0 {
		t.Fatalf("count in the header %d", attemptlog.Count(e.Bytes()))
	}
	if e.Count() != 250 || e.Full() {
		t.Fatalf("count %d, full %v", e.Count(), e.Full())
	}
	if !reflect.DeepEqual(decodeAll(t, e.Bytes()), shared) || !reflect.DeepEqual(decodeAll(t, first), apart) {
		t.Fatal("reused encoder: decoded attempts differ")
	}
}

// TestEnvelopeIsWrittenOnce: the same one, or one that says the same, is written
// once for a batch, and again in the next.
func TestEnvelopeIsWrittenOnce(t *testing.T) {
	want := sample(3, 1)
	other := *want[0].Envelope
	want[1].Envelope, want[2].Envelope = want[0].Envelope, &other
	var e attemptlog.Encoder
	e.Reset(nil, attemptlog.Options{})
	e.Append(&want[0])
	first := e.Len()
	e.Append(&want[1])
	second := e.Len()
	e.Append(&want[2])
	if second-first > first/2 || e.Len()-second > first/2 {
		t.Errorf("%d bytes, then %d, then %d: the envelope was written again", first, second, e.Len())
	}
	if got := decodeAll(t, e.Bytes()); !reflect.DeepEqual(got, want) {
		t.Fatal("decoded attempts differ")
	}
	e.Reset(nil, attemptlog.Options{})
	e.Append(&want[2])
	if got := decodeAll(t, e.Bytes()); !reflect.DeepEqual(got, want[2:]) {
		t.Fatal("decoded attempts of the next batch differ")
	}
}

func TestFull(t *testing.T) {
	a := sample(1, 1)[0]
	var e attemptlog.Encoder
	e.Reset(nil, attemptlog.Options{})
	for range attemptlog.MaxAttempts {
		if e.Full() {
			t.Fatalf("full at %d", e.Count())
		}
		e.Append(&a)
	}
	if !e.Full() {
		t.Fatal("not full at MaxAttempts")
	}
	a.ResponseBody = make([]byte, attemptlog.TargetBytes)
	e.Reset(e.Bytes(), attemptlog.Options{})
	e.Append(&a)
	if !e.Full() {
		t.Fatal("not full at TargetBytes")
	}
}

func TestWithoutBodies(t *testing.T) {
	want := sample(20, 5)
	full := attemptlog.AppendBatch(nil, want, attemptlog.Options{})
	b, err := attemptlog.WithoutBodies(nil, full)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, attemptlog.AppendBatch(nil, want, attemptlog.Options{WithoutBodies: true})) {
		t.Fatal("re-encoding a batch and encoding its attempts differ")
	}
	for i := range want {
		want[i].RequestHeaders, want[i].ResponseHeaders, want[i].ResponseBody = nil, nil, nil
	}
	if !reflect.DeepEqual(decodeAll(t, b), want) {
		t.Fatal("attempts without bodies differ")
	}
	_ = attemptlog.Decode(b, func(r *attemptlog.Row) error {
		if !r.WithoutBodies {
			t.Fatal("not marked")
		}
		return nil
	})
	if _, err := attemptlog.WithoutBodies(nil, full[:len(full)-1]); err == nil {
		t.Fatal("a cut batch was re-encoded")
	}
}

// TestNewerFields: an unknown entry kind and fields after the known ones are skipped.
func TestNewerFields(t *testing.T) {
	want := sample(1, 1)
	b := attemptlog.AppendBatch(nil, want, attemptlog.Options{})
	newer := append([]byte{}, b[:5]...)
	for at := 5; at < len(b); {
		n := int(binary.LittleEndian.Uint32(b[at+1:]))
		newer = append(newer, 200, 3, 0, 0, 0, 'n', 'e', 'w')
		newer = append(newer, b[at])
		newer = binary.LittleEndian.AppendUint32(newer, uint32(n+4))
		newer = append(newer, b[at+5:at+5+n]...)
		newer = append(newer, "more"...)
		at += 5 + n
	}
	if !reflect.DeepEqual(decodeAll(t, newer), want) {
		t.Fatal("a newer batch of the same version was not read")
	}
}

func TestBadInput(t *testing.T) {
	b := attemptlog.AppendBatch(nil, sample(3, 1), attemptlog.Options{})
	nop := func(*attemptlog.Row) error { return nil }
	b2 := bytes.Clone(b)
	b2[0] = 9
	err := attemptlog.Decode(b2, nop)
	if !errors.Is(err, attemptlog.ErrVersion) || !strings.Contains(err.Error(), "version 9") {
		t.Fatalf("version 9: %v", err)
	}
	for n := range b {
		if attemptlog.Decode(b[:n], nop) == nil {
			t.Fatalf("cut to %d of %d bytes: no error", n, len(b))
		}
	}
	mine := errors.New("mine")
	if err := attemptlog.Decode(b, func(*attemptlog.Row) error { return mine }); err != mine { //nolint:errorlint // as it is
		t.Fatalf("callback's error: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(attemptlog.AppendBatch(nil, sample(3, 2), attemptlog.Options{}))
	f.Add(attemptlog.AppendBatch(nil, sample(3, 2), attemptlog.Options{WithoutBodies: true}))
	f.Add([]byte{1, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var got []pipeline.Attempt
		err := attemptlog.Decode(b, func(r *attemptlog.Row) error {
			a := r.Attempt
			env := *a.Envelope
			a.Envelope = &env
			got = append(got, a)
			return nil
		})
		if err != nil {
			return
		}
		again := attemptlog.AppendBatch(nil, got, attemptlog.Options{})
		if back := decodeAll(t, again); len(back)+len(got) > 0 && !reflect.DeepEqual(back, got) {
			t.Fatal("what was decoded does not survive a round trip")
		}
	})
}

func TestAllocs(t *testing.T) {
	in := sample(256, 10)
	var e attemptlog.Encoder
	e.Reset(make([]byte, 0, 1<<20), attemptlog.Options{})
	encode := func() {
		e.Reset(e.Bytes(), attemptlog.Options{})
		for i := range in {
			e.Append(&in[i])
		}
	}
	encode()
	if n := testing.AllocsPerRun(20, encode); n != 0 {
		t.Errorf("encoding a batch allocates %v times", n)
	}
	var d attemptlog.Decoder
	b, rows := e.Bytes(), 0
	fn := func(*attemptlog.Row) error { rows++; return nil }
	if n := testing.AllocsPerRun(20, func() { _ = d.Decode(b, fn) }); n != 0 {
		t.Errorf("decoding a batch allocates %v times", n)
	}
	if rows != 21*256 {
		t.Errorf("decoded %d rows", rows)
	}
}

func BenchmarkEncode(b *testing.B) {
	for _, fanOut := range []int{1, 10} {
		b.Run(fmt.Sprintf("fanout=%d", fanOut), func(b *testing.B) {
			in := sample(256, fanOut)
			var e attemptlog.Encoder
			e.Reset(make([]byte, 0, 1<<20), attemptlog.Options{})
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				if n%len(in) == 0 {
					e.Reset(e.Bytes(), attemptlog.Options{})
				}
				e.Append(&in[n%len(in)])
				n++
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	for _, fanOut := range []int{1, 10} {
		b.Run(fmt.Sprintf("fanout=%d", fanOut), func(b *testing.B) {
			batch := attemptlog.AppendBatch(nil, sample(256, fanOut), attemptlog.Options{})
			var d attemptlog.Decoder
			fn := func(*attemptlog.Row) error { return nil }
			b.ReportAllocs()
			for n := 0; n < b.N; n += 256 {
				if err := d.Decode(batch, fn); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
