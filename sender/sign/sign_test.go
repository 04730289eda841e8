package sign

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// The published vectors of Standard Webhooks and of Svix.
const (
	vectorID   = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	vectorBody = `{"test": 2432232314}`
	hmacKey    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	hmacSig    = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
	edKey      = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	edSig      = "v1a,hnO3f9T8Ytu9HwrXslvumlUpqtNVqkhqw/enGzPCXe5BdqzCInXqYXFymVJaA7AZdpXwVLPo3mNl8EM+m7TBAg=="
)

var vectorTime = time.Unix(1614265330, 999_999_999) // the fraction does not count

func signer(t testing.TB, scheme pipeline.SigningScheme, keys ...Key) *Signer {
	t.Helper()
	s, err := New(scheme, keys)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func key1(text string) Key { return Key{Secret: secret.New(text)} }

func TestVectors(t *testing.T) {
	for _, tt := range []struct {
		name   string
		scheme pipeline.SigningScheme
		keys   []Key
		want   string
	}{
		{"v1", pipeline.SigningStandard, []Key{key1(hmacKey)}, hmacSig},
		{"v1a", pipeline.SigningStandard, []Key{key1(edKey)}, edSig},
		{"newest first", pipeline.SigningStandard, []Key{key1(edKey), key1(hmacKey)}, edSig + " " + hmacSig},
		{"other way round", pipeline.SigningStandard, []Key{key1(hmacKey), key1(edKey)}, hmacSig + " " + edSig},
		{
			"an expired one between", pipeline.SigningStandard,
			[]Key{key1(hmacKey), {secret.New("whsec_" + strings.Repeat("AAEC", 8)), vectorTime}, key1(edKey)},
			hmacSig + " " + edSig,
		},
		// openssl dgst -sha256 -hmac
		{"hub", pipeline.SigningHub, []Key{key1("0123456789abcdef01234567"), key1(hmacKey)}, "sha256=a6ffd3a9ae651d57f6f4cbe92c6625bc5bc83ad59ba4cbe6b4fa9c281cfeb1ef"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := signer(t, tt.scheme, tt.keys...)
			for range 3 { // the second time the hashes are used again
				got, err := s.Append([]byte("x"), vectorID, vectorTime, []byte(vectorBody))
				if err != nil || string(got) != "x"+tt.want {
					t.Fatalf("got %q, %v\nwant %q", got, err, tt.want)
				}
			}
		})
	}
}

// TestHubExample is the example of GitHub's documentation, "Validating webhook
// deliveries".
func TestHubExample(t *testing.T) {
	got, err := signer(t, pipeline.SigningHub, key1("It's a Secret to Everybody")).Append(nil, "", vectorTime, []byte("Hello, World!"))
	if want := "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"; err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

func TestExpiry(t *testing.T) {
	end := vectorTime.Add(time.Hour)
	s := signer(t, pipeline.SigningStandard, Key{secret.New(hmacKey), end})
	if _, err := s.Append(nil, vectorID, end.Add(-time.Second), nil); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Append(nil, vectorID, end, nil); !errors.Is(err, ErrExpired) || len(got) != 0 {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestEverySignatureIsOfItsKey(t *testing.T) {
	var keys []Key
	var publics []string
	for range 3 {
		private, public, err := secret.NewEd25519Key()
		if err != nil {
			t.Fatal(err)
		}
		keys, publics = append(keys, Key{Secret: private}), append(publics, strings.TrimPrefix(public, "whpk_"))
	}
	got, err := signer(t, pipeline.SigningStandard, keys...).Append(nil, "id", vectorTime, []byte("body"))
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(got), " ")
	if len(parts) != len(keys) {
		t.Fatalf("%d signatures: %q", len(parts), got)
	}
	for i, part := range parts {
		sig, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(part, "v1a,"))
		public, _ := base64.StdEncoding.DecodeString(publics[i])
		if err != nil || !ed25519.Verify(public, []byte("id.1614265330.body"), sig) {
			t.Errorf("signature %d does not verify: %v", i, err)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	s := signer(t, pipeline.SigningStandard, key1(hmacKey), key1(edKey))
	var done sync.WaitGroup
	for range 8 {
		done.Go(func() {
			var buf []byte
			for range 200 {
				var err error
				if buf, err = s.Append(buf[:0], vectorID, vectorTime, []byte(vectorBody)); err != nil || string(buf) != hmacSig+" "+edSig {
					t.Errorf("got %q, %v", buf, err)
					return
				}
			}
		})
	}
	done.Wait()
}

// TestSumIsHMAC holds sums to crypto/hmac's, keys longer than a block included.
func TestSumIsHMAC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bytes := rapid.SliceOfN(rapid.Byte(), 0, 300)
		secret, head, body := bytes.Draw(t, "secret"), bytes.Draw(t, "head"), bytes.Draw(t, "body")
		want := hmac.New(sha256.New, secret)
		want.Write(head)
		want.Write(body)
		m := newMAC()
		k := m.key(secret)
		for range 2 {
			if got := m.sum(nil, &k, head, body); !hmac.Equal(got, want.Sum(nil)) {
				t.Fatalf("got %x, want %x", got, want.Sum(nil))
			}
		}
	})
}

