// Package browser gives tests a headless Chromium.
package browser

import (
	"context"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// Variable names the program to use; empty: what is installed.
const Variable = "HOOKLINE_TEST_BROWSER"

var names = []string{"chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell"}

// Program is the path of a Chromium. Where there is none the test is skipped;
// under CI=true, where no test may be, it fails.
func Program(t testing.TB) string {
	t.Helper()
	if path := os.Getenv(Variable); path != "" {
		return path
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const lacking = "no browser: scripts/browser.sh brings one (or set " + Variable + ")"
	if os.Getenv("CI") == "true" {
		t.Fatal(lacking)
	}
	t.Skip(lacking)
	return ""
}

const (
	// startLimit and stepLimit are for a machine that does much else.
	startLimit = time.Minute
	stepLimit  = time.Minute
	lookEvery  = 50 * time.Millisecond
)

// Page is a page in a browser of its own. One goroutine at a time uses it.
type Page struct {
	t   testing.TB
	ctx context.Context
}

// Open starts a browser whose pages are width by height CSS pixels on a phone: a
// window cannot be as narrow. It ends with the test.
func Open(t testing.TB, width, height int64) *Page {
	t.Helper()
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(Program(t)), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.UserDataDir(t.TempDir()), chromedp.WSURLReadTimeout(startLimit))
	alloc, end := chromedp.NewExecAllocator(context.Background(), opts...)
	t.Cleanup(end)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	t.Cleanup(func() { _ = chromedp.Cancel(ctx) }) // first of these: it waits until the browser is gone
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height, chromedp.EmulateMobile)); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	return &Page{t, ctx}
}

// Go opens an address.
func (p *Page) Go(url string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(url)); err != nil {
		p.t.Fatalf("opening %s: %v", url, err)
	}
}

// Do runs a script in the page, which may lead to another page.
func (p *Page) Do(script string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	if _, err := chromedp.Run(ctx, chromedp.Evaluate[chromedp.Void](script)); err != nil {
		p.t.Fatalf("running %q: %v", script, err)
	}
}

// Value gives what an expression is in the page.
func Value[T any](p *Page, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("looking at %q: %v", expression, err)
	}
	return v
}

// Until waits until a condition holds, over changes of the page.
func (p *Page) Until(what, condition string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, stepLimit)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		// While a page makes place for the next one there is nothing to ask.
		if ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("Boolean(document.readyState === 'complete' && ("+condition+"))")); err == nil && ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("waited %v for %s; the page: %s", stepLimit, what, Value[string](p, "location.href + ' ' + document.body.innerText"))
		}
	}
}

// Overflow tells what reaches over the right edge of the screen, and how wide the
// screen is; empty: nothing does.
func (p *Page) Overflow() (screen int, over string) {
	p.t.Helper()
	screen = Value[int](p, "screen.width") // a page that is wider widens innerWidth
	if Value[int](p, "document.documentElement.scrollWidth") <= screen {
		return screen, ""
	}
	return screen, Value[string](p, `[...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > screen.width + 1)
		.slice(0, 3).map((e) => e.outerHTML.slice(0, 120)).join("\n") || 'something'`)
}
