package registry

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/endpoint"
	"github.com/hookline/hookline/pipeline/secret"
)

const (
	noKeysRemedy = "use a reference, env:NAME or file:/path, or set HOOKLINE_SECRET_KEYS to id:base64 of 32 random bytes"
	maxUsername  = 256 // bytes
	maxScopes    = 32
)

// credentials checks signing, auth and tls. It never shows what is in them.
func (c *checker) credentials(d *Document, pol *Policy) {
	c.sealing(d, pol)
	c.signing(d)
	c.auth(d, pol)
	if d.TLS != nil {
		c.pem("tls.ca", d.TLS.CA)
		c.https("tls", d)
	}
}

// sealing refuses inline secrets where there is no key to seal them with, and
// secrets that are missing.
func (c *checker) sealing(d *Document, pol *Policy) {
	for _, p := range d.secrets() {
		switch {
		case p.value.IsZero() && !d.src.foundAt(p.field):
			c.add(p.field, "write secret: or secret_ref:", "the secret is missing")
		case p.value.IsPlain() && pol.Keys == nil:
			c.add(p.field, noKeysRemedy, "an inline secret cannot be sealed: %s", secret.ErrNoKeys)
		case p.value.IsPlain() && len(p.value.Plaintext().Reveal()) > secret.MaxBytes:
			c.add(p.field, "", "the secret has more than %d bytes", secret.MaxBytes)
		}
	}
}

func (c *checker) signing(d *Document) {
	s := d.Signing
	if s == nil {
		return
	}
	scheme := pipeline.SigningScheme(or(s.Scheme, string(pipeline.SigningStandard)))
	c.word("signing.scheme", s.Scheme, string(pipeline.SigningStandard), string(pipeline.SigningHub))
	switch {
	case s.Header == "":
	case scheme != pipeline.SigningHub:
		c.add("signing.header", "leave it out", "only scheme %s has a header of its own", pipeline.SigningHub)
	default:
		if err := endpoint.CheckHeaders([]pipeline.Header{{Name: s.Header, Value: "x"}}); err != nil {
			c.add("signing.header", "", "%s", strings.TrimPrefix(err.Error(), "checking headers: "))
		}
	}
	if scheme == pipeline.SigningHub {
		for name := range d.Headers {
			if strings.EqualFold(name, or(s.Header, pipeline.DefaultHubHeader)) {
				c.add("headers", "leave it out", "%.60q is the signature's header", name)
			}
		}
	}
	switch n := len(s.Secrets); {
	case n == 0 && !d.src.foundAt("signing"):
		c.add("signing.secrets", "write a list, newest first", "no secrets")
	case n > 1+MaxOldSecrets:
		c.add("signing.secrets", "", "%d secrets are over the limit of one and %d old ones", n, MaxOldSecrets)
	}
	c.signingSecrets(d, scheme)
}

func (c *checker) signingSecrets(d *Document, scheme pipeline.SigningScheme) {
	places := d.secrets()[:len(d.Signing.Secrets)]
	for i, p := range places {
		if i == 0 && !d.Signing.Secrets[0].Expires.IsZero() {
			c.add(p.field, "the list is newest first", "the newest secret must not expire")
		}
		for _, earlier := range places[:i] {
			twice := !p.value.IsZero() && !p.value.IsPlain() && *earlier.value == *p.value
			if twice || p.value.IsPlain() && p.value.Plaintext().Equal(earlier.value.Plaintext()) {
				c.add(p.field, "", "the secret is there twice")
			}
		}
		if p.value.IsPlain() {
			if err := checkSigningSecret(scheme, p.value.Plaintext()); err != nil {
				c.add(p.field, "", "%s", err)
			}
		}
	}
}

func checkSigningSecret(scheme pipeline.SigningScheme, s secret.Secret) error {
	if scheme == pipeline.SigningHub {
		return secret.CheckHub(s)
	}
	_, err := secret.ParseSigningKey(s)
	return err
}

