package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
)

const (
	canary   = "CANARYcanaryCANARYcanary"
	goodHMAC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	goodEd   = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
	keyOne   = "k1:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	keyTwo   = "k2:IAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
)

func keyring(t testing.TB, text string) *secret.Keyring {
	t.Helper()
	k, err := secret.ParseKeys(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func sealingPolicy(t testing.TB, keys string) *Policy {
	pol := testPolicy()
	pol.Keys = keyring(t, keys)
	return pol
}

// pair is a certificate and its private key, in PEM.
func pair(t testing.TB) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}))
}

func withCredentials(lines string) string {
	return "id: a\ntenant: t\nurl: https://a.example.com/\n" + lines
}

// refused is a document's fields and what is wrong with them.
type refused struct{ name, src, want string }

var refusedAuth = []refused{
	{"unknown field", "auth:\n  bearer:\n    token: " + canary, "f.yaml:6: auth.bearer: unknown field token (write secret)"},
	{"usual name", "auth: {basic: {user: u, password: " + canary + "}}", "f.yaml:4: auth.basic: unknown field user (write username)\nf.yaml:4: auth.basic: unknown field password (write secret)"},
	{"unknown name is not shown", "auth: {" + canary + ": x}", "f.yaml:4: auth: unknown field (known: basic, bearer, mtls, oauth2)"},
	{"auth as text", "auth: " + canary, "f.yaml:4: auth: want a mapping, got text"},
	{"bearer as text", "auth:\n  bearer: " + canary, "f.yaml:5: auth.bearer: want a mapping, got text"},
	{"no secret", "auth: {bearer: {}}", "f.yaml:4: auth.bearer: the secret is missing (write secret: or secret_ref:)"},
	{"nothing", "auth: {}", "f.yaml:4: auth: it names no way to authenticate"},
	{"both", "auth:\n  bearer:\n    secret: " + canary + "\n    secret_ref: env:X", "f.yaml:7: auth.bearer.secret_ref: give secret or secret_ref, not both"},
	{"twice", "auth:\n  bearer: {secret_ref: env:X}\n  bearer: {secret_ref: env:X}", "f.yaml:6: auth.bearer: the field is there twice"},
	{"two kinds", "auth: {bearer: {secret_ref: env:X}, basic: {username: u, secret_ref: env:X}}", "f.yaml:4: auth: bearer, basic and oauth2 exclude each other"},
	{"reference as secret", "auth: {bearer: {secret: env:X}}", "f.yaml:4: auth.bearer.secret: a reference belongs under secret_ref"},
	{"secret as reference", "auth: {bearer: {secret_ref: " + canary + "}}", "f.yaml:4: auth.bearer.secret_ref: not a reference (write env:NAME or file:/path)"},
	{"bad variable", `auth: {bearer: {secret_ref: "env:A B"}}`, "auth.bearer.secret_ref: env: is followed by the name of a variable"},
	{"own variable", "auth: {bearer: {secret_ref: env:HOOKLINE_CLICKHOUSE_PASSWORD}}", "auth.bearer.secret_ref: hookline's own variables are not sent to endpoints"},
	{"relative file", "auth: {bearer: {secret_ref: file:x}}", "auth.bearer.secret_ref: file: is followed by an absolute path"},
	{"dots", "auth: {bearer: {secret_ref: file:/run/../x}}", "file: is followed by an absolute path"},
	{"empty", `auth: {bearer: {secret: ""}}`, "auth.bearer.secret: empty secret"},
	{"list", "auth: {bearer: {secret: [" + canary + "]}}", "auth.bearer.secret: want text, got a list (put it in quotes)"},
	{"sealed by hand", "auth: {bearer: {secret: 'sealed:v1:k1:" + canary + "'}}", "auth.bearer.secret: sealed secrets are made by hookline alone"},
	{"as shown", "auth: {bearer: {secret: '[sealed with key k1]'}}", "auth.bearer.secret: that is how hookline shows a secret"},
	{"token with spaces", "auth: {bearer: {secret: '" + canary + " x'}}", "auth.bearer: a token is visible ASCII without spaces"},
	{"token with newline", "auth: {bearer: {secret: \"" + canary + "\\r\\nX: 1\"}}", "auth.bearer: a token is visible ASCII without spaces"},
	{"too long", "auth: {bearer: {secret: " + strings.Repeat("x", secret.MaxBytes+1) + "}}", "the secret has more than 16384 bytes"},
	{"user with colon", "auth: {basic: {username: 'a:b', secret: " + canary + "}}", "auth.basic.username: it is 1 to 256 bytes without colons"},
	{"no user", "auth: {basic: {secret: " + canary + "}}", "auth.basic.username: it is 1 to 256 bytes"},
	{"no token url", "auth: {oauth2: {client_id: a, secret_ref: env:X}}", "auth.oauth2.token_url: missing"},
	{"token url inside", "auth: {oauth2: {client_id: a, secret_ref: env:X, token_url: 'https://127.0.0.1/'}}", "auth.oauth2.token_url: "},
	{"token url without TLS", "auth: {oauth2: {client_id: a, secret_ref: env:X, token_url: 'http://a.example.com/'}}", "auth.oauth2.token_url: "},
	{"no client", "auth: {oauth2: {secret_ref: env:X, token_url: 'https://a.example.com/'}}", "auth.oauth2.client_id: it is 1 to 256 bytes"},
	{"scopes in one", "auth: {oauth2: {client_id: a, secret_ref: env:X, token_url: 'https://a.example.com/', scopes: ['a b']}}", "auth.oauth2.scopes: a scope is visible ASCII"},
	{"scopes as text", "auth: {oauth2: {client_id: a, secret_ref: env:X, token_url: 'https://a.example.com/', scopes: a}}", "auth.oauth2.scopes: want a list of text, got text"},
	{"no certificate", "auth:\n  mtls: {key_ref: file:/k}", "f.yaml:5: auth.mtls.cert: missing"},
	{"no key", "auth:\n  mtls: {cert_ref: file:/c}", "f.yaml:5: auth.mtls.key: the secret is missing"},
	{"not PEM", "auth: {mtls: {cert: x, key_ref: file:/k}}", "auth.mtls.cert: it has no certificate in PEM"},
	{"no authority", "tls: {}", "tls.ca: missing"},
	{"unknown in tls", "tls: {verify: false}", "tls: unknown field (known: ca, ca_ref)"},
}

