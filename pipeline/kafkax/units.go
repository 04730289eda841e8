package kafkax

import (
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"
)

// Bytes is a number of bytes. As text: a number with an optional unit, B, KiB,
// MiB, GiB (powers of 1024) or KB, MB, GB (powers of 1000).
type Bytes int64

// byteUnits has the longer names first, so that "B" does not match "KiB".
var byteUnits = [...]struct {
	name string
	size int64
}{
	{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}, {"B", 1},
}

// UnmarshalText parses "1MiB", "512 KiB" or "1048576".
func (b *Bytes) UnmarshalText(text []byte) error {
	s, size := strings.TrimSpace(string(text)), int64(1)
	for _, u := range byteUnits {
		if cut, ok := strings.CutSuffix(s, u.name); ok {
			s, size = strings.TrimSpace(cut), u.size
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/size {
		return fmt.Errorf("parsing size: %q is not a size (write 1MiB, 512KiB or a number of bytes)", text)
	}
	*b = Bytes(n * size)
	return nil
}

// MarshalText is the inverse of UnmarshalText, in the largest unit that divides.
func (b Bytes) MarshalText() ([]byte, error) { return []byte(b.String()), nil }

// String writes b in the largest power of 1024 that divides it.
func (b Bytes) String() string {
	for _, u := range byteUnits[:3] {
		if b != 0 && int64(b)%u.size == 0 {
			return strconv.FormatInt(int64(b)/u.size, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Duration is a time.Duration whose text may also count days: "7d", "1d12h".
type Duration time.Duration

const day = 24 * time.Hour

// UnmarshalText parses a time.Duration with an optional number of days first.
func (d *Duration) UnmarshalText(text []byte) error {
	s := strings.TrimSpace(string(text))
	days, rest, ok := strings.Cut(s, "d")
	var sum time.Duration
	err := errors.New("empty")
	if ok {
		var n int64
		n, err = strconv.ParseInt(days, 10, 32)
		sum, s = time.Duration(n)*day, rest
		if n < 0 || n > int64(math.MaxInt64/day) {
			err = errors.New("out of range")
		}
	}
	if s != "" && (!ok || err == nil) {
		var t time.Duration
		t, err = time.ParseDuration(s)
		if ok && (t < 0 || sum+t < sum) {
			err = errors.New("out of range")
		}
		sum += t
	}
	if err != nil {
		return fmt.Errorf("parsing duration: %q is not a duration (write 7d, 36h or 90s)", text)
	}
	*d = Duration(sum)
	return nil
}

// MarshalText is the inverse of UnmarshalText.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes whole days as "7d", everything else as time.Duration does.
func (d Duration) String() string {
	if t := time.Duration(d); t >= day && t%day == 0 {
		return strconv.FormatInt(int64(t/day), 10) + "d"
	}
	return time.Duration(d).String()
}

// Password is a secret that no formatting shows.
type Password string

const redacted = "[redacted]"

// String hides the password; so do GoString, Format, MarshalText and LogValue.
func (p Password) String() string { return redactedUnlessEmpty(p) }

// GoString hides the password from %#v.
func (p Password) GoString() string { return redactedUnlessEmpty(p) }

// Format hides the password from every verb.
func (p Password) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redactedUnlessEmpty(p))) }

// MarshalText hides the password from JSON and the like.
func (p Password) MarshalText() ([]byte, error) { return []byte(redactedUnlessEmpty(p)), nil }

// UnmarshalText takes the password as it stands.
func (p *Password) UnmarshalText(text []byte) error { *p = Password(text); return nil }

// LogValue hides the password from slog.
func (p Password) LogValue() slog.Value { return slog.StringValue(redactedUnlessEmpty(p)) }

func redactedUnlessEmpty(p Password) string {
	if p == "" {
		return ""
	}
	return redacted
}
