package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"
)

// Resolver turns values into secrets, in the process that uses them.
type Resolver struct {
	// Keys open what is sealed; may be nil.
	Keys *Keyring
	// Getenv reads variables; os.LookupEnv by default.
	Getenv func(string) (string, bool)
}

// Stamp tells whether a file that a secret came from has changed since. The
// zero Stamp is of a secret that does not change.
type Stamp struct {
	path  string
	mtime time.Time
	size  int64
	inode uint64
}

// Changed looks at the file again. A file that is gone has changed.
func (s Stamp) Changed() bool {
	if s.path == "" {
		return false
	}
	info, err := os.Stat(s.path)
	return err != nil || stampOf(s.path, info) != s
}

// IsZero tells whether there is nothing to look at.
func (s Stamp) IsZero() bool { return s.path == "" }

func stampOf(path string, info fs.FileInfo) Stamp {
	s := Stamp{path: path, mtime: info.ModTime(), size: info.Size()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// Resolve gives the secret that a stored value stands for. Errors name the
// variable, the path or the key, and what to do; never the secret.
func (r *Resolver) Resolve(subscription, stored string) (Secret, Stamp, error) {
	switch {
	case strings.HasPrefix(stored, envPrefix):
		s, err := r.variable(strings.TrimPrefix(stored, envPrefix))
		return s, Stamp{}, err
	case strings.HasPrefix(stored, filePrefix):
		return readFile(strings.TrimPrefix(stored, filePrefix))
	case IsSealed(stored):
		s, err := r.Keys.Open(subscription, Value{stored: stored})
		return s, Stamp{}, err
	}
	return Secret{}, Stamp{}, ErrPlain
}

func (r *Resolver) variable(name string) (Secret, error) {
	lookup := r.Getenv
	if lookup == nil {
		lookup = os.LookupEnv
	}
	switch text, ok := lookup(name); {
	case !ok:
		return Secret{}, fmt.Errorf("variable %s is not set (set it for the process that sends)", name)
	case text == "":
		return Secret{}, fmt.Errorf("variable %s is empty", name)
	case len(text) > MaxBytes:
		return Secret{}, fmt.Errorf("variable %s has more than %d bytes", name, MaxBytes)
	default:
		return New(text), nil
	}
}

// readFile reads a secret's file, of which line ends at the end do not count.
func readFile(path string) (Secret, Stamp, error) {
	// Without O_NONBLOCK opening a FIFO would wait for a writer.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return Secret{}, Stamp{}, fmt.Errorf("opening the secret's file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Secret{}, Stamp{}, fmt.Errorf("looking at the secret's file: %w", err)
	}
	switch {
	case !info.Mode().IsRegular():
		return Secret{}, Stamp{}, fmt.Errorf("file %s is not a regular file", path)
	case info.Mode().Perm()&0o037 != 0:
		return Secret{}, Stamp{}, fmt.Errorf("file %s has mode %04o: others can read or change it (chmod 600 it)", path, info.Mode().Perm())
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxBytes+1))
	if err != nil {
		return Secret{}, Stamp{}, fmt.Errorf("reading the secret's file: %w", err)
	}
	text := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(b) > MaxBytes:
		return Secret{}, Stamp{}, fmt.Errorf("file %s has more than %d bytes", path, MaxBytes)
	case strings.TrimSpace(text) == "":
		return Secret{}, Stamp{}, fmt.Errorf("file %s is empty", path)
	case strings.ContainsRune(text, 0):
		return Secret{}, Stamp{}, errors.New("file " + path + " has NUL bytes")
	}
	return New(text), stampOf(path, info), nil
}
