package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/internal/testkit"
	"github.com/hookline/hookline/internal/testkit/browser"
)

const consoleToken = "console-token-0123456789"

// tags are the words in a page's head.
const tags = `[...document.querySelectorAll('.head .tag')].map((t) => t.textContent)`

// press presses the button with this text.
func press(p *browser.Page, text string) {
	p.Do(fmt.Sprintf(`[...document.querySelectorAll('button')].find((b) => b.textContent === %q).click()`, text))
}

// TestConsoleInABrowser: on a phone somebody finds a delivery by its event's id,
// sees its four attempts, mends the endpoint, presses retry and sees it
// delivered by another process; then delivers it again. The payload, which has a
// script, is text.
func TestConsoleInABrowser(t *testing.T) {
	t.Parallel()
	browser.Program(t) // skips before anything is started
	s := newShop(t, testkit.Engine(t), `,"on_exhausted":"block"`)
	s.vars["EVENTS_TOPICS"] = s.topic + "=json:type=/kind,id=/id"
	s.vars["RETRY_DELAYS"], s.vars["ADMIN_TOKEN"] = "200ms,200ms,200ms", consoleToken
	s.status.Store(503)
	work := s.run("dispatcher")
	console := launch(t, hookline, "console", s.vars, "--roles", "console")
	console.ready()
	payload := `{"kind":"k","n":0,"id":"evt-77","note":"<script>window.pwned = 1</script>"}`
	if err := s.kafka.Client().ProduceSync(t.Context(), &kgo.Record{Topic: s.topic, Value: []byte(payload)}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	s.until("a blocked lane", func() bool { l := s.live().Live; return l != nil && l.Blocked == 1 })
	s.until("the log of four attempts", func() bool { return strings.TrimSpace(s.do("sql", "SELECT count() FROM attempts")) == "count()\n4" })

	p := browser.Open(t, 375, 800)
	p.Go("http://" + console.admin + "/login#" + consoleToken)
	p.Until("the login", "document.querySelector('.who')?.textContent.includes('operator')")
	p.Do(`document.getElementById('q').value = 'evt-77'; document.querySelector('form.find').requestSubmit()`)
	p.Until("the delivery", "location.pathname.startsWith('/deliveries/dlv_') && document.querySelector('#payload')")
	if n := browser.Value[int](p, "document.querySelectorAll('article.attempt').length"); n != 4 {
		t.Errorf("%d attempts are shown", n)
	}
	if got := browser.Value[string](p, tags+"[0]"); got != "waiting" {
		t.Errorf("it is %s", got)
	}
	if shown := browser.Value[string](p, "document.querySelector('#payload').textContent"); shown != payload {
		t.Errorf("the payload is shown as %q", shown)
	}
	if browser.Value[bool](p, "'pwned' in window || document.querySelector('main script') !== null") {
		t.Error("the payload was run")
	}
	if screen, over := p.Overflow(); screen != 375 || over != "" {
		t.Errorf("the screen is %d wide, and over its edge is %s", screen, over)
	}

	s.status.Store(200)
	press(p, "Retry now")
	p.Until("what came of it", "document.querySelector('.note.ok')?.textContent.startsWith('retry: done')")
	p.Until("a fifth attempt, without a reload", "document.querySelectorAll('article.attempt').length === 5 && "+tags+".includes('delivered')")
	if got, _ := s.visits(); len(got) != 1 || got[0].replay != "" {
		t.Errorf("the endpoint took %v", got)
	}

	p.Do("location.reload()")
	p.Until("the other button", `[...document.querySelectorAll('button')].some((b) => b.textContent === 'Replay…')`)
	press(p, "Replay…")
	p.Until("the count", "document.querySelector('#plan h2')?.textContent === '1 event to deliver again'")
	press(p, "Deliver it again")
	p.Until("the replay", "location.pathname.startsWith('/replays/r_') && "+tags+".includes('done')")
	s.until("the delivery again", func() bool { got, _ := s.visits(); return len(got) == 2 && strings.HasPrefix(got[1].replay, "r_") })
	replayByREST(s, console)
	for _, proc := range []*process{work, console} {
		if _, code := proc.terminate(30 * time.Second); code != 0 {
			t.Errorf("%s ended with code %d", proc.name, code)
		}
	}
}

// replayByREST delivers the subscription's events of the last hour again.
func replayByREST(s *shop, console *process) {
	s.t.Helper()
	ask := func(status int, method, path, body string, into any) {
		s.t.Helper()
		req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+console.admin+"/api/v1"+path, strings.NewReader(body))
		if err != nil {
			s.t.Fatal(err)
		}
		req.Close = true
		req.Header.Set("Authorization", "Bearer "+consoleToken)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Hookline-Actor", "ann")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil {
			err = json.Unmarshal(b, into)
		}
		if err != nil || resp.StatusCode != status {
			s.t.Fatalf("%s %s: %d %s, %v", method, path, resp.StatusCode, b, err)
		}
	}
	selection := fmt.Sprintf(`{"subscription":"erp","since":%q`, time.Now().Add(-time.Hour).UTC().Format(time.RFC3339))
	var dry struct{ Plan struct{ Events int } }
	ask(http.StatusOK, "POST", "/replays", selection+`,"dry_run":true}`, &dry)
	var begun struct{ ID, State, Actor string }
	ask(http.StatusAccepted, "POST", "/replays", selection+`}`, &begun)
	if dry.Plan.Events != 1 || !strings.HasPrefix(begun.Actor, "ann by api@127.0.0.1") {
		s.t.Errorf("counted %d events; begun: %+v", dry.Plan.Events, begun)
	}
	s.until("the end of the replay", func() bool {
		ask(http.StatusOK, "GET", "/replays/"+begun.ID, "", &begun)
		return begun.State == "done"
	})
	s.until("the event once more", func() bool { got, _ := s.visits(); return len(got) == 3 && got[2].replay == begun.ID })
	var all struct{ Items []struct{ ID string } }
	ask(http.StatusOK, "GET", "/replays", "", &all)
	if len(all.Items) != 2 || all.Items[0].ID != begun.ID {
		s.t.Errorf("the replays are %+v", all.Items)
	}
}
