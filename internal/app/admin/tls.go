package admin

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/hookline/hookline/internal/cafile"
)

// TLSConfig has the admin address speak TLS. The files are read at the start.
type TLSConfig struct {
	// CertFile has the certificate, PEM; ADMIN_TLS_KEY_FILE has its key, both or none. With them the admin address speaks TLS (1.2 or later).
	CertFile string `env:"CERT_FILE"`
	// KeyFile has the key of ADMIN_TLS_CERT_FILE, PEM.
	KeyFile string `env:"KEY_FILE"`
	// ClientCAFile has the PEM certificates of the authorities whose client certificates are let in, to all but /healthz and /readyz, which stay open to probes. Beside ADMIN_TOKEN both are asked for.
	ClientCAFile string `env:"CLIENT_CA_FILE"`
}

func (t *TLSConfig) validate() error {
	switch {
	case (t.CertFile == "") != (t.KeyFile == ""):
		return errors.New("HOOKLINE_ADMIN_TLS_CERT_FILE: a certificate needs its key (set both CERT_FILE and KEY_FILE)")
	case t.ClientCAFile != "" && t.CertFile == "":
		return errors.New("HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE: client certificates need TLS (set HOOKLINE_ADMIN_TLS_CERT_FILE and KEY_FILE)")
	}
	return nil
}

// CheckFiles reads the files that the configuration names, as the start does, and
// tells everything that is wrong with them.
func (c *Config) CheckFiles() error {
	if c.Addr == Off {
		return nil
	}
	_, err := c.TLS.load()
	return err
}

// load reads the files; nil: no TLS.
func (t *TLSConfig) load() (*tls.Config, error) {
	if t.CertFile == "" {
		return nil, nil
	}
	var errs []error
	cert, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
	if err != nil {
		errs = append(errs, fmt.Errorf("loading HOOKLINE_ADMIN_TLS_CERT_FILE: with its key: %w", err))
	}
	out := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}}
	if t.ClientCAFile != "" {
		out.ClientCAs, err = cafile.Read("HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE", t.ClientCAFile)
		errs = append(errs, err)
		// Probes have no certificate; what needs one asks for it (guarded).
		out.ClientAuth = tls.VerifyClientCertIfGiven
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}
