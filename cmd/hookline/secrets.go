package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/hookline/hookline/configs"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/secret"
)

// defaultOverlap is how long a rotated secret goes on signing.
const defaultOverlap = "24h"

// freshSecret says where a new signing secret comes from.
type freshSecret struct {
	ref, from, out string
	ed25519        bool
}

func (c *cli) subsRotateSecret() *cobra.Command {
	var (
		src     freshSecret
		overlap string
		asJSON  bool
	)
	cmd := &cobra.Command{
		Use:   "rotate-secret ID [--overlap 24h]",
		Short: "Put a new signing secret in front; the old one goes on signing until the overlap ends",
		Long: "Puts a new signing secret in front. The old ones go on signing beside it until the overlap ends.\n\n" +
			"Without --ref and --from a secret is made. It is written to a file that only you can read, never\n" +
			"printed: give it to the receiver, then delete the file.",
		Args: exactly("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := configs.ParseDuration(overlap)
			if err != nil || d < 0 || d > registry.MaxOverlap {
				return usagef("reading options: hookline subs rotate-secret: --overlap: %q is not within 0s to 7d (write 24h)", overlap)
			}
			fresh, err := c.newSecret(&src, args[0])
			if err != nil {
				return err
			}
			w, err := c.writer(cmd.Context())
			var change registry.Change
			if err == nil {
				change, err = w.RotateSecret(cmd.Context(), args[0], fresh.value, d)
			}
			if err != nil {
				return errors.Join(err, fresh.undo())
			}
			return c.printRotated(change, fresh, d, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&overlap, "overlap", defaultOverlap, "how long the old secrets go on signing, 0s to 7d")
	f.StringVar(&src.ref, "ref", "", "refer to the new secret: env:NAME or file:/path, read by the processes that send")
	f.StringVar(&src.from, "from", "", "file with the new secret, - for standard input; it is sealed")
	f.StringVar(&src.out, "out", "", "file for the secret that is made (default: ID.secret)")
	f.BoolVar(&src.ed25519, "ed25519", false, "make an ed25519 pair and print its public key, which is the receiver's")
	f.BoolVar(&asJSON, "json", false, "print JSON")
	cmd.MarkFlagsMutuallyExclusive("ref", "from", "out", "ed25519")
	return cmd
}

// rotation is a new secret and what was done to make it.
type rotation struct {
	value  secret.Value
	file   string // written; empty: none
	public string // of ed25519
}

func (r *rotation) undo() error {
	if r.file == "" {
		return nil
	}
	return os.Remove(r.file)
}

func (c *cli) newSecret(src *freshSecret, id string) (*rotation, error) {
	if src.ref != "" {
		v, err := secret.Ref(src.ref)
		if err != nil {
			return nil, usagef("reading options: hookline subs rotate-secret: --ref: %s", err)
		}
		return &rotation{value: v}, nil
	}
	cfg, err := c.config()
	if err != nil {
		return nil, err
	}
	if cfg.Secrets.Keys.IsZero() {
		return nil, usagef("sealing the new secret: %s (set it to id:base64 of 32 random bytes, or refer to the secret by --ref)", secret.ErrNoKeys)
	}
	switch {
	case !registry.ValidID(id):
		return nil, usagef("reading arguments: %.140q is not an id", id)
	case src.from != "":
		b, err := c.readFile("the new secret", src.from)
		if err != nil {
			return nil, err
		}
		return &rotation{value: secret.Plain(strings.TrimSpace(string(b)))}, nil
	case src.ed25519:
		private, public, err := secret.NewEd25519Key()
		return &rotation{value: secret.Plain(private.Reveal()), public: public}, err
	}
	if src.out == "" {
		src.out = id + ".secret"
	}
	made, err := secret.NewHMACKey()
	if err == nil {
		// Before it is in force: a secret that nobody has would fail every request.
		err = writeSecret(src.out, made)
	}
	if err != nil {
		return nil, err
	}
	return &rotation{value: secret.Plain(made.Reveal()), file: src.out}, nil
}

// writeSecret makes a file that only its owner can read; it replaces none.
func writeSecret(path string, s secret.Secret) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("writing the new secret: %w (name another file by --out)", err)
	}
	_, err = f.WriteString(s.Reveal() + "\n")
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing the new secret: %w", err)
	}
	return nil
}

func (c *cli) printRotated(change registry.Change, fresh *rotation, overlap time.Duration, asJSON bool) error {
	if asJSON {
		return writeJSON(c.out, struct {
			registry.Change
			File      string `json:"file,omitempty"`
			PublicKey string `json:"public_key,omitempty"`
			Overlap   string `json:"overlap"`
		}{change, fresh.file, fresh.public, overlap.String()})
	}
	if _, err := fmt.Fprintf(c.out, "%s %s; the old secrets sign for another %s\n", safe(change.ID), change.Action, overlap); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c.out, "a file that you apply must have the new secret too (or a reference to it): the next subs apply would take it back"); err != nil {
		return err
	}
	var err error
	switch {
	case fresh.file != "":
		_, err = fmt.Fprintf(c.out, "the new secret is in %s: give it to the receiver, then delete the file\n", safe(fresh.file))
	case fresh.public != "":
		_, err = fmt.Fprintf(c.out, "public key for the receiver: %s\n", fresh.public)
	}
	return err
}

func (c *cli) subsRotateKeys() *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{
		Use:   "rotate-keys",
		Short: "Seal the subscriptions' secrets anew with the first of HOOKLINE_SECRET_KEYS",
		Args:  exactly(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := c.writer(cmd.Context())
			if err != nil {
				return err
			}
			changes, err := w.RotateKeys(cmd.Context())
			if changes == nil && err != nil {
				return err
			}
			return errors.Join(c.printChanges(changes, asJSON), err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
