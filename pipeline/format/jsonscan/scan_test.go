package jsonscan

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
)

func TestScanRefuses(t *testing.T) {
	deep := strings.Repeat("[", MaxDepth+1) + strings.Repeat("]", MaxDepth+1)
	many := "{"
	for i := range 100 {
		many += fmt.Sprintf(`"name%d":%d,`, i, i)
	}
	tests := []struct{ name, in, what, pointer string }{
		{"empty", "", "empty value", ""},
		{"blank", " \n", "truncated JSON", ""},
		{"text", "hello", "not JSON", ""},
		{"cut object", `{"a":{"b":1`, "truncated JSON", "/a"},
		{"cut string", `{"a":["x","y`, "truncated JSON", "/a/1"},
		{"cut literal", `{"a":tr`, "truncated JSON", "/a"},
		{"cut escape", `"\u12`, "truncated JSON", ""},
		{"cut number", `{"a":-`, "truncated JSON", "/a"},
		{"cut rune", "\"\xe2\x82", "truncated JSON", ""},
		{"cut behind comma", `{"a":1,`, "truncated JSON", ""},
		{"mark", "\xef\xbb\xbf{}", "byte order mark", ""},
		{"utf-8", "{\"a\":\"\xff\"}", "invalid UTF-8", "/a"},
		{"utf-8 name", "{\"\xc3(\":1}", "invalid UTF-8", ""},
		{"encoded surrogate", "\"\xed\xa0\x80\"", "invalid UTF-8", ""},
		{"high surrogate", `{"a":"\ud800"}`, "lone surrogate", "/a"},
		{"low surrogate", `{"a":"\udc00\ud800"}`, "lone surrogate", "/a"},
		{"two high surrogates", `["\ud800\ud800"]`, "lone surrogate", "/0"},
		{"duplicate", `{"a":{"x":1,"y":2,"x":3}}`, "duplicate name", "/a/x"},
		{"duplicate by escape", `{"ab":1,"\u0061b":2}`, "duplicate name", "/ab"},
		{"duplicate empty", `{"":1,"":2}`, "duplicate name", "/"},
		{"duplicate among many", many + `"name7":1}`, "duplicate name", "/name7"},
		{"too deep", deep, "nested too deep", ""},
		{"nul", "\"\x00\"", "not JSON", ""},
		{"newline in string", "\"a\nb\"", "not JSON", ""},
		{"bad escape", `"\x"`, "not JSON", ""},
		{"bad hex", `"\u12g4"`, "not JSON", ""},
		{"leading zero", `{"n":01}`, "not JSON", ""},
		{"plus", `+1`, "not JSON", ""},
		{"bare point", `1.`, "truncated JSON", ""},
		{"bare exponent", `[1e]`, "not JSON", "/0"},
		{"range", `{"n":1e400}`, "number out of range", "/n"},
		{"range by digits", `[` + strings.Repeat("9", 400) + `]`, "number out of range", "/0"},
		{"two values", `{} {}`, "not JSON", ""},
		{"comma at the end", `[1,]`, "not JSON", "/1"},
		{"comma at the object's end", `{"a":1,}`, "not JSON", ""},
		{"single quotes", `{'a':1}`, "not JSON", ""},
		{"comment", `{} // x`, "not JSON", ""},
		{"NaN", `[NaN]`, "not JSON", "/0"},
		{"pointer escapes", `{"a/b~c":[}`, "not JSON", "/a~1b~0c/0"},
	}
	var d Doc
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := d.Scan([]byte(tt.in))
			if err == nil {
				t.Fatal("no error")
			}
			if got := err.Pointer; tt.name != "too deep" && got != tt.pointer || err.What != tt.what {
				t.Errorf("got %q at %q (%v), want %q at %q", err.What, got, err, tt.what, tt.pointer)
			}
			if d.Root().Kind() != Missing {
				t.Error("a refused text left a tape")
			}
		})
	}
}

func TestScanAccepts(t *testing.T) {
	texts := []string{
		`null`, ` true `, `0`, `-0.0e-10`, `1e-400`, `""`, `"\ud83d\ude00 \u0000 \/ é 😀"`, `[]`, `{}`,
		"\t[ 1 ,\r\n[ ] , { \"a\" : { } } ]\n", `{"a":1,"A":2,"a ":3}`,
		strings.Repeat("[", MaxDepth) + strings.Repeat("]", MaxDepth),
	}
	var d Doc
	for _, text := range texts {
		if err := d.Scan([]byte(text)); err != nil {
			t.Errorf("%.40q: %v", text, err)
		}
	}
}

func TestValue(t *testing.T) {
	var d Doc
	src := []byte(`{"a":{"b":[10,"x\ny",{"c":null}],"":"empty"},"k\u0065y":"v","last":1.50}`)
	if err := d.Scan(src); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ pointer, raw, text string }{
		{"", string(src), ""},
		{"/a/b/0", "10", ""},
		{"/a/b/1", `"x\ny"`, "x\ny"},
		{"/a/b/2/c", "null", ""},
		{"/a/b/3", "", ""},
		{"/a/b/01", "", ""},
		{"/a/b/-", "", ""},
		{"/a/", `"empty"`, "empty"},
		{"/key", `"v"`, "v"},
		{"/last", "1.50", ""},
		{"/last/x", "", ""},
		{"/none", "", ""},
	}
	for _, tt := range tests {
		p, err := CompilePointer(tt.pointer)
		if err != nil {
			t.Fatal(err)
		}
		v := p.In(d.Root())
		if got := string(v.Raw()); got != tt.raw {
			t.Errorf("%s: raw %q, want %q", tt.pointer, got, tt.raw)
		}
		if got := string(v.AppendString(nil)); got != tt.text || string(v.Text()) != tt.text {
			t.Errorf("%s: text %q, want %q", tt.pointer, got, tt.text)
		}
	}
	if n := d.Root().Len(); n != 3 {
		t.Errorf("Len %d, want 3", n)
	}
	if n := d.Root().Get("a").Get("b").Len(); n != 3 {
		t.Errorf("array Len %d, want 3", n)
	}
}

