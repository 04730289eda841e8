package secret

import (
	"bytes"
	"encoding/base64"
	stdjson "encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-json-experiment/json"
)

const canary = "CANARY-canary-CANARY"

const (
	keyOne = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	keyTwo = "k2:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

func keys(t testing.TB, text string) *Keyring {
	t.Helper()
	k, err := ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestSecretCannotBePrinted(t *testing.T) {
	type inner struct{ s Secret } // fmt calls no methods on unexported fields
	s := New(canary)
	sealed, err := keys(t, keyOne).Seal("sub", s)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	for _, v := range []any{
		s, &s,
		inner{s},
		&inner{s},
		[]Secret{s},
		map[string]Secret{"a": s},
		Plain(canary),
		struct{ V Value }{Plain(canary)},
		Config{Keys: s},
		&Resolver{Keys: keys(t, keyOne)}, sealed,
	} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			fmt.Fprintf(&b, verb+"\n", v)
		}
		if out, err := stdjson.Marshal(v); err == nil {
			b.Write(out)
		}
		if out, err := json.Marshal(v); err == nil {
			b.Write(out)
		}
		slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "v", v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("x", "v", v)
		fmt.Fprintln(&b, fmt.Errorf("wrapping %v", v))
	}
	text, err := s.MarshalText()
	b.Write(text)
	if err != nil {
		t.Fatal(err)
	}
	key := strings.TrimPrefix(keyOne, "k1:")
	raw, _ := base64.StdEncoding.DecodeString(key)
	for _, form := range []string{canary, fmt.Sprintf("%x", canary), base64.StdEncoding.EncodeToString([]byte(canary)), key, fmt.Sprintf("%x", raw), string(raw)} {
		if strings.Contains(strings.ToLower(b.String()), strings.ToLower(form)) {
			t.Errorf("%q is shown", form)
		}
	}
	if !strings.Contains(b.String(), Redacted) || s.Reveal() != canary || New("").Reveal() != "" || !New("").IsZero() {
		t.Error("the secret itself is wrong")
	}
}

func TestSealing(t *testing.T) {
	k := keys(t, keyTwo+","+keyOne)
	v, err := keys(t, keyOne).Seal("sub", New(canary))
	if err != nil {
		t.Fatal(err)
	}
	again, _ := keys(t, keyOne).Seal("sub", New(canary))
	if v == again {
		t.Error("two sealings of one secret are the same: the nonce is not random")
	}
	if got, err := k.Open("sub", v); err != nil || got.Reveal() != canary || v.KeyID() != "k1" || k.Primary() != "k2" {
		t.Fatalf("got %v, %v", got, err)
	}
	other, err := k.Seal("sub", New(canary))
	if err != nil {
		t.Fatal(err)
	}
	renamed := strings.Replace(v.stored, ":k1:", ":k2:", 1)
	for _, tt := range []struct {
		name, sub string
		v         Value
		keys      *Keyring
		want      error
	}{
		{"another subscription", "sub2", v, k, ErrTampered},
		{"no subscription", "", v, k, ErrTampered},
		{"unknown key", "sub", other, keys(t, keyOne), ErrUnknownKey},
		{"no keys", "sub", v, nil, ErrUnknownKey},
		{"another key's name", "sub", Value{stored: renamed}, k, ErrTampered},
		{"another key of that name", "sub", v, keys(t, "k1:"+strings.TrimPrefix(keyTwo, "k2:")), ErrTampered},
		{"cut", "sub", Value{stored: v.stored[:len(v.stored)-4]}, k, ErrTampered},
		{"only a nonce", "sub", Value{stored: "sealed:v1:k1:AAAAAAAAAAAAAAAA"}, k, ErrTampered},
		{"nothing", "sub", Value{stored: "sealed:v1:k1:"}, k, ErrTampered},
		{"not base64", "sub", Value{stored: "sealed:v1:k1:!!"}, k, ErrTampered},
		{"no key id", "sub", Value{stored: "sealed:v1:abc"}, k, ErrTampered},
	} {
		if got, err := tt.keys.Open(tt.sub, tt.v); !errors.Is(err, tt.want) || !got.IsZero() {
			t.Errorf("%s: got %v, %v", tt.name, got, err)
		}
	}
	body := strings.TrimPrefix(v.stored, "sealed:v1:k1:")
	box, _ := base64.RawURLEncoding.DecodeString(body)
	for i := range box {
		bad := bytes.Clone(box)
		bad[i] ^= 1
		if _, err := k.Open("sub", Value{stored: "sealed:v1:k1:" + base64.RawURLEncoding.EncodeToString(bad)}); !errors.Is(err, ErrTampered) {
			t.Errorf("byte %d changed: %v", i, err)
		}
	}
	if _, err := (*Keyring)(nil).Seal("sub", New("x")); !errors.Is(err, ErrNoKeys) {
		t.Errorf("sealing without keys: %v", err)
	}
}

