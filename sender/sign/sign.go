// Package sign makes the signatures of requests: Standard Webhooks (v1 and v1a,
// several keys at once) and the older way of one HMAC over the body.
package sign

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// Key is one secret and when it stops signing; zero: never.
type Key struct {
	Secret    secret.Secret
	ExpiresAt time.Time
}

// ErrExpired says that no key is left that signs.
var ErrExpired = errors.New("every signing secret has expired (hookline subs rotate-secret)")

// Signer signs the requests of one subscription. Safe for concurrent use. It is
// small, since a process has one for each of its subscriptions: of an HMAC key it
// keeps what the hash makes of it (hmac.go), and hashes are shared by all. It may
// be copied. The zero value has no keys.
type Signer struct {
	newest key
	older  *[]key // nil: there is one, as mostly
	any    bool   // there are keys
	hub    bool   // the older way
}

type key struct {
	mac     macKey
	ed25519 *ed25519.PrivateKey // instead of mac where it is not nil
	expires int64               // Unix seconds; 0: never
}

// Signs tells whether there are keys.
func (s *Signer) Signs() bool { return s.any }

// state is what one signature needs while it is made.
type state struct {
	mac     mac
	message []byte // of ed25519, which wants it in one piece
	head    []byte
	sum     [sha256.Size]byte
}

var states = sync.Pool{New: func() any { return &state{mac: newMAC()} }}

// maxKeptMessage bounds the buffer for ed25519 that is kept between requests.
const maxKeptMessage = 64 << 10

// New makes a signer with keys, newest first. Errors never show a key.
func New(scheme pipeline.SigningScheme, keys []Key) (*Signer, error) {
	if len(keys) == 0 {
		return nil, errors.New("no signing secrets")
	}
	s := &Signer{any: true, hub: scheme == pipeline.SigningHub}
	if len(keys) > 1 {
		older := make([]key, len(keys)-1)
		s.older = &older
	}
	st := states.Get().(*state)
	defer states.Put(st)
	for i, k := range keys {
		own := &s.newest
		if i > 0 {
			own = &(*s.older)[i-1]
		}
		if !k.ExpiresAt.IsZero() {
			own.expires = k.ExpiresAt.Unix()
		}
		var parsed secret.SigningKey
		var err error
		switch scheme {
		case pipeline.SigningStandard:
			parsed, err = secret.ParseSigningKey(k.Secret)
		case pipeline.SigningHub:
			parsed.HMAC, err = []byte(k.Secret.Reveal()), secret.CheckHub(k.Secret)
		default:
			err = errors.New("unknown signing scheme")
		}
		if err != nil {
			return nil, err
		}
		if parsed.Ed25519 != nil {
			own.ed25519 = &parsed.Ed25519
		} else {
			own.mac = st.mac.key(parsed.HMAC)
		}
	}
	return s, nil
}

// Append appends the signature header's value for one request: for Standard
// Webhooks all keys that have not expired, newest first, exactly one space
// between them; for the older way the newest such key alone. at is what
// webhook-timestamp says, in whole seconds; body is what is sent. ErrExpired
// where no key is left.
func (s *Signer) Append(dst []byte, id string, at time.Time, body []byte) ([]byte, error) {
	st := states.Get().(*state)
	defer st.put()
	seconds := at.Unix()
	st.head = append(st.head[:0], id...)
	st.head = append(st.head, '.')
	st.head = strconv.AppendInt(st.head, seconds, 10)
	st.head = append(st.head, '.')
	start := len(dst)
	dst = s.append(dst, start, &s.newest, st, seconds, body)
	if s.older != nil {
		for i := range *s.older {
			dst = s.append(dst, start, &(*s.older)[i], st, seconds, body)
		}
	}
	if len(dst) == start {
		return dst, ErrExpired
	}
	return dst, nil
}

// append appends one key's signature where it has not expired, and where it is
// wanted besides what stands in dst from start on.
func (s *Signer) append(dst []byte, start int, k *key, st *state, seconds int64, body []byte) []byte {
	switch {
	case k.expires != 0 && seconds >= k.expires, s.hub && len(dst) > start:
		return dst
	case s.hub:
		return st.appendHub(dst, &k.mac, body)
	case len(dst) > start:
		dst = append(dst, ' ')
	}
	if k.ed25519 != nil {
		return st.appendV1a(dst, *k.ed25519, body)
	}
	return st.appendV1(dst, &k.mac, body)
}

func (st *state) appendV1(dst []byte, k *macKey, body []byte) []byte {
	sum := st.mac.sum(st.sum[:0], k, st.head, body)
	return base64.StdEncoding.AppendEncode(append(dst, "v1,"...), sum)
}

func (st *state) appendV1a(dst []byte, key ed25519.PrivateKey, body []byte) []byte {
	st.message = append(append(st.message[:0], st.head...), body...)
	return base64.StdEncoding.AppendEncode(append(dst, "v1a,"...), ed25519.Sign(key, st.message))
}

func (st *state) appendHub(dst []byte, k *macKey, body []byte) []byte {
	return hex.AppendEncode(append(dst, "sha256="...), st.mac.sum(st.sum[:0], k, nil, body))
}

func (st *state) put() {
	if cap(st.message) > maxKeptMessage {
		st.message = nil
	}
	states.Put(st)
}