func signingOf(secrets string) string { return "signing:\n  secrets:\n" + secrets }

var refusedSigning = []refused{
	{"no secrets", "signing: {scheme: standard-webhooks}", "f.yaml:4: signing.secrets: no secrets (write a list, newest first)"},
	{"secrets as text", "signing: {secrets: " + goodHMAC + "}", "signing.secrets: want a list, got text"},
	{"scheme", "signing: {scheme: md5, secrets: [env:X]}", `signing.scheme: "md5" is not known (one of standard-webhooks, hmac-sha256)`},
	{"header of the standard", "signing: {header: X-A, secrets: [env:X]}", "signing.header: only scheme hmac-sha256 has a header of its own"},
	{"reserved header", "signing: {scheme: hmac-sha256, header: Authorization, secrets: [env:X]}", `signing.header: "Authorization" is set by hookline`},
	{"no header name", "signing: {scheme: hmac-sha256, header: 'a b', secrets: [env:X]}", `signing.header: name "a b" is not a header name`},
	{"header twice", "headers: {x-hub-signature-256: a}\nsigning: {scheme: hmac-sha256, secrets: [env:X]}", `headers: "x-hub-signature-256" is the signature's header`},
	{"prefix", signingOf("    - " + canary), "f.yaml:6: signing.secrets.0: wrong prefix (write whsec_"},
	{"second line", signingOf("    - " + goodHMAC + "\n    - " + canary), "f.yaml:7: signing.secrets.1: wrong prefix"},
	{"public key", signingOf("    - whpk_" + canary), "signing.secrets.0: whpk_ is the public key"},
	{"not base64", signingOf("    - whsec_" + canary + "!"), "signing.secrets.0: what follows whsec_ is not base64"},
	{"short", signingOf("    - whsec_AAECAwQFBgc="), "signing.secrets.0: 8 bytes are not within 24 to 64"},
	{"long", signingOf("    - whsec_" + strings.Repeat("AAEC", 22)), "signing.secrets.0: 66 bytes are not within 24 to 64"},
	{"default", signingOf("    - whsec_" + strings.Repeat("AAAA", 8)), "signing.secrets.0: it is one byte over and over"},
	{"ed25519 length", signingOf("    - whsk_" + strings.Repeat("AAEC", 8)), "signing.secrets.0: an ed25519 key has 32 bytes, or 64 with its public half, not 24"},
	{"ed25519 halves", signingOf("    - whsk_" + strings.Repeat("AAEC", 21) + "AA=="), "signing.secrets.0: the public half of the ed25519 key is not that of its private half"},
	{"hub short", "signing: {scheme: hmac-sha256, secrets: [short]}", "signing.secrets.0: 5 bytes are not within 24 to 256"},
	{"the same twice", signingOf("    - " + goodHMAC + "\n    - " + goodHMAC), "f.yaml:7: signing.secrets.1: the secret is there twice"},
	{"the same reference twice", "signing: {secrets: [env:X, env:X]}", "signing.secrets.1: the secret is there twice"},
	{"newest expires", signingOf("    - {secret: " + goodHMAC + ", expires: 2030-01-01T00:00:00Z}"), "signing.secrets.0: the newest secret must not expire"},
	{"time", signingOf("    - env:X\n    - {secret_ref: env:Y, expires: tomorrow}"), "f.yaml:7: signing.secrets.1.expires: not a time (write 2026-01-31T12:00:00Z)"},
	{"too many", "signing: {secrets: [env:A, env:B, env:C, env:D, env:E, env:F, env:G, env:H, env:I, env:J, env:K, env:L]}", "12 secrets are over the limit of one and 10 old ones"},
}

