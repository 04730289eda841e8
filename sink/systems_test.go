package sink

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

var (
	docBlock = regexp.MustCompile("(?s)```(json|sql)\n(.*?)```")
	docSub   = regexp.MustCompile(`- id: (\S+)`)
)

// TestEngineSystemDocs: the pages of the four systems. Their sample events are
// accepted, and with them delivered each of their queries gives rows.
func TestEngineSystemDocs(t *testing.T) {
	l := newViewLog(t)
	l.clock = time.Now().Add(-time.Hour).Truncate(time.Microsecond)
	bad := result{outcome: pipeline.OutcomeResponseError, status: 500, err: "status 500"}
	away := result{outcome: pipeline.OutcomeConnectError, err: "connect ECONNREFUSED 192.0.2.1:443"}
	ok := result{outcome: pipeline.OutcomeSuccess, status: 200, change: func(a *pipeline.Attempt) { a.AckID = "201" }}
	gone := result{outcome: pipeline.OutcomeGone, status: 410, err: "status 410"}
	for _, page := range []string{"cotalker", "goflow", "signl4", "task"} {
		text, err := os.ReadFile("../docs/" + page + ".md")
		if err != nil {
			t.Fatal(err)
		}
		sub := docSub.FindStringSubmatch(string(text))[1]
		events, queries := 0, 0
		for _, m := range docBlock.FindAllStringSubmatch(string(text), -1) {
			if m[1] == "json" {
				ev := l.event(m[2], true)
				if string(ev.Format) != page {
					t.Errorf("%s: a sample is of format %s", page, ev.Format)
				}
				l.deliver(ev, sub, bad, ok)
				l.deliver(ev, sub+"-2", away, away, bad, bad)
				l.deliver(ev, sub+"-3", gone)
				events++
				continue
			}
			for sql := range strings.SplitSeq(m[2], ";\n") {
				if strings.TrimSpace(sql) == "" {
					continue
				}
				queries++
				if ask(t, l.r, sql) == "" {
					t.Errorf("%s: no rows for %s", page, sql)
				}
			}
		}
		if events == 0 || queries < 3 {
			t.Errorf("%s: %d samples, %d queries", page, events, queries)
		}
	}
}
