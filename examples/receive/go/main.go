// Command receive takes webhooks from hookline: it verifies the signature, keeps
// each delivery once in the folder inbox, and answers. What is to be done about
// a delivery is done later, by whoever empties the inbox.
//
//	ADDR=127.0.0.1:9000 WEBHOOK_SECRET=whsec_... go run .
package main

import (
	"errors"
	"io"
	"io/fs"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
)

// verifier tells whether the body and its headers are from who knows the secret,
// and not older than five minutes.
type verifier interface {
	Verify(body []byte, headers http.Header) error
}

func main() {
	var v verifier
	var err error
	if secret := os.Getenv("WEBHOOK_SECRET"); strings.HasPrefix(secret, "whpk_") {
		v, err = newEd25519(secret) // a public key: see ed25519.go
	} else {
		v, err = standardwebhooks.NewWebhook(secret)
	}
	if err != nil {
		log.Fatal(err)
	}
	if err := os.MkdirAll("inbox", 0o700); err != nil {
		log.Fatal(err)
	}
	http.HandleFunc("POST /hooks", func(w http.ResponseWriter, r *http.Request) { receive(w, r, v) })
	log.Fatal(http.ListenAndServe(os.Getenv("ADDR"), nil))
}

func receive(w http.ResponseWriter, r *http.Request, v verifier) {
	// The bytes as they came: a body that was parsed and written anew has another signature.
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 2<<20))
	if err != nil {
		http.Error(w, "cannot read the body", http.StatusBadRequest)
		return
	}
	if err := v.Verify(body, r.Header); err != nil {
		http.Error(w, "wrong signature", http.StatusUnauthorized)
		return
	}
	// The same on every attempt of a delivery: what is there already was processed, or will be.
	err = keep(filepath.Join("inbox", r.Header.Get("webhook-id")), body)
	switch {
	case errors.Is(err, fs.ErrExist), err == nil:
		w.WriteHeader(http.StatusNoContent) // only now, when it is safe: hookline will not send it again
	default:
		log.Print(err)
		http.Error(w, "cannot keep it", http.StatusServiceUnavailable) // hookline sends it again in 30 s
	}
}

// keep writes the file whole or not at all, and only once: fs.ErrExist where it
// is there. A database does the same with webhook-id as the primary key.
func keep(name string, body []byte) error {
	f, err := os.CreateTemp(".", "receiving-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Link(f.Name(), name)
}
