// Package admin is hookline's own HTTP address: health, readiness, metrics.
package admin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/hookline/hookline/internal/access"
)

// Config says where the admin address is and who may use it.
type Config struct {
	// Addr is the address of /healthz, /readyz and /metrics; off: no such address. Any but a loopback address needs ADMIN_TOKEN or ADMIN_TLS_CLIENT_CA_FILE.
	Addr string `env:"ADMIN_ADDR" envDefault:"127.0.0.1:8080"`
	// Token gives leave to look at and to change everything, as Authorization: Bearer TOKEN or at the console's login; every request but /healthz and /readyz then needs it or ADMIN_READ_TOKEN. Empty: everybody who reaches the address may look, nobody may change anything; dev and demo then make a token at each start, and let everybody on this machine look without it. At least 16 bytes.
	Token string `env:"ADMIN_TOKEN"`
	// Profile serves Go's profiles (CPU, memory, goroutines, blocking) under /debug/pprof/ too. Needs ADMIN_TOKEN or ADMIN_TLS_CLIENT_CA_FILE.
	Profile bool      `env:"ADMIN_PROFILE" envDefault:"false"`
	TLS     TLSConfig `envPrefix:"ADMIN_TLS_"`
	// ReadToken gives leave to look at the console, the REST interface and /metrics, not to change anything; empty: there is no such token. At least 16 bytes.
	ReadToken string `env:"ADMIN_READ_TOKEN"`
	// Hosts are further host names by which the console, the REST interface and /metrics are reached on a loopback address, as through a proxy on this machine.
	Hosts []string `env:"ADMIN_HOSTS"`
	// OpenToRead lets everybody on this machine look without a token; dev and demo set it.
	OpenToRead bool
}

// Guard says who may do what under this configuration. Where neither a token nor
// a client's certificate is asked for, and where a certificate is all that is,
// everybody who comes through may look and nobody may change anything.
func (c *Config) Guard() *access.Guard {
	host, _, _ := net.SplitHostPort(c.Addr)
	o := access.Options{Token: c.Token, ReadToken: c.ReadToken, Loopback: loopback(host), Hosts: c.Hosts}
	if c.Token == "" && (o.Loopback || c.TLS.ClientCAFile != "") || c.OpenToRead && o.Loopback {
		o.Anonymous = access.Read
	}
	return access.New(o)
}

// Off is the Addr that switches the admin address off.
const Off = "off"

// minTokenBytes: a shorter token could be guessed.
const minTokenBytes = 16

// Validate refuses an address that others can reach without a token.
func (c *Config) Validate() error {
	if c.Addr == Off {
		return nil
	}
	var errs []error
	host, _, err := net.SplitHostPort(c.Addr)
	switch {
	case err != nil:
		errs = append(errs, fmt.Errorf("HOOKLINE_ADMIN_ADDR: %q is not an address (write host:port, or off)", c.Addr))
	case !c.closed() && !loopback(host):
		errs = append(errs, fmt.Errorf("HOOKLINE_ADMIN_ADDR: %s can be reached by others and has no token (set HOOKLINE_ADMIN_TOKEN or _TLS_CLIENT_CA_FILE, or use 127.0.0.1)", c.Addr))
	}
	for name, token := range map[string]string{"ADMIN_TOKEN": c.Token, "ADMIN_READ_TOKEN": c.ReadToken} {
		if token != "" && len(token) < minTokenBytes {
			errs = append(errs, fmt.Errorf("HOOKLINE_%s: shorter than %d bytes (make one with: openssl rand -hex 16)", name, minTokenBytes))
		}
	}
	if c.ReadToken != "" && (c.Token == "" || c.ReadToken == c.Token) {
		errs = append(errs, errors.New("HOOKLINE_ADMIN_READ_TOKEN: it is for those who may not have HOOKLINE_ADMIN_TOKEN, which is missing or the same (set another one)"))
	}
	if c.Profile && !c.closed() {
		errs = append(errs, errors.New("HOOKLINE_ADMIN_PROFILE: profiles are shown only with a token (set HOOKLINE_ADMIN_TOKEN)"))
	}
	return errors.Join(append(errs, c.TLS.validate())...)
}

// closed tells that not everybody who reaches the address may use it.
func (c *Config) closed() bool { return c.Token != "" || c.TLS.ClientCAFile != "" }

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// String leaves the token out.
func (c Config) String() string { return "admin address " + c.Addr }

// GoString leaves the token out.
func (c Config) GoString() string { return c.String() }

// Part is the readiness of one part of the process.
type Part struct {
	Name     string `json:"name"`
	Ready    bool   `json:"ready"`
	Degraded bool   `json:"degraded,omitempty"` // works on, without something that it wants
	Detail   string `json:"detail,omitempty"`
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool   `json:"ready"`
	Parts []Part `json:"parts"`
}

