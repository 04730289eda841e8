package registry

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

// MaxOldSecrets is how many secrets may sign besides the newest.
const MaxOldSecrets = 10

// MaxOverlap is how long a rotated secret may go on signing.
const MaxOverlap = 7 * 24 * time.Hour

// SigningDoc says how requests are signed.
type SigningDoc struct {
	Scheme  string      `json:"scheme,omitempty"` // default standard-webhooks
	Header  string      `json:"header,omitempty"` // of hmac-sha256
	Secrets []SecretDoc `json:"secrets"`          // newest first
}

// SecretDoc is one signing secret.
type SecretDoc struct {
	Secret  secret.Value `json:"secret"`
	Expires time.Time    `json:"expires,omitzero"` // it signs until then; zero: for good
}

// AuthDoc says how hookline shows an endpoint who it is.
type AuthDoc struct {
	Bearer *BearerDoc `json:"bearer,omitempty"`
	Basic  *BasicDoc  `json:"basic,omitempty"`
	OAuth2 *OAuth2Doc `json:"oauth2,omitempty"`
	MTLS   *MTLSDoc   `json:"mtls,omitempty"`
}

// BearerDoc is a fixed token.
type BearerDoc struct {
	Secret secret.Value `json:"secret"`
}

// BasicDoc is a name and a password.
type BasicDoc struct {
	Username string       `json:"username"`
	Secret   secret.Value `json:"secret"`
}

// OAuth2Doc gets tokens by client credentials.
type OAuth2Doc struct {
	TokenURL string       `json:"token_url"`
	ClientID string       `json:"client_id"`
	Secret   secret.Value `json:"secret"`
	Scopes   []string     `json:"scopes,omitempty"`
	Audience string       `json:"audience,omitempty"`
}

// MTLSDoc is a client certificate: PEM or a reference, and its key.
type MTLSDoc struct {
	Cert string       `json:"cert"`
	Key  secret.Value `json:"key"`
}

// TLSDoc says whom to trust: PEM certificates or a reference to them.
type TLSDoc struct {
	CA string `json:"ca,omitempty"`
}

// place is a secret and its field.
type place struct {
	field string
	value *secret.Value
}

// secrets lists the document's secrets, those that are missing too.
func (d *Document) secrets() []place {
	var out []place
	if d.Signing != nil {
		for i := range d.Signing.Secrets {
			out = append(out, place{fmt.Sprintf("signing.secrets.%d", i), &d.Signing.Secrets[i].Secret})
		}
	}
	if a := d.Auth; a != nil {
		if a.Bearer != nil {
			out = append(out, place{"auth.bearer", &a.Bearer.Secret})
		}
		if a.Basic != nil {
			out = append(out, place{"auth.basic", &a.Basic.Secret})
		}
		if a.OAuth2 != nil {
			out = append(out, place{"auth.oauth2", &a.OAuth2.Secret})
		}
		if a.MTLS != nil {
			out = append(out, place{"auth.mtls.key", &a.MTLS.Key})
		}
	}
	return out
}

// clone copies the document as deep as its secrets lie.
func (d *Document) clone() *Document {
	c := *d
	if d.Signing != nil {
		s := *d.Signing
		s.Secrets = slices.Clone(s.Secrets)
		c.Signing = &s
	}
	if d.Auth != nil {
		c.Auth = &AuthDoc{
			Bearer: cloned(d.Auth.Bearer), Basic: cloned(d.Auth.Basic), OAuth2: cloned(d.Auth.OAuth2), MTLS: cloned(d.Auth.MTLS),
		}
	}
	return &c
}

func cloned[T any](p *T) *T {
	if p == nil {
		return nil
	}
	c := *p
	return &c
}

// seal gives the document with its secrets sealed. What is sealed in old, the
// document in force, is taken over where it holds the same and the key is still
// the first: applying a document twice changes nothing. old may be nil.
func (d *Document) seal(old *Document, keys *secret.Keyring) (*Document, error) {
	c := d.clone()
	type opened struct {
		value secret.Value
		text  secret.Secret
	}
	var known []opened
	for _, p := range c.secrets() {
		if !p.value.IsPlain() {
			continue
		}
		if known == nil && old != nil {
			for _, o := range old.secrets() {
				if text, err := keys.Open(d.ID, *o.value); err == nil && o.value.KeyID() == keys.Primary() {
					known = append(known, opened{*o.value, text})
				}
			}
		}
		text := p.value.Plaintext()
		if i := slices.IndexFunc(known, func(o opened) bool { return o.text.Equal(text) }); i >= 0 {
			*p.value = known[i].value
			continue
		}
		sealed, err := keys.Seal(d.ID, text)
		if err != nil {
			return nil, fmt.Errorf("sealing %s of subscription %s: %w", p.field, d.ID, err)
		}
		*p.value = sealed
	}
	return c, nil
}

