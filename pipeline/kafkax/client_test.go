package kafkax_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/pipeline/kafkax"
)

// certificate gives a self-signed one for 127.0.0.1 and the file it is in.
func certificate(t *testing.T) (*tls.Config, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kafka"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}, MinVersion: tls.VersionTLS12}, file
}

func TestTLSAndSASL(t *testing.T) {
	serve, ca := certificate(t)
	_, otherCA := certificate(t)
	const password = "correct-horse"
	c := testkit.KFake(t, kfake.TLS(serve), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", password),
		kfake.Superuser("SCRAM-SHA-256", "u", password), kfake.Superuser("SCRAM-SHA-512", "u", password))
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		sasl kafkax.SASLConfig
		ca   string
		want string // part of the error; empty: it works
	}{
		"plain":          {sasl: kafkax.SASLConfig{Mechanism: "plain", User: "u", Password: password}, ca: ca},
		"scram 256 file": {sasl: kafkax.SASLConfig{Mechanism: "scram-sha-256", User: "u", PasswordFile: file}, ca: ca},
		"scram 512":      {sasl: kafkax.SASLConfig{Mechanism: "scram-sha-512", User: "u", Password: password}, ca: ca},
		"wrong password": {sasl: kafkax.SASLConfig{Mechanism: "plain", User: "u", Password: "battery-staple"}, ca: ca, want: "EOF"}, // kfake hangs up; Kafka says SASL_AUTHENTICATION_FAILED
		"wrong CA":       {sasl: kafkax.SASLConfig{Mechanism: "plain", User: "u", Password: password}, ca: otherCA, want: "x509"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := kafkax.DefaultConfig()
			cfg.Brokers, cfg.SASL, cfg.TLS = c.ListenAddrs(), tc.sasl, kafkax.TLSConfig{Enabled: true, CAFile: tc.ca}
			if err := cfg.Validate(); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			opts, err := cfg.ClientOpts(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
			if err != nil {
				t.Fatal(err)
			}
			cl, err := kgo.NewClient(opts...)
			if err != nil {
				t.Fatal(err)
			}
			err = cl.Ping(within(t))
			cl.Close()
			if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if out := log.String(); strings.Contains(out, password) || strings.Contains(out, "battery-staple") {
				t.Errorf("the log has the password:\n%s", out)
			}
		})
	}
}

func TestFilesThatAreMissing(t *testing.T) {
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*kafkax.Config){
		"KAFKA_TLS_CA_FILE": func(c *kafkax.Config) { c.TLS = kafkax.TLSConfig{Enabled: true, CAFile: "/nowhere/ca.pem"} },
		"no PEM":            func(c *kafkax.Config) { c.TLS = kafkax.TLSConfig{Enabled: true, CAFile: empty} },
		"KAFKA_TLS_CERT_FILE": func(c *kafkax.Config) {
			c.TLS = kafkax.TLSConfig{Enabled: true, CertFile: "/nowhere/c.pem", KeyFile: "/nowhere/k.pem"}
		},
		"KAFKA_SASL_PASSWORD_FILE": func(c *kafkax.Config) {
			c.SASL = kafkax.SASLConfig{Mechanism: "plain", User: "u", PasswordFile: "/nowhere/p"}
		},
		"is empty": func(c *kafkax.Config) {
			c.SASL = kafkax.SASLConfig{Mechanism: "plain", User: "u", PasswordFile: empty}
		},
	} {
		cfg := kafkax.DefaultConfig()
		change(&cfg)
		if _, err := cfg.ClientOpts(nil); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want %q named", err, name)
		}
	}
}
