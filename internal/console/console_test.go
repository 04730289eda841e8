package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
)

func ask(h http.Handler, method, path, token, form string, more ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://127.0.0.1"+path, strings.NewReader(form))
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	if form != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for i := 0; i+1 < len(more); i += 2 {
		r.Header.Set(more[i], more[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

var pages = []string{
	"/", "/?range=24h", "/?range=7d", "/subscriptions", "/subscriptions?find=" + url.QueryEscape(hostile), "/subscriptions/erp",
	"/subscriptions/erp?did=skip&outcome=done&said=" + url.QueryEscape(hostile), "/deliveries", "/deliveries?state=failed&subscription=" + url.QueryEscape(hostile),
	"/deliveries/dlv_42", "/search?q=" + url.QueryEscape(hostile), "/login?next=" + url.QueryEscape(hostile), "/nothing", "/deliveries?after=x",
	"/subscriptions/erp/replay", "/replays", "/replays/r_1", "/replays/" + url.QueryEscape(hostile),
}

// inline is what the policy would not let run, and what no page may have.
var inline = regexp.MustCompile(`(?i)<script>|\sstyle=|\son[a-z]+=|javascript:`)

// What anybody may have sent is text on every page.
func TestHostileBytesAreText(t *testing.T) {
	h := newFake().handler(t)
	for _, path := range pages {
		w := ask(h, "GET", path, writeToken, "")
		body := w.Body.String()
		if w.Code >= 500 || !strings.Contains(body, "</html>") {
			t.Errorf("%s: %d %.200s", path, w.Code, body)
		}
		if m := inline.FindString(body); m != "" {
			t.Errorf("%s has %q", path, m)
		}
		if strings.Contains(body, "canary") || strings.Contains(body, "\u202e") {
			t.Errorf("%s shows a secret, or letters that turn the text", path)
		}
		if csp := w.Header().Get("Content-Security-Policy"); csp != policy {
			t.Errorf("%s: policy %q", path, csp)
		}
	}
}

func TestPagesNeedALogin(t *testing.T) {
	h := newFake().handler(t)
	for _, path := range pages {
		if strings.HasPrefix(path, "/login") {
			continue
		}
		w := ask(h, "GET", path, "", "")
		if w.Code != http.StatusSeeOther || !strings.HasPrefix(w.Header().Get("Location"), "/login?next=") {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Location"))
		}
	}
}

// Buttons do something only for those who may, and only from these pages.
func TestActions(t *testing.T) {
	f := newFake()
	h := f.handler(t)
	login := ask(h, "POST", "/login", "", "token="+writeToken+"&next=//evil.example", "Sec-Fetch-Site", "same-origin")
	if login.Code != http.StatusSeeOther || login.Header().Get("Location") != "/" {
		t.Fatalf("login: %d to %q", login.Code, login.Header().Get("Location"))
	}
	cookie := login.Result().Cookies()[0].String()
	for _, tt := range []struct {
		name, token, form string
		more              []string
		status            int
	}{
		{"nobody", "", "action=skip", nil, 403},
		{"read", readToken, "action=skip", nil, 403},
		{"another site", "", "action=skip", []string{"Cookie", cookie, "Sec-Fetch-Site", "cross-site"}, 403},
		{"another origin", "", "action=skip", []string{"Cookie", cookie, "Origin", "https://evil.example"}, 403},
		{"a name that leads here", writeToken, "action=skip", []string{"Host", ""}, 303},
		{"no action", writeToken, "action=explode", nil, 400},
		{"ours", "", "action=pause", []string{"Cookie", cookie, "Sec-Fetch-Site", "same-origin"}, 303},
	} {
		if w := ask(h, "POST", "/subscriptions/erp/do", tt.token, tt.form, tt.more...); w.Code != tt.status {
			t.Errorf("%s: %d, want %d", tt.name, w.Code, tt.status)
		}
	}
	if w := ask(h, "POST", "/subscriptions/none/do", writeToken, "action=pause"); w.Code != http.StatusNotFound {
		t.Errorf("unknown subscription: %d", w.Code)
	}
	if len(f.asked) != 2 || !strings.HasPrefix(f.asked[1], "pause by console@") {
		t.Errorf("the operator was asked for %q", f.asked)
	}
	if body := ask(h, "GET", "/subscriptions/erp", readToken, "").Body.String(); strings.Contains(body, "<button name=") {
		t.Error("buttons are shown to who may not press them")
	}
}

// A disabled subscription can be taken into use again with what it missed, after
// a question; its page tells how far that is.
func TestCatchUp(t *testing.T) {
	const button = `value="resume-replay" data-ask="`
	f := newFake()
	h := f.handler(t)
	if body := ask(h, "GET", "/subscriptions/erp", writeToken, "").Body.String(); strings.Contains(body, button) {
		t.Error("an active one has the button")
	}
	f.state = pipeline.StateDisabled
	if body := ask(h, "GET", "/subscriptions/erp", writeToken, "").Body.String(); !strings.Contains(body, button) {
		t.Errorf("a disabled one has no button: %s", body)
	}
	if w := ask(h, "POST", "/subscriptions/erp/do", readToken, "action=resume-replay"); w.Code != http.StatusForbidden || len(f.asked) != 0 {
		t.Errorf("who may not act: %d, asked for %q", w.Code, f.asked)
	}
	w := ask(h, "POST", "/subscriptions/erp/do", writeToken, "action=resume-replay")
	if w.Code != http.StatusSeeOther || !strings.Contains(w.Header().Get("Location"), "did=resume") || len(f.asked) != 1 || !strings.HasPrefix(f.asked[0], "resume-replay by console@") {
		t.Fatalf("%d to %q, asked for %q", w.Code, w.Header().Get("Location"), f.asked)
	}
	body := ask(h, "GET", "/subscriptions/erp", readToken, "").Body.String()
	if !strings.Contains(body, "12 missed deliveries enqueued; waits for 7 to settle") || inline.MatchString(body) {
		t.Errorf("its page: %s", body)
	}
	if w := ask(h, "POST", "/subscriptions/erp/do", writeToken, "action=resume-replay"); w.Code != http.StatusConflict || len(f.asked) != 1 {
		t.Errorf("once more: %d, asked for %q", w.Code, f.asked)
	}
}

// A replay is counted before it is begun, and what is begun is what was counted.
func TestReplay(t *testing.T) {
	f := newFake()
	h := f.handler(t)
	for _, tt := range []struct {
		name, token, form string
		status            int
		has               string
	}{
		{"read", readToken, "subscription=erp&since=1h&action=count", 403, "Not allowed"},
		{"no subscription", writeToken, "since=1h&action=count", 404, ""},
		{"no time", writeToken, "subscription=erp&since=" + url.QueryEscape(hostile) + "&action=count", 422, "neither a time"},
		{"backwards", writeToken, "subscription=erp&since=1h&until=2h&action=count", 422, "ends before it begins"},
		{"no action", writeToken, "subscription=erp&since=7d", 422, "is no action"},
		{"count", writeToken, "subscription=erp&since=7d&failed=on&action=count", 200, "2 events to deliver again"},
		{"one", writeToken, "subscription=erp&delivery=dlv_42&action=count", 200, "1 event to deliver again"},
	} {
		w := ask(h, "POST", "/replays", tt.token, tt.form)
		if body := w.Body.String(); w.Code != tt.status || !strings.Contains(body, tt.has) || inline.MatchString(body) {
			t.Errorf("%s: %d %s", tt.name, w.Code, body)
		}
	}
	if len(f.asked) != 0 {
		t.Fatalf("something was done: %q", f.asked)
	}
	form := url.Values{"action": {"begin"}}
	for _, m := range regexp.MustCompile(`type="hidden" name="([a-z]+)" value="([^"]*)"`).
		FindAllStringSubmatch(ask(h, "POST", "/replays", writeToken, "subscription=erp&since=2h&failed=on&action=count").Body.String(), -1) {
		form.Set(m[1], m[2])
	}
	since, err := time.Parse(time.RFC3339, form.Get("since"))
	if err != nil || form.Get("until") == "" || form.Get("failed") != "on" || time.Since(since) < 2*time.Hour {
		t.Fatalf("the button begins %v", form)
	}
	w := ask(h, "POST", "/replays", writeToken, form.Encode())
	if w.Code != http.StatusSeeOther || w.Header().Get("Location") != "/replays/r_9" || len(f.asked) != 1 || !strings.HasPrefix(f.asked[0], "replay  by console@") {
		t.Fatalf("begun: %d to %q, asked for %q", w.Code, w.Header().Get("Location"), f.asked)
	}
	body := ask(h, "GET", "/replays/r_9", readToken, "").Body.String()
	if !strings.Contains(body, ">done<") || !strings.Contains(body, "2 of 2 events") || !strings.Contains(body, "what failed since "+since.Format("2006-01-02 15:04:05")) {
		t.Errorf("its page: %s", body)
	}
	if w := ask(h, "POST", "/replays/r_9/continue", writeToken, ""); w.Code != http.StatusBadRequest {
		t.Errorf("going on with what is through: %d", w.Code)
	}
	if w := ask(h, "POST", "/replays/r_1/continue", readToken, ""); w.Code != http.StatusForbidden || len(f.asked) != 1 {
		t.Errorf("going on for who may not act: %d, asked for %q", w.Code, f.asked)
	}
	if w := ask(h, "POST", "/replays/r_1/continue", writeToken, ""); w.Code != http.StatusSeeOther || len(f.asked) != 2 {
		t.Errorf("going on: %d, asked for %q", w.Code, f.asked)
	}
	if w := ask(h, "GET", "/subscriptions/erp/replay", readToken, ""); w.Code != http.StatusForbidden {
		t.Errorf("the form for who may not act: %d", w.Code)
	}
}

func TestLocalPath(t *testing.T) {
	for in, want := range map[string]string{
		"": "/", "/deliveries?state=failed": "/deliveries?state=failed", "//evil.example": "/", "https://evil.example": "/", "/\\evil.example": "/",
		"javascript:alert(1)": "/", "deliveries": "/", "/a\nb": "/",
	} {
		if got := localPath(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func TestFigures(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1\u202f000", -1234567: "-1\u202f234\u202f567"} {
		if got := count(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
	for n, want := range map[float64]float64{1: 1, 1.5: 2, 3: 5, 7: 10, 10: 10, 101: 200} {
		if got := nice(n); got != want {
			t.Errorf("nice(%v) = %v", n, got)
		}
	}
	if p, class := percent(999_999, 1_000_000); p != "99.99 %" || class != "" {
		t.Errorf("%q %q", p, class)
	}
}

// What is not sent is no attempt, as in the list of subscriptions.
func TestNotSentIsNoAttempt(t *testing.T) {
	tiles := overviewTiles([]tally{{OK: 1, Answer: 1, Own: 5}}, spans[0])
	if got := tiles[0]; got.Value != "2" || got.Name != "attempts in 1h, 5 not sent" {
		t.Errorf("told %+v", got)
	}
	if got := overviewTiles([]tally{{OK: 2}}, spans[0])[0].Name; got != "attempts in 1h" {
		t.Errorf("told %q", got)
	}
}

// A time that is none is not taken for another one.
func TestSinceThatIsNone(t *testing.T) {
	h := newFake().handler(t)
	for since, want := range map[string]int{"foo": http.StatusBadRequest, "7d": http.StatusOK, "": http.StatusOK} {
		if w := ask(h, "GET", "/deliveries?since="+since, readToken, ""); w.Code != want {
			t.Errorf("since %q: %d, want %d", since, w.Code, want)
		}
	}
}
