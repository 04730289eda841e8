// Package sign makes the signatures of requests: Standard Webhooks (v1 and v1a,
// several keys at once) and the older way of one HMAC over the body.
package sign

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
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

// Signer signs the requests of one subscription. Safe for concurrent use; it
// keeps as many hash states as requests were ever signed at once.
type Signer struct {
	scheme pipeline.SigningScheme
	keys   []key

	mu   sync.Mutex
	free []*state
}

type key struct {
	secret.SigningKey
	expires int64 // Unix seconds; 0: never
}

// state has one hash for each HMAC key, keyed once and reset from then on: a
// third of the cost of making them anew, and no garbage.
type state struct {
	macs    []hash.Hash
	message []byte // of ed25519, which wants it in one piece
	head    []byte
	sum     [sha256.Size]byte
}

// maxKeptMessage bounds the buffer for ed25519 that is kept between requests.
const maxKeptMessage = 64 << 10

// New makes a signer with keys, newest first. Errors never show a key.
func New(scheme pipeline.SigningScheme, keys []Key) (*Signer, error) {
	s := &Signer{scheme: scheme}
	if len(keys) == 0 {
		return nil, errors.New("no signing secrets")
	}
	for _, k := range keys {
		own := key{}
		if !k.ExpiresAt.IsZero() {
			own.expires = k.ExpiresAt.Unix()
		}
		var err error
		switch scheme {
		case pipeline.SigningStandard:
			own.SigningKey, err = secret.ParseSigningKey(k.Secret)
		case pipeline.SigningHub:
			own.HMAC, err = []byte(k.Secret.Reveal()), secret.CheckHub(k.Secret)
		default:
			err = errors.New("unknown signing scheme")
		}
		if err != nil {
			return nil, err
		}
		s.keys = append(s.keys, own)
	}
	return s, nil
}

// Append appends the signature header's value for one request: for Standard
// Webhooks all keys that have not expired, newest first, exactly one space
// between them; for the older way the newest such key alone. at is what
// webhook-timestamp says, in whole seconds; body is what is sent. ErrExpired
// where no key is left.
func (s *Signer) Append(dst []byte, id string, at time.Time, body []byte) ([]byte, error) {
	st := s.take()
	defer s.give(st)
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
			return st.appendHub(dst, st.macs[i], body), nil
		}
		if len(dst) > start {
			dst = append(dst, ' ')
		}
		if k.Ed25519 != nil {
			dst = st.appendV1a(dst, k.Ed25519, body)
		} else {
			dst = st.appendV1(dst, st.macs[i], body)
		}
	}
	if len(dst) == start {
		return dst, ErrExpired
	}
	return dst, nil
}

func (st *state) appendV1(dst []byte, mac hash.Hash, body []byte) []byte {
	mac.Reset()
	mac.Write(st.head)
	mac.Write(body)
	return base64.StdEncoding.AppendEncode(append(dst, "v1,"...), mac.Sum(st.sum[:0]))
}

func (st *state) appendV1a(dst []byte, key ed25519.PrivateKey, body []byte) []byte {
	st.message = append(append(st.message[:0], st.head...), body...)
	return base64.StdEncoding.AppendEncode(append(dst, "v1a,"...), ed25519.Sign(key, st.message))
}

func (st *state) appendHub(dst []byte, mac hash.Hash, body []byte) []byte {
	mac.Reset()
	mac.Write(body)
	return hex.AppendEncode(append(dst, "sha256="...), mac.Sum(st.sum[:0]))
}

func (s *Signer) take() *state {
	s.mu.Lock()
	if n := len(s.free); n > 0 {
		st := s.free[n-1]
		s.free = s.free[:n-1]
		s.mu.Unlock()
		return st
	}
	s.mu.Unlock()
	st := &state{macs: make([]hash.Hash, len(s.keys))}
	for i := range s.keys {
		if k := s.keys[i].HMAC; k != nil {
			st.macs[i] = hmac.New(sha256.New, k)
		}
	}
	return st
}

func (s *Signer) give(st *state) {
	if cap(st.message) > maxKeptMessage {
		st.message = nil
	}
	s.mu.Lock()
	s.free = append(s.free, st)
	s.mu.Unlock()
}
