package pipeline

import "testing"

// FuzzParsePosition: what is read is written the same again, and everything that
// is written can be read.
func FuzzParsePosition(f *testing.F) {
	for _, text := range []string{"ev/0/7", "a.b-c/31/9223372036854775807", "", "ev", "ev/0", "/0/7", "ev/-1/7", "ev/0/-7", "ev/0/7/8", "ev/2147483648/0", "ev/+1/007"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePosition(text)
		if err != nil {
			return
		}
		again, err := ParsePosition(p.String())
		if err != nil || again != p {
			t.Errorf("%q is %+v, written as %q, which is %+v, %v", text, p, p.String(), again, err)
		}
	})
}

func TestParsePosition(t *testing.T) {
	for text, want := range map[string]Position{
		"ev/0/7": {Topic: "ev", Offset: 7}, "a.b/31/0": {Topic: "a.b", Partition: 31},
		"": {}, "ev": {}, "ev/0": {}, "/0/7": {}, "ev/-1/7": {}, "ev/0/-7": {}, "ev/0/7/8": {}, "ev/x/7": {},
	} {
		p, err := ParsePosition(text)
		if p != want || (err == nil) != (want.Topic != "") {
			t.Errorf("%q: got %+v, %v, want %+v", text, p, err, want)
		}
	}
}