// reseal seals anew with the first key what another key sealed. It tells whether
// there was anything.
func (d *Document) reseal(keys *secret.Keyring) (*Document, bool, error) {
	c, changed := d.clone(), false
	for _, p := range c.secrets() {
		if !p.value.IsSealed() || p.value.KeyID() == keys.Primary() {
			continue
		}
		text, err := keys.Open(d.ID, *p.value)
		if err == nil {
			*p.value, err = keys.Seal(d.ID, text)
		}
		if err != nil {
			return nil, false, fmt.Errorf("sealing %s of subscription %s anew: %w", p.field, d.ID, err)
		}
		changed = true
	}
	return c, changed, nil
}

// openAll tells the first sealed secret that does not open.
func (d *Document) openAll(keys *secret.Keyring) error {
	for _, p := range d.secrets() {
		if !p.value.IsSealed() {
			continue
		}
		if _, err := keys.Open(d.ID, *p.value); err != nil {
			return fmt.Errorf("%s: %w", p.field, err)
		}
	}
	return nil
}

// credentials fills in what the sender needs. Nothing in it is in clear.
func (d *Document) credentials(s *pipeline.Subscription) {
	if g := d.Signing; g != nil {
		both := &struct { // nearly all have one secret: one piece of memory
			pipeline.Signing
			one [1]pipeline.SigningSecret
		}{}
		both.Secrets = both.one[:0]
		s.Signing = &both.Signing
		s.Signing.Scheme = pipeline.SigningScheme(or(g.Scheme, string(pipeline.SigningStandard)))
		if s.Signing.Scheme == pipeline.SigningHub {
			s.Signing.Header = or(g.Header, pipeline.DefaultHubHeader)
		}
		for _, k := range g.Secrets {
			s.Signing.Secrets = append(s.Signing.Secrets, pipeline.SigningSecret{Secret: storedText(k.Secret), ExpiresAt: k.Expires})
		}
	}
	if d.TLS != nil {
		s.CA = d.TLS.CA
	}
	a := d.Auth
	if a == nil {
		return
	}
	s.Auth = &pipeline.Auth{}
	if b := a.Bearer; b != nil {
		s.Auth.Bearer = &pipeline.BearerAuth{Secret: storedText(b.Secret)}
	}
	if b := a.Basic; b != nil {
		s.Auth.Basic = &pipeline.BasicAuth{Username: b.Username, Secret: storedText(b.Secret)}
	}
	if o := a.OAuth2; o != nil {
		s.Auth.OAuth2 = &pipeline.OAuth2Auth{
			TokenURL: o.TokenURL, ClientID: o.ClientID, Secret: storedText(o.Secret), Scopes: o.Scopes, Audience: o.Audience,
		}
	}
	if m := a.MTLS; m != nil {
		s.Auth.MTLS = &pipeline.MTLSAuth{Cert: m.Cert, Key: storedText(m.Key)}
	}
}

// storedText is the stored form; of a document that was not sealed yet, and so
// is not what is sent by, the redacted one.
func storedText(v secret.Value) string {
	if v.IsPlain() {
		return v.String()
	}
	return v.Stored()
}

// Summary says in a few words how requests are signed.
func (s *SigningDoc) Summary() string {
	if s == nil {
		return ""
	}
	parts := make([]string, len(s.Secrets))
	for i, k := range s.Secrets {
		parts[i] = k.Secret.String()
		if !k.Expires.IsZero() {
			parts[i] += " until " + k.Expires.UTC().Format(time.RFC3339)
		}
	}
	return or(s.Scheme, string(pipeline.SigningStandard)) + ": " + strings.Join(parts, ", ")
}

// Summary says in a few words how hookline shows who it is.
func (a *AuthDoc) Summary() string {
	if a == nil {
		return ""
	}
	var parts []string
	if a.Bearer != nil {
		parts = append(parts, "bearer "+a.Bearer.Secret.String())
	}
	if a.Basic != nil {
		parts = append(parts, "basic "+a.Basic.Username+" "+a.Basic.Secret.String())
	}
	if a.OAuth2 != nil {
		parts = append(parts, "oauth2 "+a.OAuth2.ClientID+" "+a.OAuth2.Secret.String())
	}
	if a.MTLS != nil {
		parts = append(parts, "mtls "+a.MTLS.Key.String())
	}
	return strings.Join(parts, ", ")
}
