// Command shot makes a picture of a page as a phone shows it: a browser's window
// cannot be as narrow.
//
//	go run ./internal/testkit/browser/shot -browser chromium -width 375 -height 812 URL FILE.png
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/chromedp/chromedp"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "shot:", err)
		os.Exit(1)
	}
}

// limit of all of it.
const limit = time.Minute

func run() error {
	program := flag.String("browser", "", "the browser's program")
	width := flag.Int64("width", 375, "of the screen, in CSS pixels")
	height := flag.Int64("height", 812, "of the screen, in CSS pixels")
	flag.Parse()
	if flag.NArg() != 2 || *program == "" {
		return fmt.Errorf("want -browser, an address and a file, have %q", flag.Args())
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	profile, err := os.MkdirTemp("", "hookline-shot-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(profile)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(*program), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.Flag("hide-scrollbars", true), chromedp.UserDataDir(profile))
	alloc, end := chromedp.NewExecAllocator(ctx, opts...)
	defer end()
	page, closePage := chromedp.NewContext(alloc)
	defer closePage()
	defer chromedp.Cancel(page) //nolint:errcheck // the picture is made, or its error is told
	if err := chromedp.Do(page, chromedp.EmulateViewport(*width, *height, chromedp.EmulateMobile), chromedp.Navigate(flag.Arg(0))); err != nil {
		return fmt.Errorf("opening %s: %w", flag.Arg(0), err)
	}
	wide, err := chromedp.Run(page, chromedp.Evaluate[int64]("document.documentElement.scrollWidth"))
	if err != nil {
		return fmt.Errorf("measuring %s: %w", flag.Arg(0), err)
	}
	if wide > *width {
		return fmt.Errorf("%s is %d pixels wide on a screen of %d", flag.Arg(0), wide, *width)
	}
	png, err := chromedp.Run(page, chromedp.CaptureScreenshot())
	if err != nil {
		return fmt.Errorf("making a picture of %s: %w", flag.Arg(0), err)
	}
	return os.WriteFile(flag.Arg(1), png, 0o644) //nolint:gosec // a picture for the documentation
}
