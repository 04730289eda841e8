package content

import (
	"bytes"
	"encoding/base64"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
)

// SpecVersion is the version of CloudEvents that is written.
const SpecVersion = "1.0"

// Extensions that carry what CloudEvents has no attribute for.
const (
	ExtensionTenant      = "tenant"
	ExtensionCorrelation = "correlationid"
	// ExtensionEventID is the id that the event's own format gives it. It need
	// not be unique, so it cannot be the CloudEvent's id.
	ExtensionEventID = "eventid"
)

// ownAttributes is the most attributes that an event of another format gets.
const ownAttributes = 9

// Source is the CloudEvents source of events read from a topic. Together with
// the id, which is made of the event's position, it is unique.
func Source(cluster, topic string) string {
	return "/hookline/" + url.PathEscape(cluster) + "/" + url.PathEscape(topic)
}

// attributes appends the event's context attributes but datacontenttype: those
// of a CloudEvent, or those that an event of another format is given.
func attributes(dst []pipeline.Attribute, env *pipeline.Envelope) []pipeline.Attribute {
	if isCloudEvent(env) {
		for _, a := range env.Attributes {
			if validName(a.Name) && !slices.ContainsFunc(dst, func(b pipeline.Attribute) bool { return b.Name == a.Name }) {
				dst = append(dst, a)
			}
		}
		return dst
	}
	id := pipeline.DerivedID(&env.Source)
	add := func(name, value string) {
		if value != "" {
			dst = append(dst, pipeline.Attribute{Name: name, Value: clean(value)})
		}
	}
	add("specversion", SpecVersion)
	add("id", id)
	add("source", Source(env.Source.Cluster, env.Source.Topic))
	if env.EventType == "" {
		add("type", string(env.Format)) // an event must have one
	}
	add("type", env.EventType)
	add("subject", env.Entity)
	if !env.Time.IsZero() {
		add("time", env.Time.UTC().Format(time.RFC3339Nano))
	}
	add(ExtensionTenant, env.Tenant)
	add(ExtensionCorrelation, env.Correlation)
	if env.EventID != id {
		add(ExtensionEventID, env.EventID)
	}
	return dst
}

// validName tells whether an attribute's name can be a member's and a header's.
// CloudEvents allows letters and digits; producers use _ and - too.
func validName(name string) bool {
	for i := range len(name) {
		if c := name[i]; !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return name != "" && name != "data" && name != "data_base64" && name != "datacontenttype"
}

// clean replaces what the CloudEvents type String does not allow: control
// characters, noncharacters, and bytes that are not UTF-8.
func clean(s string) string {
	ok := func(r rune) bool {
		return r >= 0x20 && r < 0x7f || r >= 0xa0 && r&0xfffe != 0xfffe && (r < 0xfdd0 || r > 0xfdef)
	}
	if utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !ok(r) }) {
		return s
	}
	return strings.Map(func(r rune) rune {
		if !ok(r) {
			return utf8.RuneError
		}
		return r
	}, s)
}

// wrap appends the event in structured mode.
func wrap(dst []byte, req *pipeline.Request) ([]byte, error) {
	env := req.Envelope
	var stack [ownAttributes]pipeline.Attribute
	dst = append(dst, '{')
	for _, a := range attributes(stack[:0], env) {
		dst = append(appendJSON(dst, a.Name), ':')
		dst = append(appendJSON(dst, a.Value), ',')
	}
	contentType := headerType(env, "")
	if contentType == "" && !isCloudEvent(env) {
		contentType = TypeJSON
	}
	if contentType != "" {
		dst = append(appendJSON(append(dst, `"datacontenttype":`...), contentType), ',')
	}
	switch {
	case len(req.Payload) == 0 && env.Splice == nil:
		dst[len(dst)-1] = '}' // an event may have no data
		return dst, nil
	case isJSON(contentType) && (!isCloudEvent(env) || jsontext.Value(req.Payload).IsValid()): // others are checked when parsed
		dst = append(dst, `"data":`...)
		var err error
		if dst, err = appendPayload(dst, req); err != nil {
			return dst, err
		}
	default:
		dst = append(dst, `"data_base64":"`...)
		dst = append(base64.StdEncoding.AppendEncode(dst, req.Payload), '"')
	}
	return append(dst, '}'), nil
}

// appendJSON appends s as a JSON string.
func appendJSON(dst []byte, s string) []byte {
	dst, err := jsontext.AppendQuote(dst, s)
	if err != nil { // not UTF-8; what could not be kept is U+FFFD now
		return dst
	}
	return dst
}

