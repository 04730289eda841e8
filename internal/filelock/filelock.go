// Package filelock keeps a second process off a data directory. The lock is the
// kernel's and ends with the process, so none is ever left behind.
package filelock

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Lock is a directory that is this process's.
type Lock struct{ file *os.File }

// Acquire takes the directory root, which must exist, by a lock on the file name
// in it. The error names the process that has it.
func Acquire(root, name string) (*Lock, error) {
	path := filepath.Join(root, name)
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the data directory: %w (choose another --data)", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer func() { _ = file.Close() }()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("locking %s: %w", path, err)
		}
		holder, _ := os.ReadFile(path)
		return nil, fmt.Errorf("locking %s: in use by process %s (stop it, or choose another --data)", root, first(strings.TrimSpace(string(holder)), "unknown"))
	}
	if err := writePID(file); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("writing %s: %w", path, err)
	}
	return &Lock{file: file}, nil
}

func writePID(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return err
	}
	_, err := file.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Release lets the directory go. The file stays: removing it would race with the
// next process's lock on it.
func (l *Lock) Release() { _ = l.file.Close() }

func first(value, otherwise string) string {
	if value != "" {
		return value
	}
	return otherwise
}