func (c *checker) auth(d *Document, pol *Policy) {
	a := d.Auth
	if a == nil {
		return
	}
	n := oneIf(a.Bearer != nil) + oneIf(a.Basic != nil) + oneIf(a.OAuth2 != nil)
	switch {
	case n > 1:
		c.add("auth", "mtls goes with any one of them", "bearer, basic and oauth2 exclude each other")
	case n == 0 && a.MTLS == nil && !d.src.foundAt("auth"):
		c.add("auth", "one of bearer, basic, oauth2, mtls", "it names no way to authenticate")
	}
	if b := a.Bearer; b != nil && b.Secret.IsPlain() && !isToken68(b.Secret.Plaintext().Reveal()) {
		c.add("auth.bearer", "", "a token is visible ASCII without spaces")
	}
	if b := a.Basic; b != nil {
		if b.Username == "" || len(b.Username) > maxUsername || !printable(b.Username) || strings.Contains(b.Username, ":") {
			c.add("auth.basic.username", "", "it is 1 to %d bytes without colons and control characters", maxUsername)
		}
		if b.Secret.IsPlain() && !printable(b.Secret.Plaintext().Reveal()) {
			c.add("auth.basic", "", "the password has control characters or is not UTF-8")
		}
	}
	if a.OAuth2 != nil {
		c.oauth2(a.OAuth2, pol)
	}
	if a.MTLS != nil {
		c.mtls(d, a.MTLS)
	}
}

func (c *checker) oauth2(o *OAuth2Doc, pol *Policy) {
	if o.TokenURL == "" {
		c.add("auth.oauth2.token_url", "write https://host/path", "missing")
	} else if _, err := endpoint.ParseURL(o.TokenURL, pol.URL); err != nil {
		c.add("auth.oauth2.token_url", "", "%s", strings.TrimPrefix(err.Error(), "parsing url: "))
	}
	if o.ClientID == "" || len(o.ClientID) > maxUsername || !printable(o.ClientID) {
		c.add("auth.oauth2.client_id", "", "it is 1 to %d bytes without control characters", maxUsername)
	}
	if len(o.Scopes) > maxScopes {
		c.add("auth.oauth2.scopes", "", "%d are over the limit of %d", len(o.Scopes), maxScopes)
	}
	for _, s := range o.Scopes {
		if !isToken68(s) || strings.ContainsAny(s, "\"\\") {
			c.add("auth.oauth2.scopes", "one scope for each item of the list", "a scope is visible ASCII without spaces and quotes")
		}
	}
	if len(o.Audience) > maxName || !printable(o.Audience) {
		c.add("auth.oauth2.audience", "", "it has control characters or more than %d bytes", maxName)
	}
}

const maxName = 1024 // bytes of what goes into a token request

// isToken68 tells whether s is visible ASCII.
func isToken68(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r >= 0x7f })
}

func (c *checker) mtls(d *Document, m *MTLSDoc) {
	c.pem("auth.mtls.cert", m.Cert)
	c.https("auth.mtls", d)
	if !m.Key.IsPlain() {
		return
	}
	key := m.Key.Plaintext().Reveal()
	if secret.IsRef(m.Cert) {
		if !strings.Contains(key, "PRIVATE KEY-----") {
			c.add("auth.mtls.key", "", "it is not a private key in PEM")
		}
		return
	}
	if _, err := tls.X509KeyPair([]byte(m.Cert), []byte(key)); err != nil && checkPEM(m.Cert) == nil {
		c.add("auth.mtls.key", "", "it is not the private key, in PEM, of the certificate")
	}
}

func (c *checker) https(field string, d *Document) {
	if strings.HasPrefix(strings.ToLower(d.URL), "http:") {
		c.add(field, "use https", "the URL is without TLS")
	}
}

// pem checks certificates that are public: PEM, or a reference.
func (c *checker) pem(field, text string) {
	if secret.IsRef(text) {
		if _, err := secret.Ref(text); err != nil {
			c.add(field, "", "%s", err)
		}
		return
	}
	if err := checkPEM(text); err != nil {
		c.add(field, "write PEM, or a reference under the name with _ref", "%s", err)
	}
}

func checkPEM(text string) error {
	switch {
	case text == "":
		return errors.New("missing")
	case len(text) > secret.MaxBytes:
		return errors.New("too long")
	case strings.Contains(text, "PRIVATE KEY-----"):
		return errors.New("it has a private key in it")
	case !x509.NewCertPool().AppendCertsFromPEM([]byte(text)):
		return errors.New("it has no certificate in PEM")
	}
	return nil
}
