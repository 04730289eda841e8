// Package console is hookline's web console: pages made on the server, with
// little script, for those who look after deliveries.
//
// Whatever comes from events, endpoints and people is text in these pages: it
// goes through html/template alone, and the pages' policy lets no script or style
// run but the console's own files.
package console

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"log/slog"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/internal/api"
	"github.com/hookline/hookline/sink"
)

//go:embed templates/*.html
var templateFiles embed.FS

//go:embed assets/*
var assetFiles embed.FS

// Deps is what the console shows.
type Deps struct {
	Service *api.Service
	Guard   *access.Guard
	Log     *slog.Logger
	Version string
}

// console serves the pages.
type console struct {
	Deps
	pages  map[string]*template.Template
	assets map[string]*assetFile
}

// assetFile is a file that pages refer to by a name with its hash, so that a
// browser may keep it for ever.
type assetFile struct {
	name, kind, tag string
	body            []byte
}

// policy lets nothing be loaded or run but the console's own files.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

// New makes the console's handler, for all paths that nothing else serves. The
// error is one of the program's own files.
func New(d Deps) (http.Handler, error) {
	c := &console{Deps: d, assets: map[string]*assetFile{}}
	if err := c.readAssets(); err != nil {
		return nil, err
	}
	if err := c.readPages(); err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /assets/{name}", c.asset)
	mux.HandleFunc("GET /login", c.loginPage)
	mux.HandleFunc("POST /login", c.login)
	mux.HandleFunc("POST /logout", c.logout)
	mux.Handle("GET /{$}", c.page(c.overview))
	mux.Handle("GET /subscriptions", c.page(c.subscriptions))
	mux.Handle("GET /subscriptions/{id}", c.page(c.subscription))
	mux.HandleFunc("POST /subscriptions/{id}/do", c.do)
	mux.Handle("GET /subscriptions/{id}/replay", c.page(c.replayForm))
	mux.Handle("GET /replays", c.page(c.replays))
	mux.HandleFunc("POST /replays", c.beginReplay)
	mux.HandleFunc("POST /replays/{id}/continue", c.continueReplay)
	mux.Handle("GET /replays/{id}", c.page(c.replay))
	mux.HandleFunc("GET /search", c.search)
	mux.Handle("GET /deliveries", c.page(c.deliveries))
	mux.Handle("GET /deliveries/{id}", c.page(c.delivery))
	mux.Handle("GET /", c.page(func(*http.Request) (string, *view, error) { return "", nil, api.ErrNotFound }))
	return d.Guard.Check(secured(mux), c.refuse), nil
}

