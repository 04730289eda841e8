package pipeline

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Format names a wire format. The zero value means "not decided yet".
type Format string

// The formats that a record may have. A format is added here and in the format
// table of package format.
const (
	FormatCotalker    Format = "cotalker"
	FormatGoflow      Format = "goflow"
	FormatSIGNL4      Format = "signl4"
	FormatTask        Format = "task"
	FormatCloudEvents Format = "cloudevents"
	FormatJSON        Format = "json"
)

// Position is where an event stands in Kafka; it is the event's identity. All
// parts count: leaving one out makes distinct records look like one.
type Position struct {
	Cluster   string   // the Kafka cluster id
	TopicID   [16]byte // the topic's UUID: a topic made anew under its old name differs
	Topic     string
	Partition int32
	Offset    int64
}

// String gives topic/partition/offset, as the header hookline-source carries it.
func (p Position) String() string {
	b := make([]byte, 0, len(p.Topic)+24)
	b = append(b, p.Topic...)
	b = append(b, '/')
	b = strconv.AppendInt(b, int64(p.Partition), 10)
	b = append(b, '/')
	return string(strconv.AppendInt(b, p.Offset, 10))
}

// ParsePosition reads what String gives: the topic, partition and offset, and
// nothing of the cluster and the topic's id.
func ParsePosition(text string) (Position, error) {
	topic, rest, _ := strings.Cut(text, "/") // no topic's name has one
	partition, offset, _ := strings.Cut(rest, "/")
	p, err1 := strconv.ParseInt(partition, 10, 32)
	o, err2 := strconv.ParseInt(offset, 10, 64)
	if topic == "" || p < 0 || o < 0 || errors.Join(err1, err2) != nil {
		return Position{}, fmt.Errorf("parsing position %q: it is not topic/partition/offset", text)
	}
	return Position{Topic: topic, Partition: int32(p), Offset: o}, nil
}

// Event is one parsed Kafka record.
type Event struct {
	Source Position
	Format Format
	// ID is the format's own id, or one derived from Source (DerivedID). It is
	// an attribute and need not be unique. Always safe as an HTTP header value:
	// [A-Za-z0-9_-]{1,256}; a format hashes what is not (SafeID).
	ID     string
	Tenant string
	Type   string
	// TypeAlias is a second name by which a subscription may ask for the type
	// ("COTTask" for COTTask.create, "200" for signl.created); empty: none.
	TypeAlias   string
	Entity      string // what the event is about: the unit of order for ordering: entity
	Correlation string
	Target      string    // the one subscription the event is meant for; empty: every match
	Resthook    string    // goflow: only subscriptions of this resthook; empty: no such rule
	Time        time.Time // the event's own time; the zero time where it has none
	ProducedAt  time.Time // the Kafka record's timestamp
	// Payload is the exact bytes to POST, a part of the record's value wherever
	// possible. It is never marshalled anew.
	Payload []byte
	// ContentType of the payload; empty: application/json.
	ContentType string
	// Splice says where each subscription's own ids go into the payload; nil:
	// the payload is sent as it is. Only SIGNL4 notifications that name no
	// subscription have one.
	Splice *Splice
	// Attributes are the context attributes of a CloudEvent in binary mode, as
	// its record's headers had them, but for datacontenttype, which is
	// ContentType. Nil for one in structured mode, whose payload has them, and
	// for other formats.
	Attributes []Attribute
}

// Attribute is a CloudEvents context attribute or extension: its name in lower
// case, without a prefix, and its value as text, not escaped.
type Attribute struct{ Name, Value string }