// Deps is what the server shows.
type Deps struct {
	Parts    func() []Part // the parts that run; called on each request, concurrently
	Gatherer prometheus.Gatherer
	// Rest serves every other path, and says itself who may; nil: there is none.
	Rest http.Handler
	// RestWithin is how long Rest may take to answer; 0: it answers at once.
	RestWithin time.Duration
	Log        *slog.Logger
}

// Server serves the admin address.
type Server struct {
	listener net.Listener
	http     *http.Server
}

// Limits on requests: they are small, and come from people and probes.
const (
	headerTimeout = 5 * time.Second
	writeTimeout  = 30 * time.Second // from the end of a request's header to that of its answer, at least
	answerTime    = 10 * time.Second // beyond RestWithin, to read a request and write its answer
	maxHeader     = 16 << 10
	maxBody       = 1 << 20
	maxConns      = 256
	stopTimeout   = 2 * time.Second
)

// Listen opens the address; Run serves it.
func Listen(c *Config, d Deps) (*Server, error) {
	own, err := c.TLS.load()
	if err != nil {
		return nil, err
	}
	l, err := net.Listen("tcp", c.Addr)
	if err != nil {
		return nil, fmt.Errorf("opening the admin address: %s: %w (set HOOKLINE_ADMIN_ADDR)", c.Addr, inner(err))
	}
	l = netutil.LimitListener(l, maxConns)
	if own != nil {
		l = tls.NewListener(l, own)
	}
	return &Server{
		listener: l,
		http: &http.Server{
			Handler: http.MaxBytesHandler(Handler(c, d), maxBody), ReadHeaderTimeout: headerTimeout, ReadTimeout: headerTimeout,
			WriteTimeout: max(writeTimeout, d.RestWithin+answerTime), MaxHeaderBytes: maxHeader,
			ErrorLog: slog.NewLogLogger(d.Log.Handler(), slog.LevelWarn),
		},
	}, nil
}

// inner takes net's own "listen tcp 127.0.0.1:8080:" off, which repeats the address.
func inner(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op.Err
	}
	return err
}

// Addr is the address that is served, with the port that was chosen for :0.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Run serves until ctx ends, then gives the requests under way a moment.
func (s *Server) Run(ctx context.Context) error {
	done := make(chan error, 1) // written once by the goroutine below
	go func() { done <- s.http.Serve(s.listener) }()
	select {
	case err := <-done:
		return fmt.Errorf("serving the admin address: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if err := s.http.Shutdown(stop); err != nil {
		s.http.Close() // what is still under way is a slow reader
	}
	<-done
	return nil
}

// Close is for a server that never ran.
func (s *Server) Close() error { return s.listener.Close() }

// Handler is the admin address's routes.
func Handler(c *Config, d Deps) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) { writeReadiness(w, d.Parts()) })
	metrics := promhttp.HandlerFor(d.Gatherer, promhttp.HandlerOpts{EnableOpenMetrics: true})
	guard := c.Guard()
	mux.Handle("GET /metrics", c.certified(needs(guard, access.Read, metrics)))
	if c.Profile && c.closed() {
		scope := access.Write
		if c.Token == "" {
			scope = access.Read // a certificate is all that is asked for
		}
		profile := func(h http.Handler) http.Handler { return c.certified(needs(guard, scope, h)) }
		// One by one: pprof's index would also show the command line.
		mux.Handle("GET /debug/pprof/profile", profile(http.HandlerFunc(pprof.Profile)))
		mux.Handle("GET /debug/pprof/trace", profile(http.HandlerFunc(pprof.Trace)))
		for _, name := range []string{"allocs", "block", "goroutine", "heap", "mutex", "threadcreate"} {
			mux.Handle("GET /debug/pprof/"+name, profile(pprof.Handler(name)))
		}
	}
	if d.Rest != nil {
		mux.Handle("/", c.certified(d.Rest))
	}
	return mux
}

func writeReadiness(w http.ResponseWriter, parts []Part) {
	r := Readiness{Ready: true, Parts: parts}
	for _, p := range parts {
		r.Ready = r.Ready && p.Ready
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !r.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	json.NewEncoder(w).Encode(r) // an error here is a client that went away
}

// certified asks for a client's certificate, which the handshake has verified,
// where one is configured.
func (c *Config) certified(next http.Handler) http.Handler {
	if c.TLS.ClientCAFile == "" {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
			http.Error(w, "a client certificate of an authority in HOOKLINE_ADMIN_TLS_CLIENT_CA_FILE is needed", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// needs asks for a scope, and for a Host that is ours: a page whose name leads to
// this machine reads nothing.
func needs(g *access.Guard, scope access.Scope, next http.Handler) http.Handler {
	scoped := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if access.Of(r.Context()).Scope < scope {
			w.Header().Set("WWW-Authenticate", `Bearer realm="hookline"`)
			http.Error(w, "a token is needed: Authorization: Bearer $HOOKLINE_ADMIN_TOKEN", http.StatusUnauthorized)
			return
		}
		next.ServeHTTP(w, r)
	})
	return g.Check(scoped, func(w http.ResponseWriter, _ *http.Request, why access.Refusal) { http.Error(w, why.Why, why.Status) })
}
