package e2e

import (
	"flag"
	"os"
	"strconv"
	"testing"

	"go.uber.org/goleak"

	"github.com/hookline/hookline/internal/testkit"
)

// What the tests share.
var (
	hookline = &builder{race: raceEnabled}
	// plain is what users run: the full load would take three times as long
	// under the race detector.
	plain = &builder{}
	// failing has failpoints.
	failing = &builder{tags: "failpoint"}
	shared  = testkit.SharedKafka{Brokers: 1}
)

// atOnce is how many tests run at once: most of their time they wait for delays
// and sessions.
const atOnce = 4

// full makes the tests as long as their names promise; else they are as short
// as two busy cores want.
func full() bool { return os.Getenv("HOOKLINE_E2E_FULL") == "1" }

func TestMain(m *testing.M) {
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", strconv.Itoa(atOnce)); err != nil {
			panic(err)
		}
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		shared.Close()
		hookline.close()
		plain.close()
		failing.close()
		os.Exit(code)
	}))
}