// secured sets the headers that every answer has.
func secured(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func (c *console) readAssets() error {
	files, err := fs.ReadDir(assetFiles, "assets")
	if err != nil {
		return fmt.Errorf("reading the console's files: %w", err)
	}
	for _, f := range files {
		body, err := assetFiles.ReadFile("assets/" + f.Name())
		if err != nil {
			return fmt.Errorf("reading the console's files: %w", err)
		}
		sum := sha256.Sum256(body)
		c.assets[f.Name()] = &assetFile{
			name: f.Name(), body: body, tag: hex.EncodeToString(sum[:6]), kind: mime.TypeByExtension(path.Ext(f.Name())),
		}
	}
	return nil
}

func (c *console) assetURL(name string) (string, error) {
	a := c.assets[name]
	if a == nil {
		return "", fmt.Errorf("there is no file %s", name)
	}
	return "/assets/" + name + "?v=" + a.tag, nil
}

func (c *console) asset(w http.ResponseWriter, r *http.Request) {
	a := c.assets[r.PathValue("name")]
	if a == nil {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", a.kind)
	w.Header().Set("Cache-Control", "max-age=3600")
	if r.URL.Query().Get("v") == a.tag {
		w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	}
	w.Write(a.body) // an error here is a client that went away
}

func (c *console) readPages() error {
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		return fmt.Errorf("reading the console's pages: %w", err)
	}
	base := template.New("").Funcs(funcs).Funcs(template.FuncMap{"asset": c.assetURL})
	if base, err = base.ParseFS(templateFiles, "templates/layout.html"); err != nil {
		return fmt.Errorf("reading the console's pages: %w", err)
	}
	c.pages = map[string]*template.Template{}
	for _, name := range names {
		short := strings.TrimSuffix(path.Base(name), ".html")
		if short == "layout" {
			continue
		}
		t, err := base.Clone()
		if err == nil {
			t, err = t.ParseFS(templateFiles, name)
		}
		if err != nil {
			return fmt.Errorf("reading the console's pages: %w", err)
		}
		c.pages[short] = t
	}
	return nil
}

// view is what the layout shows of any page; Data is the page's own.
type view struct {
	Title, Nav string
	Refresh    int // seconds between two looks at what is live; 0: never
	Query      string
	Flash      *flash
	// Of the request:
	CanWrite, ReadOnly, Session, CanLogIn bool
	Version                               string
	Data                                  any
}

// flash is a message at a page's head.
type flash struct{ Kind, Text string }

// page serves what make gives: a template's name and its view. It asks for the
// scope read.
func (c *console) page(make func(*http.Request) (string, *view, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if access.Of(r.Context()).Scope < access.Read {
			http.Redirect(w, r, "/login?next="+url.QueryEscape(r.URL.RequestURI()), http.StatusSeeOther)
			return
		}
		name, v, err := make(r)
		if errors.Is(err, errAnswered) {
			return
		}
		if err != nil {
			c.fail(w, r, err)
			return
		}
		c.render(w, r, http.StatusOK, name, v)
	})
}

// render writes a page whole or not at all.
func (c *console) render(w http.ResponseWriter, r *http.Request, status int, name string, v *view) {
	g := access.Of(r.Context())
	v.CanWrite, v.ReadOnly, v.Session = g.Scope >= access.Write, g.Scope == access.Read, g.Session
	v.CanLogIn, v.Version = c.Guard.HasTokens() && !g.Session, c.Version
	var b bytes.Buffer
	if err := c.pages[name].ExecuteTemplate(&b, "layout", v); err != nil {
		c.Log.Error("making a page", "page", name, "error", err)
		http.Error(w, "the page could not be made (see the log)", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write(b.Bytes()) // an error here is a client that went away
}

// fail shows an error as a page.
func (c *console) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, title := http.StatusBadGateway, "ClickHouse or Kafka did not answer"
	switch {
	case errors.Is(err, api.ErrNotFound):
		status, title = http.StatusNotFound, "Not found"
	case errors.Is(err, errMayNot):
		status, title = http.StatusForbidden, "Not allowed"
	case errors.Is(err, api.ErrNoReplays):
		status, title = http.StatusNotImplemented, "Not here"
	case errors.Is(err, api.ErrUnderWay):
		status, title = http.StatusConflict, "Under way already"
	case errors.Is(err, api.ErrBusy):
		status, title = http.StatusServiceUnavailable, "Enough is under way"
	case errors.Is(err, api.ErrNotReady):
		status, title = http.StatusServiceUnavailable, "Not ready yet"
	default:
		if _, ok := errors.AsType[*sink.MissingError](err); ok {
			title = "A table is missing"
		}
		if bad, ok := errors.AsType[badRequest](err); ok {
			status, title, err = http.StatusBadRequest, "That cannot be shown", bad
		} else {
			c.Log.Warn("showing a page", "path", r.URL.Path, "error", err)
		}
	}
	c.message(w, r, status, title, err.Error())
}

// errAnswered: there is an answer already.
var errAnswered = errors.New("answered")

// badRequest is an error of whoever wrote the address.
type badRequest struct{ error }

func (c *console) message(w http.ResponseWriter, r *http.Request, status int, title, text string) {
	c.render(w, r, status, "message", &view{Title: title, Data: messagePage{title, text}})
}

func (c *console) refuse(w http.ResponseWriter, _ *http.Request, why access.Refusal) {
	http.Error(w, "hookline: "+why.Why, why.Status)
}
