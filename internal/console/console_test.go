package console

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
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
