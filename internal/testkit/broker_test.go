package testkit_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/hookline/hookline/internal/testkit"
)

func TestFreePortCanBeListenedOn(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(testkit.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestRootHoldsTheScripts(t *testing.T) {
	root, err := testkit.Root()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(root, "scripts", "kafka.sh")); err != nil {
		t.Fatal(err)
	}
}

func TestUniqueNamesAreTopicNames(t *testing.T) {
	t.Run("odd / näme", func(t *testing.T) {
		a, b := testkit.Unique(t, "p"), testkit.Unique(t, "p")
		if a == b {
			t.Fatalf("got %q twice", a)
		}
		if !regexp.MustCompile(`^p-[A-Za-z0-9-]{1,100}$`).MatchString(a) {
			t.Fatalf("%q is no topic name", a)
		}
	})
}
