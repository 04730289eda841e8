package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/internal/app/admin"
)

// healthTimeout is below the time limits of the usual probes.
const healthTimeout = 3 * time.Second

func (c *cli) healthCmd() *cobra.Command {
	alive := false
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the process at ADMIN_ADDR whether it is ready; for probes where there is no shell",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.config()
			if err != nil {
				return err
			}
			if cfg.Admin.Addr == admin.Off {
				return usage(errors.New("asking for health: ADMIN_ADDR is off: there is nothing to ask"))
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), healthTimeout)
			defer cancel()
			path := "/readyz"
			if alive {
				path = "/healthz"
			}
			client, scheme, err := healthClient(cfg.Admin.TLS.CertFile)
			if err == nil {
				err = askHealth(ctx, client, scheme+localAddr(cfg.Admin.Addr)+path)
			}
			if errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("asking for health: %s: connection refused (does hookline run there? set HOOKLINE_ADMIN_ADDR as it has it)", cfg.Admin.Addr)
			}
			if err != nil {
				return fmt.Errorf("asking for health: %s: %w", cfg.Admin.Addr, err)
			}
			fmt.Fprintln(c.out, "ok")
			return nil
		},
	}
	cmd.Flags().BoolVar(&alive, "alive", false, "only whether it answers at all (/healthz)")
	return cmd
}

// localAddr is where a process that listens on addr is reached from this host.
func localAddr(addr string) string {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return addr
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

// healthClient asks over TLS where the process beside us has a certificate. It
// must show that one: its names are those by which others reach it, not ours.
func healthClient(certFile string) (client *http.Client, scheme string, err error) {
	if certFile == "" {
		return http.DefaultClient, "http://", nil
	}
	text, err := os.ReadFile(certFile)
	if err != nil {
		return nil, "", fmt.Errorf("reading HOOKLINE_ADMIN_TLS_CERT_FILE: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, "", errors.New("reading HOOKLINE_ADMIN_TLS_CERT_FILE: it has no PEM certificate")
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, InsecureSkipVerify: true, // instead of the chain, the very certificate is compared
		VerifyConnection: func(cs tls.ConnectionState) error {
			if !bytes.Equal(cs.PeerCertificates[0].Raw, block.Bytes) {
				return errors.New("it shows another certificate than HOOKLINE_ADMIN_TLS_CERT_FILE has")
			}
			return nil
		},
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}}, "https://", nil
}

// askHealth is nil where the answer is yes, and names the parts that are not
// ready where it is no.
func askHealth(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return errors.Unwrap(err) // without the URL a second time
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var r admin.Readiness
	if err := json.NewDecoder(resp.Body).Decode(&r); err != nil || len(r.Parts) == 0 {
		return fmt.Errorf("it answered %s", resp.Status)
	}
	var waits []string
	for _, p := range r.Parts {
		if !p.Ready {
			waits = append(waits, strings.TrimSuffix(p.Name+": "+p.Detail, ": "))
		}
	}
	return errors.New("not ready: " + strings.Join(waits, "; "))
}