func TestChildren(t *testing.T) {
	var d Doc
	if err := d.Scan([]byte(`{"a":[1,[2,3],{}],"k\u0065y":{"x":0,"y/~\n":null},"e":[]}`)); err != nil {
		t.Fatal(err)
	}
	steps := func(v Value) string {
		var out []string
		for c := v.Children(); ; {
			child := c.Next()
			if child.Kind() == Missing {
				return strings.Join(out, " ")
			}
			out = append(out, string(child.Name())+"="+string(child.Raw()))
		}
	}
	root := d.Root()
	for _, tt := range []struct {
		of   Value
		want string
	}{
		{root, `a=[1,[2,3],{}] key={"x":0,"y/~\n":null} e=[]`},
		{root.Get("a"), "=1 =[2,3] ={}"},
		{root.Get("key"), "x=0 y/~\n=null"},
		{root.Get("e"), ""},
		{root.Get("a").Index(0), ""},
		{Value{}, ""},
	} {
		if got := steps(tt.of); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.of.Raw(), got, tt.want)
		}
	}
	if got := Token([]byte("y/~\n")); got != "/y~1~0?" || root.Name() != nil && len(root.Name()) > 0 || (Value{}).Name() != nil {
		t.Errorf("token %q, root's name %q", got, root.Name())
	}
}

func TestCompilePointerRefuses(t *testing.T) {
	for _, p := range []string{"a", "/a~", "/a~2b", "#/a"} {
		if _, err := CompilePointer(p); err == nil {
			t.Errorf("%q: no error", p)
		}
	}
}

// TestScanAllocatesNothing holds that a Doc in use does not allocate.
func TestScanAllocatesNothing(t *testing.T) {
	var d Doc
	src := []byte(`{"a":[1,2,{"b":"cé\n"}],"d":{"e":1e5,"\u0066":true}}`)
	got := testing.AllocsPerRun(100, func() {
		if d.Scan(src) != nil || d.Root().Get("d").Get("e").Kind() != Number {
			t.Error("scan failed")
		}
		d.Reset()
	})
	if got != 0 {
		t.Errorf("%v allocations, want 0", got)
	}
}

// strictByJSONText is the oracle: the reference implementation's verdict.
func strictByJSONText(src []byte) bool {
	dec := jsontext.NewDecoder(bytes.NewReader(src))
	if _, err := dec.ReadValue(); err != nil {
		return false
	}
	_, err := dec.ReadToken()
	return err != nil && err.Error() == "EOF"
}

// FuzzScan compares the verdict with jsontext's, and every string's text.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		``, `{}`, `{"a":1,"a":2}`, `{"a":[1,2.5e3,"x\u00e9\ud83d\ude00"]}`, `"\ud800"`, "\"\xff\"", `[1e400]`, `[[[[`,
		`{"abcdefghijklmnop":"qrstuvwxyz0123456789\"","b":[true,false,null]}`, "\xef\xbb\xbf1", `1 2`, `{"\u0061":1,"a":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		var d Doc
		err := d.Scan(src)
		if want := strictByJSONText(src); (err == nil) != want {
			if err != nil && (err.What == "number out of range" || err.What == "nested too deep") {
				return // stricter than the reference by intent
			}
			t.Fatalf("%q: error %v, jsontext accepts: %v", src, err, want)
		}
		if err != nil {
			if err.Offset < 0 || err.Offset > len(src) || len(err.Pointer) > 1100 {
				t.Fatalf("%q: error out of bounds: %+v", src, err)
			}
			return
		}
		checkStrings(t, &d)
	})
}

func checkStrings(t *testing.T, d *Doc) {
	t.Helper()
	for i := range d.nodes {
		v := Value{d, uint32(i)}
		if v.Kind() != String {
			continue
		}
		want, err := jsontext.AppendUnquote(nil, v.Raw())
		if err != nil || !bytes.Equal(want, v.AppendString(nil)) {
			t.Fatalf("%q: text %q, want %q (%v)", v.Raw(), v.AppendString(nil), want, err)
		}
	}
}

// BenchmarkScan has the reference implementation beside it: a scanner of our own
// must be worth its keep.
func BenchmarkScan(b *testing.B) {
	src := []byte(`{"company":"625bcbdcc9a8e3a86dbf041c","type":"COTTask","data":{"_id":"62742b7562f37034d9399914"`)
	for i := range 18 {
		src = fmt.Appendf(src, `,"field%d":"6261612d9fa3b40007c2ecc1","n%d":%d`, i, i, i*i)
	}
	src = append(src, `},"event":"create"}`...)
	b.Run("jsonscan", func(b *testing.B) {
		var d Doc
		b.SetBytes(int64(len(src)))
		b.ReportAllocs()
		for b.Loop() {
			if err := d.Scan(src); err != nil {
				b.Fatal(err)
			}
			d.Reset()
		}
	})
	b.Run("jsontext", func(b *testing.B) {
		b.SetBytes(int64(len(src)))
		b.ReportAllocs()
		for b.Loop() {
			if !jsontext.Value(src).IsValid() {
				b.Fatal("not valid")
			}
		}
	})
}
