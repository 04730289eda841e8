package sink

import (
	"bytes"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/ClickHouse/ch-go/compress"
)

// What goes into frames comes out of ch-go's reader, in order, whatever its
// sizes; what does not get smaller is sent about as it is.
func TestFrames(t *testing.T) {
	noise := make([]byte, 5*frameBytes/2)
	for i, rnd := 0, rand.NewChaCha8([32]byte{}); i < len(noise); i++ {
		noise[i] = byte(rnd.Uint64())
	}
	text := []byte(strings.Repeat("some words that come again ", 200_000))
	f := newFrames()
	for _, writes := range [][][]byte{
		{},
		{[]byte("a")},
		{[]byte("a"), nil, noise, []byte("b"), text, []byte("c")},
		{text[:aloneBytes-1], text[:aloneBytes-1], text[:aloneBytes]},
		{noise[:2*probeBytes], noise[:2*probeBytes+1], noise[:frameBytes+probeBytes]},
		slicesOf(text, 1000),
	} {
		f.reset()
		var want []byte
		for _, w := range writes {
			if n, err := f.Write(w); n != len(w) || err != nil {
				t.Fatal(n, err)
			}
			want = append(want, w...)
		}
		if err := f.close(); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		r := compress.NewReader(bytes.NewReader(f.body))
		if _, err := io.ReadFull(r, got); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("other bytes came out than went in")
		}
		if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Error("more came out than went in")
		}
	}
	f.reset()
	if _, err := f.Write(noise); err != nil {
		t.Fatal(err)
	}
	if sent := len(f.body); sent > len(noise)+1000 {
		t.Errorf("%d bytes of noise are sent as %d", len(noise), sent)
	}
	rest := noise[len(noise)-frameBytes/4:]
	if last := f.body[len(f.body)-len(rest):]; !bytes.Equal(last, rest) {
		t.Error("noise was compressed to its end")
	}
}

func slicesOf(b []byte, n int) (out [][]byte) {
	for len(b) > n {
		out = append(out, b[:n])
		b = b[n:]
	}
	return append(out, b)
}

func TestStringColumn(t *testing.T) {
	var c strColumn
	want := []string{"", "a", strings.Repeat("b", 127), strings.Repeat("c", 128), "", strings.Repeat("d", 70_000)}
	for round := range 2 {
		c.Reset()
		for i, s := range want {
			if i%2 == round {
				c.Append(s)
			} else {
				c.AppendBytes([]byte(s))
			}
		}
		if c.Rows() != len(want) {
			t.Errorf("%d rows", c.Rows())
		}
		for _, i := range []int{0, 3, 1, 5, 4, 2} {
			if got := c.value(i); got != want[i] {
				t.Errorf("row %d is %.20q", i, got)
			}
		}
	}
}
