package logshape

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
)

// noAnswer is the status that a COTWebhookLog has where no answer came at all.
const noAnswer = 409

// Logged tells whether an attempt has a row in the shapes of this package: a try
// of its delivery. Deliveries cancelled without one, and tries that were our own
// fault, have none.
func Logged(a *pipeline.Attempt) bool { return a.Attempt > 0 && a.Outcome.SpendsAttempt() }

// endedAt is when the answer, or the failure, was recorded; microseconds, as the
// log keeps them.
func endedAt(a *pipeline.Attempt) time.Time {
	return a.StartedAt.UTC().Truncate(time.Microsecond).Add(a.Elapsed.Truncate(time.Microsecond))
}

// COTWebhookID is the _id of an attempt's COTWebhookLog: 24 hexadecimal digits,
// the first 8 of them the seconds of createdAt as in an ObjectId, the others of a
// hash of the attempt's id.
func COTWebhookID(a *pipeline.Attempt) string {
	sum := sha256.Sum256([]byte(a.AttemptID))
	return fmt.Sprintf("%08x", uint32(endedAt(a).Unix())) + hex.EncodeToString(sum[:8])
}

// AppendCOTWebhookLog appends the attempt as one line of JSON without its line
// break: exactly the published keys in their order. event is the COTEvent as it
// was produced, of which only line breaks and the indentation behind them are
// left out; nil: it is not known (yet), and an empty object stands for it.
func AppendCOTWebhookLog(dst []byte, a *pipeline.Attempt, event []byte) []byte {
	status, response := a.StatusCode, string(a.ResponseBody)
	if status == 0 {
		status, response = noAnswer, a.Error
	}
	dst = append(dst, `{"_id":"`...)
	dst = append(dst, COTWebhookID(a)...)
	dst = append(dst, `","company":`...)
	dst = appendText(dst, a.Envelope.Tenant)
	dst = append(dst, `,"createdAt":"`...)
	dst = endedAt(a).AppendFormat(dst, "2006-01-02T15:04:05.000Z")
	dst = append(dst, `","status":`...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, `,"retry":`...)
	dst = strconv.AppendInt(dst, int64(a.Retry()), 10)
	dst = append(dst, `,"response":`...)
	dst = appendText(dst, response)
	dst = append(dst, `,"event":`...)
	dst = appendOneLine(dst, event)
	dst = append(dst, `,"subscription":`...)
	dst = appendText(dst, a.SubscriptionID)
	return append(dst, `,"__v":0}`...)
}

// appendText appends s as a JSON string; bytes that are not UTF-8 become U+FFFD.
func appendText(dst []byte, s string) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(strings.ToValidUTF8(s, "\uFFFD")); err != nil {
		panic("BUG: encoding a string: " + err.Error())
	}
	return append(dst, bytes.TrimSuffix(b.Bytes(), []byte("\n"))...)
}

// appendOneLine appends JSON without its line breaks and the indentation behind
// them: within strings there are none. All else stays as it was produced.
func appendOneLine(dst, value []byte) []byte {
	if len(bytes.TrimSpace(value)) == 0 {
		return append(dst, "{}"...)
	}
	for len(value) > 0 {
		n := bytes.IndexAny(value, "\r\n")
		if n < 0 {
			return append(dst, value...)
		}
		dst = append(dst, value[:n]...)
		value = bytes.TrimLeft(value[n:], " \t\r\n")
	}
	return dst
}