func TestStoredForm(t *testing.T) {
	v, err := keys(t, keyOne).Seal("sub", New(canary))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := Ref("env:X")
	if err != nil {
		t.Fatal(err)
	}
	stored, err := json.Marshal([]Value{v, ref}, StoredForm())
	if err != nil {
		t.Fatal(err)
	}
	var back []Value
	if err := json.Unmarshal(stored, &back); err != nil || back[0] != v || back[1] != ref {
		t.Fatalf("got %v, %v", back, err)
	}
	shown, err := json.Marshal([]Value{v, ref, Plain(canary)})
	if want := `["[sealed with key k1]","env:X","[redacted]"]`; err != nil || string(shown) != want {
		t.Errorf("shown %s, %v", shown, err)
	}
	for _, text := range []string{`"` + canary + `"`, `"env:"`, `"file:x"`, `"sealed:v9:x"`, `""`, `1`, `{}`} {
		if err := json.Unmarshal([]byte(text), new(Value)); err == nil || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", text, err)
		}
	}
	defer func() {
		if recover() == nil {
			t.Error("a secret in clear was stored")
		}
	}()
	_, _ = json.Marshal(Plain(canary), StoredForm())
}

func TestParseKeysRefuses(t *testing.T) {
	good := strings.TrimPrefix(keyOne, "k1:")
	for text, want := range map[string]string{
		canary:                                "entry 1: not id:base64",
		"k1:" + canary:                        "entry 1: key k1 is not base64",
		keyOne + ",k2:" + canary[:8]:          "entry 2: key k2 is not base64",
		"k1:AAAA":                             "entry 1: key k1 has 3 bytes, not 32",
		keyOne + "," + keyOne:                 "entry 2: id k1 is there twice",
		"a b:" + good:                         "entry 1: the id before the colon",
		":" + good:                            "entry 1: the id before the colon",
		"k1:" + strings.Repeat("A", 43) + "=": "entry 1: key k1 is one byte over and over",
		",,":                                  "there is no key",
		"file:x":                              "absolute path",
		"file:/no/such":                       "opening the secret's file",
	} {
		_, err := (&Config{Keys: New(text)}).Keyring()
		if err == nil || !strings.HasPrefix(err.Error(), "HOOKLINE_SECRET_KEYS: ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
		if err != nil && (strings.Contains(err.Error(), canary) || strings.Contains(err.Error(), good)) {
			t.Errorf("a key is shown: %v", err)
		}
	}
	if k, err := ParseKeys("  "); k != nil || err != nil || k.Primary() != "" {
		t.Errorf("no keys: %v, %v", k, err)
	}
}

func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
}

func TestKeysFromFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keys")
	write(t, path, "# newest first\n"+keyTwo+"\n"+keyOne+"\n", 0o600)
	if k := keys(t, "file:"+path); k.String() != "keys k2, k1" {
		t.Errorf("got %v", k)
	}
}

