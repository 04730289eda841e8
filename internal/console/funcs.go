package console

import (
	"fmt"
	"html/template"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/sink"
)

// funcs are what templates call.
var funcs = template.FuncMap{
	"iso":          func(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") },
	"stamp":        stamp,
	"clock":        func(t time.Time) string { return t.UTC().Format("15:04:05") },
	"took":         took,
	"count":        countOf,
	"healthClass":  healthClass,
	"bytes":        byteCount,
	"short":        short,
	"text":         textOf,
	"words":        func(s string) string { return strings.ReplaceAll(s, "_", " ") },
	"stateClass":   stateClass,
	"outcomeClass": outcomeClass,
}

// stamp is a time in a table: with its date where it is not of today.
func stamp(t time.Time) string {
	t = t.UTC()
	if now := time.Now().UTC(); t.Year() == now.Year() && t.YearDay() == now.YearDay() {
		return t.Format("15:04:05.000")
	}
	return t.Format("2006-01-02 15:04:05")
}

// took is a duration with three digits at most.
func took(d time.Duration) string {
	switch {
	case d <= 0:
		return "–"
	case d < time.Millisecond:
		return strconv.FormatInt(d.Microseconds(), 10) + " µs"
	case d < 10*time.Millisecond:
		return strconv.FormatFloat(float64(d)/1e6, 'f', 1, 64) + " ms"
	case d < time.Second:
		return strconv.FormatInt(d.Milliseconds(), 10) + " ms"
	case d < time.Minute:
		return strconv.FormatFloat(d.Seconds(), 'f', 1, 64) + " s"
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// count is a number with thin spaces between thousands.
func count[N int | int64 | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "\u202f" + s[i:]
	}
	return s
}

// countOf is count for templates, which have several kinds of numbers.
func countOf(v any) (string, error) {
	switch n := v.(type) {
	case int:
		return count(n), nil
	case uint64:
		return count(n), nil
	}
	return "", fmt.Errorf("%T is no count", v)
}

func healthClass(h api.Health) string {
	switch h {
	case api.HealthOK:
		return "ok"
	case api.HealthRetrying, api.HealthPaused:
		return "warn"
	case api.HealthRefused, api.HealthDisabled, api.HealthBlocked, api.HealthFailing:
		return "bad"
	case api.HealthIdle:
	}
	return ""
}

func byteCount(n int) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

// shortID is how much of an id a table shows.
const shortID = 26

func short(s string) string {
	if utf8.RuneCountInString(s) <= shortID {
		return text(s)
	}
	r := []rune(s)
	return text(string(r[:shortID-9]) + "…" + string(r[len(r)-8:]))
}

// text is what can be shown of bytes that anybody may have sent: letters that
// turn the direction or cannot be seen are replaced, and what is not UTF-8.
func text[T string | []byte](b T) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return r
		case r == '\r':
			return -1
		case r == utf8.RuneError || unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Co):
			return '\uFFFD'
		}
		return r
	}, strings.ToValidUTF8(string(b), "\uFFFD"))
}

// textOf is text for templates, which have both.
func textOf(v any) string {
	switch v := v.(type) {
	case []byte:
		return text(v)
	case string:
		return text(v)
	}
	return text(fmt.Sprint(v))
}

func stateClass(s sink.DeliveryState) string {
	switch s {
	case sink.DeliveryDelivered:
		return "ok"
	case sink.DeliveryRetrying, sink.DeliveryWaiting:
		return "warn"
	case sink.DeliveryFailed:
		return "bad"
	case sink.DeliveryCancelled:
	}
	return ""
}

// kind groups outcomes as the charts show them.
type kind int

const (
	kindOK kind = iota
	kindAnswer
	kindUnreached
	kindOwn
	kinds
)

var (
	kindNames   = [kinds]string{"success", "bad answer", "no answer", "not sent"}
	kindClasses = [kinds]string{"c-ok", "c-answer", "c-unreach", "c-own"}
)

func kindOf(o pipeline.Outcome) kind {
	switch o {
	case pipeline.OutcomeSuccess:
		return kindOK
	case pipeline.OutcomeResponseError, pipeline.OutcomeGone:
		return kindAnswer
	case pipeline.OutcomeTimeout, pipeline.OutcomeConnectError, pipeline.OutcomeDNSError, pipeline.OutcomeTLSError, pipeline.OutcomeProtocolError:
		return kindUnreached
	case pipeline.OutcomeBlocked, pipeline.OutcomeCancelled, pipeline.OutcomeLocalError:
	}
	return kindOwn
}

func outcomeClass(o pipeline.Outcome) string {
	switch kindOf(o) {
	case kindOK:
		return "ok"
	case kindAnswer:
		return "warn"
	case kindUnreached:
		return "bad"
	case kindOwn, kinds:
	}
	return ""
}