// TestSignerIsSmall: a process has one for each subscription.
func TestSignerIsSmall(t *testing.T) {
	const n = 1000
	keys, kept := []Key{key1(hmacKey)}, make([]*Signer, n)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range kept {
		kept[i] = signer(t, pipeline.SigningStandard, keys...)
		if _, err := kept[i].Append(nil, vectorID, vectorTime, nil); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > 256 {
		t.Errorf("%d bytes each, want at most 256", each)
	}
	runtime.KeepAlive(kept)
}

func TestRefusedKeys(t *testing.T) {
	const canary = "CANARYcanaryCANARY"
	for _, text := range []string{"", canary, "whsec_", "whsec_" + canary + "!", "whsec_AAAA", "whsk_AAAA", "whpk_" + canary} {
		if _, err := New(pipeline.SigningStandard, []Key{key1(text)}); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("key %q: error %v", text, err)
		}
	}
	if _, err := New(pipeline.SigningStandard, nil); err == nil {
		t.Error("no keys were accepted")
	}
	if _, err := New(pipeline.SigningHub, []Key{key1("short")}); err == nil {
		t.Error("a short key was accepted")
	}
	if _, err := New("other", []Key{key1(hmacKey)}); err == nil {
		t.Error("an unknown scheme was accepted")
	}
}

func TestAppendAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	body := []byte(strings.Repeat("x", 1000))
	for _, tt := range []struct {
		name string
		s    *Signer
		most float64
	}{
		{"one v1", signer(t, pipeline.SigningStandard, key1(hmacKey)), 0},
		{"two v1", signer(t, pipeline.SigningStandard, key1(hmacKey), Key{secret.New("whsec_" + strings.Repeat("AAEC", 8)), vectorTime.Add(time.Hour)}), 0},
		{"hub", signer(t, pipeline.SigningHub, key1(hmacKey)), 0},
		{"v1a", signer(t, pipeline.SigningStandard, key1(edKey)), 2}, // crypto/ed25519's own
	} {
		buf := make([]byte, 0, 512)
		n := testing.AllocsPerRun(100, func() {
			var err error
			if buf, err = tt.s.Append(buf[:0], vectorID, vectorTime, body); err != nil {
				t.Fatal(err)
			}
		})
		if n > tt.most {
			t.Errorf("%s: %v allocations, at most %v", tt.name, n, tt.most)
		}
	}
}

func BenchmarkAppend(b *testing.B) {
	body := []byte(strings.Repeat("x", 1000))
	for name, key := range map[string]string{"v1": hmacKey, "v1a": edKey} {
		b.Run(name, func(b *testing.B) {
			s := signer(b, pipeline.SigningStandard, key1(key))
			var buf []byte
			b.ReportAllocs()
			for b.Loop() {
				buf, _ = s.Append(buf[:0], vectorID, vectorTime, body)
			}
		})
	}
}
