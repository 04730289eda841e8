package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// publicKey verifies signatures of the kind v1a, which the library does not.
type publicKey ed25519.PublicKey

func newEd25519(key string) (publicKey, error) {
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(key, "whpk_"))
	if err != nil || len(raw) != ed25519.PublicKeySize {
		return nil, errors.New("not whpk_ and base64 of 32 bytes")
	}
	return raw, nil
}

// Verify has nil for a body that the owner of the private key signed within the
// last five minutes.
func (k publicKey) Verify(body []byte, headers http.Header) error {
	id, at := headers.Get("webhook-id"), headers.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return errors.New("no webhook-timestamp")
	}
	if age := time.Since(time.Unix(seconds, 0)); age > 5*time.Minute || age < -5*time.Minute {
		return errors.New("too old, or from the future")
	}
	signed := fmt.Appendf(nil, "%s.%s.%s", id, at, body)
	for _, s := range strings.Fields(headers.Get("webhook-signature")) { // several while a key is changed
		kind, value, _ := strings.Cut(s, ",")
		signature, err := base64.StdEncoding.DecodeString(value)
		if kind == "v1a" && err == nil && ed25519.Verify(ed25519.PublicKey(k), signed, signature) {
			return nil
		}
	}
	return errors.New("no signature fits")
}
