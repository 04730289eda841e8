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
// keeps what the hash makes of it (hmac.go), and hashes are shared by all.
type Signer struct {
	scheme pipeline.SigningScheme
	keys   []key
	one    [1]key // the memory of keys where there is one, as mostly
}

type key struct {
	mac     macKey
	ed25519 ed25519.PrivateKey // instead of mac where it is not nil
	expires int64              // Unix seconds; 0: never
}

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
	s := &Signer{scheme: scheme}
	if s.keys = s.one[:]; len(keys) > 1 {
		s.keys = make([]key, len(keys))
	}
	st := states.Get().(*state)
	defer states.Put(st)
	for i, k := range keys {
		own := &s.keys[i]
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
		if own.ed25519 = parsed.Ed25519; own.ed25519 == nil {
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
	for i := range s.keys {
		k := &s.keys[i]
		if k.expires != 0 && seconds >= k.expires {
			continue
		}
		if s.scheme == pipeline.SigningHub {
			return st.appendHub(dst, &k.mac, body), nil
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if k.ed25519 != nil {
			dst = st.appendV1a(dst, k.ed25519, body)
		} else {
			dst = st.appendV1(dst, &k.mac, body)
		}
	}
	if len(dst) == start {
		return dst, ErrExpired
	}
	return dst, nil
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
