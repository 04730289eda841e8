package embedded

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/semver"
)

// LibraryEnv names the environment variable with the path of the engine's library.
const LibraryEnv = "HOOKLINE_ENGINE_LIB"

// ErrNoLibrary is returned by FindLibrary when there is no library to be had.
var ErrNoLibrary = errors.New("libchdb.so not found")

// ErrNoBinary is returned by Start when hookline-engine is not to be found.
var ErrNoBinary = errors.New("it is neither beside this program nor in PATH")

const libraryFile = "libchdb.so"

// FindLibrary returns the path of the engine's library: explicit if not empty,
// else HOOKLINE_ENGINE_LIB, else the newest version that "make setup" has put
// into the user's cache, else libchdb.so beside the running program.
func FindLibrary(explicit string) (string, error) {
	for _, named := range []struct{ where, path string }{{"--lib", explicit}, {LibraryEnv, os.Getenv(LibraryEnv)}} {
		if named.path == "" {
			continue
		}
		if !isFile(named.path) {
			return "", fmt.Errorf("finding the ClickHouse engine: %s: %s: %w (give the path of libchdb.so, or run 'make setup' and leave %s out)",
				named.where, named.path, ErrNoLibrary, named.where)
		}
		return named.path, nil
	}
	cache := cacheDir()
	if path := newestCached(cache); path != "" {
		return path, nil
	}
	if self, err := os.Executable(); err == nil {
		if path := filepath.Join(filepath.Dir(self), libraryFile); isFile(path) {
			return path, nil
		}
	}
	return "", fmt.Errorf("finding the ClickHouse engine: %s: %w (run 'make setup' to bring it, or set %s)",
		filepath.Join(cache, "chdb-*"), ErrNoLibrary, LibraryEnv)
}

// cacheDir is where scripts/engine-lib.sh keeps the versions.
func cacheDir() string {
	base := os.Getenv("XDG_CACHE_HOME")
	if base == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = string(filepath.Separator)
		}
		base = filepath.Join(home, ".cache")
	}
	return filepath.Join(base, "hookline")
}

// newestCached goes by version, not by date: an older engine may not be able to
// read what a newer one wrote.
func newestCached(cache string) string {
	dirs, _ := filepath.Glob(filepath.Join(cache, "chdb-*"))
	newest, path := "", ""
	for _, dir := range dirs {
		version := "v" + strings.TrimPrefix(filepath.Base(dir), "chdb-")
		candidate := filepath.Join(dir, libraryFile)
		if isFile(candidate) && (path == "" || semver.Compare(version, newest) > 0) {
			newest, path = version, candidate
		}
	}
	return path
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Size() > 0
}