// isJSON tells whether a media type says that the data is JSON; none means that.
func isJSON(contentType string) bool {
	media, _, _ := strings.Cut(contentType, ";")
	media = strings.ToLower(strings.TrimSpace(media))
	return media == "" || strings.HasSuffix(media, "/json") || strings.HasSuffix(media, "+json")
}

// headers gives attributes as HTTP headers. All share one string.
func headers(attributes []pipeline.Attribute) []pipeline.Header {
	var stack [1024]byte
	b := stack[:0]
	for _, a := range attributes {
		b = append(append(b, "ce-"...), a.Name...)
		b = appendPercent(b, a.Value)
	}
	rest := string(b)
	out := make([]pipeline.Header, 0, len(attributes))
	cut := func(n int) (s string) {
		s, rest = rest[:n], rest[n:]
		return s
	}
	for _, a := range attributes {
		out = append(out, pipeline.Header{Name: cut(len("ce-") + len(a.Name)), Value: cut(percentLen(a.Value))})
	}
	return out
}

// plain tells which bytes the CloudEvents HTTP binding (1.0.2, 3.1.3.2) sends as
// they are: printable ASCII but for space, quote and percent sign.
func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func appendPercent(dst []byte, s string) []byte {
	const hexDigits = "0123456789ABCDEF"
	for i := range len(s) {
		if c := s[i]; plain(c) {
			dst = append(dst, c)
		} else {
			dst = append(dst, '%', hexDigits[c>>4], hexDigits[c&15])
		}
	}
	return dst
}

func percentLen(s string) int {
	n := len(s)
	for i := range len(s) {
		if !plain(s[i]) {
			n += 2
		}
	}
	return n
}

var errNotStructured = errors.New("rendering the payload: it is not a CloudEvent in structured mode")

// unwrap gives an event in structured mode as one in binary mode.
func unwrap(dst, payload []byte) ([]byte, Message, error) {
	e, err := readStructured(payload)
	if err != nil {
		return dst, Message{}, errNotStructured // its text may quote the payload
	}
	m := Message{Body: payload[:0], ContentType: e.contentType, Headers: headers(e.attributes)}
	from := len(dst)
	switch {
	case e.base64 != nil:
		if dst, err = base64.StdEncoding.AppendDecode(dst, e.base64); err != nil {
			return dst[:from], Message{}, errNotStructured
		}
		m.Body = dst[from:]
	case e.data.Kind() == '"' && !isJSON(e.contentType): // text stands in a JSON string
		if dst, err = jsontext.AppendUnquote(dst, e.data); err != nil {
			return dst[:from], Message{}, errNotStructured
		}
		m.Body = dst[from:]
	case e.data != nil:
		m.Body = e.data
	}
	if m.ContentType == "" || !endpoint.ValidValue(m.ContentType) {
		m.ContentType = TypeJSON
	}
	return dst, m, nil
}

// structured is a CloudEvent in structured mode, taken apart.
type structured struct {
	attributes  []pipeline.Attribute
	contentType string
	data        jsontext.Value // as it is spelled; nil: none
	base64      []byte         // nil: none
}

func readStructured(payload []byte) (e structured, err error) {
	d := jsontext.NewDecoder(bytes.NewReader(payload))
	if open, err := d.ReadToken(); err != nil || open.Kind() != '{' {
		return e, errors.Join(errNotStructured, err)
	}
	for d.PeekKind() == '"' {
		token, err := d.ReadToken()
		if err != nil {
			return e, err
		}
		name := token.String() // before the next read
		value, err := d.ReadValue()
		if err != nil {
			return e, err
		}
		end := int(d.InputOffset())
		e.member(name, payload[end-len(value):end:end])
	}
	_, err = d.ReadToken()
	return e, err
}

// member takes one member in; value is a part of the payload.
func (e *structured) member(name string, value jsontext.Value) {
	text := string(value)
	switch value.Kind() {
	case 'n': // the same as not being there, for attributes
		if name == "data" {
			e.data = value
		}
		return
	case '"':
		unquoted, _ := jsontext.AppendUnquote(nil, value) // the decoder has checked it
		text = string(unquoted)
	}
	switch {
	case name == "data":
		e.data = value
	case name == "data_base64":
		e.base64 = []byte(text)
	case name == "datacontenttype":
		e.contentType = text
	case validName(name):
		e.attributes = append(e.attributes, pipeline.Attribute{Name: name, Value: text})
	}
}
