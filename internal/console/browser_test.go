package console

import (
	"bytes"
	"context"
	_ "embed"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/hookline/hookline/internal/testkit/browser"
)

//go:embed testdata/driver.js
var driver []byte

// driven puts the driver into every page and hears what it tells.
type driven struct {
	console http.Handler
	told    chan string // "done", or what is wrong; it has room for more than anyone tells
}

func (d *driven) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/driver.js":
		w.Header().Set("Content-Type", "text/javascript")
		w.Write(driver)
		return
	case "/driver/done":
		d.told <- "done"
		return
	case "/driver/fail":
		b, _ := io.ReadAll(io.LimitReader(r.Body, 4096)) // what there is
		d.told <- string(b)
		return
	}
	rec := httptest.NewRecorder()
	d.console.ServeHTTP(rec, r)
	body := rec.Body.Bytes()
	if strings.HasPrefix(rec.Header().Get("Content-Type"), "text/html") {
		body = bytes.Replace(body, []byte("</head>"), []byte(`<script src="/driver.js"></script></head>`), 1)
	}
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
	w.Write(body)
}

// browserLimit is for a machine that does much else.
const browserLimit = 2 * time.Minute

// A browser logs in by the link, finds a delivery by its event, sees its four
// attempts, presses retry and sees it delivered; on a phone's width no page is
// wider than the window.
func TestBrowser(t *testing.T) {
	program := browser.Program(t)
	f := newFake()
	d := &driven{f.handler(t), make(chan string, 100)}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: d}}
	server.Start()
	defer server.Close()
	ctx, cancel := context.WithTimeout(t.Context(), browserLimit)
	defer cancel()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, program, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--user-data-dir="+t.TempDir(), "--window-size=375,800", "--remote-debugging-port=0", server.URL+"/login#"+writeToken)
	cmd.Stderr = &said
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var told string
	select {
	case told = <-d.told:
	case <-ctx.Done():
		told = "the browser told nothing in time"
	}
	cancel()
	cmd.Wait() // it was killed
	if told != "done" {
		t.Errorf("%s\nthe browser wrote:\n%s", told, said.String())
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.asked) != 3 || !strings.HasPrefix(f.asked[0], "retry by") || !strings.HasPrefix(f.asked[1], "replay dlv_42 by") || !strings.HasPrefix(f.asked[2], "skip by") {
		t.Errorf("the operator was asked for %q", f.asked)
	}
}

// On a phone of 375 pixels no page is wider than the screen.
func TestPhone(t *testing.T) {
	server := httptest.NewServer(newFake().handler(t))
	defer server.Close()
	p := browser.Open(t, 375, 800)
	p.Go(server.URL + "/login")
	p.Do("location.hash = '" + writeToken + "'") // the link, pasted there: nothing is loaded
	p.Until("the login", "document.querySelector('.who form')")
	for _, path := range pages {
		p.Go(server.URL + path)
		if screen, over := p.Overflow(); screen != 375 || over != "" {
			t.Errorf("%s: the screen is %d wide, and over its edge is:\n%s", path, screen, over)
		}
	}
}
