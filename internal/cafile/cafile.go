// Package cafile reads files with certificates that are to be trusted.
package cafile

import (
	"crypto/x509"
	"fmt"
	"os"
)

// Read gives the PEM certificates of a file. An error names the environment variable
// that names the file.
func Read(variable, file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", variable, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("reading %s: %s has no PEM certificate", variable, file)
	}
	return pool, nil
}
