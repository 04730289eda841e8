package secret

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// Limits of signing keys, in bytes.
const (
	MinHMACBytes = 24
	MaxHMACBytes = 64
	// MaxHubBytes bounds the text that signs in the older, GitHub's way.
	MaxHubBytes = 256
)

const (
	hmacPrefix    = "whsec_"
	ed25519Prefix = "whsk_"
	publicPrefix  = "whpk_"
)

// SigningKey is a key of Standard Webhooks; one of the two is set.
type SigningKey struct {
	HMAC    []byte             // signs as v1
	Ed25519 ed25519.PrivateKey // signs as v1a
}

// ParseSigningKey reads whsec_ and whsk_ keys. No error quotes the text.
func ParseSigningKey(s Secret) (SigningKey, error) {
	text := s.Reveal()
	switch {
	case text == "":
		return SigningKey{}, errors.New("empty secret")
	case strings.HasPrefix(text, publicPrefix):
		return SigningKey{}, errors.New("whpk_ is the public key, which is the receiver's (write the private key, whsk_...)")
	case strings.HasPrefix(text, ed25519Prefix):
		return parseEd25519(text[len(ed25519Prefix):])
	case !strings.HasPrefix(text, hmacPrefix):
		return SigningKey{}, errors.New("wrong prefix (write whsec_ and base64 of 24 to 64 random bytes, or whsk_ and an ed25519 key)")
	}
	key, err := base64.StdEncoding.DecodeString(text[len(hmacPrefix):])
	switch {
	case err != nil:
		return SigningKey{}, errors.New("what follows whsec_ is not base64")
	case len(key) < MinHMACBytes || len(key) > MaxHMACBytes:
		return SigningKey{}, fmt.Errorf("%d bytes are not within %d to %d (hookline subs rotate-secret makes one)", len(key), MinHMACBytes, MaxHMACBytes)
	case allSame(key):
		return SigningKey{}, errors.New("it is one byte over and over")
	}
	return SigningKey{HMAC: key}, nil
}

func parseEd25519(encoded string) (SigningKey, error) {
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return SigningKey{}, errors.New("what follows whsk_ is not base64")
	}
	if len(key) == ed25519.SeedSize {
		key = ed25519.NewKeyFromSeed(key)
	}
	switch {
	case len(key) != ed25519.PrivateKeySize:
		return SigningKey{}, fmt.Errorf("an ed25519 key has %d bytes, or %d with its public half, not %d", ed25519.SeedSize, ed25519.PrivateKeySize, len(key))
	case allSame(key[:ed25519.SeedSize]):
		return SigningKey{}, errors.New("it is one byte over and over")
	case !bytes.Equal(ed25519.NewKeyFromSeed(key[:ed25519.SeedSize]), key):
		return SigningKey{}, errors.New("the public half of the ed25519 key is not that of its private half")
	}
	return SigningKey{Ed25519: key}, nil
}

// CheckHub checks a text that signs in the older way, whose bytes are the key.
func CheckHub(s Secret) error {
	switch text := s.Reveal(); {
	case len(text) < MinHMACBytes || len(text) > MaxHubBytes:
		return fmt.Errorf("%d bytes are not within %d to %d", len(text), MinHMACBytes, MaxHubBytes)
	case allSame([]byte(text)):
		return errors.New("it is one byte over and over")
	}
	return nil
}

// NewHMACKey makes a random whsec_ key of 32 bytes.
func NewHMACKey() (Secret, error) {
	key := make([]byte, 32)
	if _, err := rand.Read(key); err != nil {
		return Secret{}, fmt.Errorf("making a signing key: %w", err)
	}
	return New(hmacPrefix + base64.StdEncoding.EncodeToString(key)), nil
}

// NewEd25519Key makes a random pair: the private whsk_ and the public whpk_.
func NewEd25519Key() (private Secret, public string, err error) {
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Secret{}, "", fmt.Errorf("making a signing key: %w", err)
	}
	return New(ed25519Prefix + base64.StdEncoding.EncodeToString(priv)), publicPrefix + base64.StdEncoding.EncodeToString(pub), nil
}