func TestCredentialsRefused(t *testing.T) {
	cert, key := pair(t)
	other, _ := pair(t)
	indent := func(s string) string { return "    " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n    ") }
	refusedPEM := []refused{
		{"another's key", "auth:\n  mtls:\n   cert: |\n" + indent(other) + "\n   key: |\n" + indent(key), "auth.mtls.key: it is not the private key, in PEM, of the certificate"},
		{"key as certificate", "tls:\n  ca: |\n" + indent(key), "f.yaml:5: tls.ca: it has a private key in it"},
		{"key within certificates", "tls:\n  ca: |\n" + indent(cert+key), "tls.ca: it has a private key in it"},
	}
	for _, tt := range slices.Concat(refusedAuth, refusedSigning, refusedPEM) {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ParseDocuments("f.yaml", []byte(withCredentials(tt.src)), sealingPolicy(t, keyOne))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v\nwant %s", err, tt.want)
			}
			for _, hidden := range []string{canary, goodHMAC, "PRIVATE"} {
				if strings.Contains(err.Error(), hidden) {
					t.Errorf("the error shows a secret: %v", err)
				}
			}
		})
	}
}

func TestInlineSecretsNeedKeys(t *testing.T) {
	_, err := ParseDocuments("f.yaml", []byte(withCredentials("auth:\n  bearer:\n    secret: "+canary)), testPolicy())
	want := "f.yaml:5: auth.bearer: an inline secret cannot be sealed: HOOKLINE_SECRET_KEYS is not set (use a reference, env:NAME or file:/path, or set HOOKLINE_SECRET_KEYS to id:base64 of 32 random bytes)"
	if err == nil || err.Error() != want {
		t.Fatalf("got %v\nwant %s", err, want)
	}
}

func TestCredentialsParsed(t *testing.T) {
	cert, _ := pair(t)
	src := withCredentials(`signing:
  scheme: hmac-sha256
  secrets: [env:NEW, {secret_ref: "file:/run/old", expires: 2030-01-01T01:00:00+01:00}]
auth:
  oauth2: {token_url: "https://id.example.com/token", client_id: hookline, secret_ref: env:ID, scopes: [a, b], audience: erp}
  mtls: {cert_ref: "file:/c", key_ref: "file:/k"}
tls: {ca: "` + strings.ReplaceAll(cert, "\n", `\n`) + `"}
`)
	docs, err := ParseDocuments("f.yaml", []byte(src), testPolicy()) // references need no keys
	if err != nil {
		t.Fatal(err)
	}
	got := docs[0].Subscription(1, testPolicy())
	want := &pipeline.Signing{
		Scheme: pipeline.SigningHub, Header: pipeline.DefaultHubHeader,
		Secrets: []pipeline.SigningSecret{{Secret: "env:NEW"}, {Secret: "file:/run/old", ExpiresAt: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}},
	}
	if fmt.Sprint(*got.Signing) != fmt.Sprint(*want) {
		t.Errorf("signing %v, want %v", *got.Signing, *want)
	}
	if o := got.Auth.OAuth2; o == nil || o.Secret != "env:ID" || fmt.Sprint(o.Scopes) != "[a b]" || o.Audience != "erp" || o.ClientID != "hookline" {
		t.Errorf("oauth2 %+v", o)
	}
	if m := got.Auth.MTLS; m == nil || m.Cert != "file:/c" || m.Key != "file:/k" || got.CA != cert {
		t.Errorf("mtls %+v, CA %q", m, got.CA)
	}
}