func TestResolve(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("good"), canary+"\n", 0o600)
	write(t, at("group"), canary, 0o640)
	write(t, at("readable"), canary, 0o644)
	write(t, at("groupwrite"), canary, 0o660)
	write(t, at("empty"), "", 0o600)
	write(t, at("blank"), " \n\n", 0o600)
	write(t, at("nul"), "a\x00b", 0o600)
	write(t, at("large"), strings.Repeat("x", MaxBytes+1), 0o600)
	if err := errors.Join(os.Symlink(at("good"), at("link")), syscall.Mkfifo(at("fifo"), 0o600)); err != nil {
		t.Fatal(err)
	}
	k := keys(t, keyOne)
	sealed, err := k.Seal("sub", New(canary))
	if err != nil {
		t.Fatal(err)
	}
	env := map[string]string{"GOOD": canary, "EMPTY": "", "LONG": strings.Repeat("x", MaxBytes+1)}
	r := &Resolver{Keys: k, Getenv: func(name string) (string, bool) { s, ok := env[name]; return s, ok }}
	for stored, want := range map[string]string{
		"env:GOOD": "", "file:" + at("good"): "", "file:" + at("group"): "", "file:" + at("link"): "", sealed.Stored(): "",
		"env:NONE": "variable NONE is not set", "env:EMPTY": "variable EMPTY is empty", "env:LONG": "variable LONG has more than",
		"file:" + at("none"): "no such file", "file:" + at("readable"): "has mode 0644: others can read or change it (chmod 600 it)",
		"file:" + at("groupwrite"): "mode 0660", "file:" + at("empty"): "is empty", "file:" + at("blank"): "is empty",
		"file:" + at("nul"): "has NUL bytes", "file:" + at("large"): "has more than", "file:" + dir: "not a regular file",
		"file:" + at("fifo"): "not a regular file", canary: "neither a reference", "": "neither a reference",
	} {
		s, stamp, err := r.Resolve("sub", stored)
		switch {
		case want == "" && (err != nil || s.Reveal() != canary):
			t.Errorf("%s: got %v, %v", stored, s.Reveal(), err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want) || !s.IsZero() || strings.Contains(err.Error(), canary)):
			t.Errorf("%s: got %v, want %s", stored, err, want)
		case want == "" && stamp.IsZero() == strings.HasPrefix(stored, filePrefix):
			t.Errorf("%s: stamp %v", stored, stamp)
		}
	}
}

func TestStampSeesChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	write(t, path, canary, 0o600)
	_, stamp, err := (&Resolver{}).Resolve("sub", "file:"+path)
	if err != nil || stamp.Changed() {
		t.Fatal("changed already", err)
	}
	if err := os.Chtimes(path, time.Time{}, time.Unix(1, 0)); err != nil || !stamp.Changed() {
		t.Error("a new time is not seen", err)
	}
	_, stamp, _ = (&Resolver{}).Resolve("sub", "file:"+path)
	write(t, path+"2", canary, 0o600)
	if err := errors.Join(os.Chtimes(path+"2", time.Time{}, time.Unix(1, 0)), os.Rename(path+"2", path)); err != nil || !stamp.Changed() {
		t.Error("another file under the name is not seen", err)
	}
	if err := os.Remove(path); err != nil || !stamp.Changed() || (Stamp{}).Changed() {
		t.Error("a removed file is not seen", err)
	}
}

func TestNewKeys(t *testing.T) {
	a, err := NewHMACKey()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ParseSigningKey(a)
	if err != nil || len(k.HMAC) != 32 {
		t.Errorf("got %d bytes, %v", len(k.HMAC), err)
	}
	if b, _ := NewHMACKey(); a.Equal(b) {
		t.Error("two keys are the same")
	}
	if CheckHub(a) != nil {
		t.Error("a new key does not sign in the older way")
	}
}

func FuzzParseStored(f *testing.F) {
	f.Add("env:X")
	f.Add("file:/x")
	f.Add("sealed:v1:k1:AAAA")
	k := keys(f, keyOne)
	f.Fuzz(func(t *testing.T, text string) {
		v, err := ParseStored(text)
		if err != nil {
			return
		}
		if v.Stored() != text || v.IsPlain() || v.IsZero() {
			t.Errorf("%q became %q", text, v.Stored())
		}
		if v.IsSealed() {
			if _, err := k.Open("sub", v); err == nil {
				t.Errorf("%q was opened", text)
			}
		}
	})
}