// Splice is where a payload that goes to every match gets its subscription's
// id and a notification id of its own. All offsets count from the payload's
// first byte; the payload is one JSON object with at least one member, and all
// its other bytes are sent as they were produced. An id that is written stands
// between quotes and must need no escapes (see SafeID).
//
// The edits, in the order of their offsets, with S the subscription's id and N
// the notification's:
//
//   - N: payload[IDFrom:IDTo], the value of the member "id" with its quotes, is
//     replaced by "N". IDFrom == IDTo: there is none, and `"id":"N",` is put in
//     at InsertAt.
//   - S: by Sub, and put in at InsertAt where the payload has no "subscription".
//
// The two ranges never overlap; InsertAt lies before both.
type Splice struct {
	IDFrom, IDTo int
	InsertAt     int // just behind the opening brace
	Sub          SubscriptionSplice
	// SubFrom and SubTo are the bytes that Sub replaces; both 0 with SubAbsent,
	// equal with SubWithoutID.
	SubFrom, SubTo int
}

// SubscriptionSplice says how a payload gets its member "subscription".
type SubscriptionSplice uint8

// The ways to put a subscription's id S in.
const (
	// SubAbsent: `"subscription":{"id":"S"},` goes in at InsertAt.
	SubAbsent SubscriptionSplice = iota
	// SubValue: the value of "subscription" (null, {}) becomes {"id":"S"}.
	SubValue
	// SubIDValue: the value of "subscription"'s "id" (null, "") becomes "S".
	SubIDValue
	// SubWithoutID: `"id":"S",` goes in at SubFrom, just behind the opening
	// brace of a "subscription" that has other members.
	SubWithoutID
)

// Envelope is what travels with a payload from the router to the last attempt:
// everything about the event but its payload.
type Envelope struct {
	Source          Position
	Format          Format
	EventID         string
	Tenant          string
	EventType       string
	Entity          string
	Correlation     string
	ContentType     string // empty: application/json
	Time            time.Time
	ProducedAt      time.Time
	RegistryVersion int64  // the version of the registry that the event was matched with
	Replay          string // the id of the replay that made this delivery; empty: live
	Splice          *Splice
	Attributes      []Attribute
	Trace           TraceContext // what the event's attempts are parts of
}

// idEncoding is lower-case base32 without padding: safe in headers, URLs and
// file names, and read out over a telephone.
var idEncoding = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)

// DeliveryID names the delivery of the event at p to a subscription. The same
// on every attempt, after a crash and on replay; 30 characters, no dots.
func DeliveryID(p *Position, subscription string) string {
	var stack [32]byte
	return string(appendPositionHash(append(stack[:0], "dlv_"...), p, subscription))
}

// DerivedID names an event by its position, for formats without an id of their
// own; 30 characters.
func DerivedID(p *Position) string {
	var stack [32]byte
	return string(AppendDerivedID(stack[:0], p))
}

// AppendDerivedID appends DerivedID(p) to dst.
func AppendDerivedID(dst []byte, p *Position) []byte {
	return appendPositionHash(append(dst, "evt_"...), p, "")
}

func appendPositionHash(dst []byte, p *Position, subscription string) []byte {
	var stack [256]byte
	b := append(stack[:0], "hookline/1\x00"...)
	b = append(b, p.Cluster...)
	b = append(b, 0)
	b = append(b, p.TopicID[:]...)
	b = append(b, p.Topic...)
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(p.Partition))
	b = binary.BigEndian.AppendUint64(b, uint64(p.Offset))
	b = append(b, subscription...)
	sum := sha256.Sum256(b)
	return idEncoding.AppendEncode(dst, sum[:16])
}

// MaxIDBytes is the longest id that goes into an HTTP header unchanged.
const MaxIDBytes = 256

// SafeID returns id where it matches [A-Za-z0-9_-]{1,256}, else a hash of it
// that does (prefix "h_").
func SafeID(id string) string {
	ok := id != "" && len(id) <= MaxIDBytes
	for i := 0; ok && i < len(id); i++ {
		c := id[i]
		ok = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	if ok {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "h_" + idEncoding.EncodeToString(sum[:16])
}

// TestTopic stands for the source of a test request's event, which no topic has.
const TestTopic = "hookline-test"
