// Command include puts the examples into the pages of docs that show them. Run
// by go generate in the folder above.
package main

import (
	"bytes"
	"io/fs"
	"log"
	"os"
	"path/filepath"

	"github.com/hookline/hookline/internal/doctest"
)

const root = "../.."

func main() {
	read := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(root, name)) }
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".md" {
			return err
		}
		page, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		with, err := doctest.Include(page, read)
		if err != nil || bytes.Equal(page, with) {
			return err
		}
		return os.WriteFile(name, with, 0o644)
	})
	if err != nil {
		log.Fatal(err)
	}
}
