package testkit

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Certificate is a certificate and its key, in memory and as PEM files.
type Certificate struct {
	TLS      tls.Certificate
	CertFile string
	KeyFile  string
	// BothFile has the key and the certificate, as Kafka wants them.
	BothFile string
}

// Authority issues certificates; it lives for one test.
type Authority struct {
	Pool *x509.CertPool
	File string // its own certificate, PEM

	leaf *x509.Certificate
	key  crypto.Signer
}

// NewAuthority makes one of its own.
func NewAuthority(tb testing.TB) *Authority {
	tb.Helper()
	a := &Authority{Pool: x509.NewCertPool()}
	c := a.issue(tb, &x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	a.leaf, a.key, a.File = c.TLS.Leaf, c.TLS.PrivateKey.(crypto.Signer), c.CertFile
	a.Pool.AddCert(a.leaf)
	return a
}

// Issue makes a certificate for 127.0.0.1 and localhost, good for an hour, for
// servers and clients. change may alter it; nil: nothing.
func (a *Authority) Issue(tb testing.TB, change func(*x509.Certificate)) *Certificate {
	tb.Helper()
	tmpl := &x509.Certificate{
		Subject: pkix.Name{CommonName: "test"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if change != nil {
		change(tmpl)
	}
	return a.issue(tb, tmpl)
}

func (a *Authority) issue(tb testing.TB, tmpl *x509.Certificate) *Certificate {
	tb.Helper()
	must := func(err error) {
		if err != nil {
			tb.Helper()
			tb.Fatal(err)
		}
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	tmpl.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(err)
	if tmpl.NotBefore.IsZero() {
		tmpl.NotBefore = time.Now().Add(-time.Hour)
	}
	if tmpl.NotAfter.IsZero() {
		tmpl.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.leaf, a.key
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, signer)
	must(err)
	leaf, err := x509.ParseCertificate(der)
	must(err)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	must(err)
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	dir := tb.TempDir()
	c := &Certificate{
		TLS:      tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf},
		CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem"), BothFile: filepath.Join(dir, "both.pem"),
	}
	must(os.WriteFile(c.CertFile, certPEM, 0o600))
	must(os.WriteFile(c.KeyFile, keyPEM, 0o600))
	must(os.WriteFile(c.BothFile, append(keyPEM, certPEM...), 0o600))
	return c
}
