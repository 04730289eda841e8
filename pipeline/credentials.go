package pipeline

import "time"

// SigningScheme is how requests are signed.
type SigningScheme string

// The schemes.
const (
	SigningStandard SigningScheme = "standard-webhooks" // webhook-id, webhook-timestamp, webhook-signature
	SigningHub      SigningScheme = "hmac-sha256"       // one HMAC over the body, as GitHub does
)

// DefaultHubHeader is the header of SigningHub where none is named.
const DefaultHubHeader = "X-Hub-Signature-256"

// Signing says how a subscription's requests are signed.
type Signing struct {
	Scheme  SigningScheme
	Header  string          // of SigningHub
	Secrets []SigningSecret // newest first, at least one
}

// SigningSecret is one of a subscription's signing secrets.
type SigningSecret struct {
	Secret    string    // as stored: a reference or sealed, never in clear
	ExpiresAt time.Time // zero: never
}

// Auth says how hookline shows an endpoint who it is: one of the first three,
// MTLS, or both. Secrets are as stored: references or sealed, never in clear.
type Auth struct {
	Bearer *BearerAuth
	Basic  *BasicAuth
	OAuth2 *OAuth2Auth
	MTLS   *MTLSAuth
}

// BearerAuth sends a fixed token.
type BearerAuth struct{ Secret string }

// BasicAuth sends a name and a password.
type BasicAuth struct{ Username, Secret string }

// OAuth2Auth gets tokens by client credentials.
type OAuth2Auth struct {
	TokenURL string
	ClientID string
	Secret   string
	Scopes   []string
	Audience string // empty: not sent
}

// MTLSAuth shows a client certificate.
type MTLSAuth struct {
	Cert string // PEM, or a reference to it
	Key  string // a secret: PEM
}
