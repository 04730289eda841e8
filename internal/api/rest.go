package api

import (
	_ "embed"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"go.yaml.in/yaml/v3"

	"github.com/hookline/hookline/internal/access"
	"github.com/hookline/hookline/pipeline/control"
	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/sink"
)

//go:embed openapi.yaml
var document []byte

// Prefix is where the interface is.
const Prefix = "/api/v1"

// maxBody is the largest body of a request that is read.
const maxBody = 1 << 20

// route is one operation of the document.
type route struct {
	method, path string
	scope        access.Scope
	do           func(r *http.Request) (any, error)
}

// rest is the interface over a Service.
type rest struct {
	s *Service
}

func (a *rest) routes() []route {
	return []route{
		{http.MethodGet, "/subscriptions", access.Read, a.listSubscriptions},
		{http.MethodPost, "/subscriptions", access.Write, a.applySubscriptions},
		{http.MethodGet, "/subscriptions/{id}", access.Read, a.getSubscription},
		{http.MethodPut, "/subscriptions/{id}", access.Write, a.putSubscription},
		{http.MethodDelete, "/subscriptions/{id}", access.Write, a.deleteSubscription},
		{http.MethodGet, "/subscriptions/{id}/document", access.Write, a.getDocument},
		{http.MethodPost, "/subscriptions/{id}/pause", access.Write, a.pause},
		{http.MethodPost, "/subscriptions/{id}/resume", access.Write, a.resume},
		{http.MethodGet, "/subscriptions/{id}/resume", access.Read, a.getCatchUp},
		{http.MethodPost, "/subscriptions/{id}/skip", access.Write, a.skip},
		{http.MethodPost, "/subscriptions/{id}/retry", access.Write, a.retry},
		{http.MethodPost, "/subscriptions/{id}/test", access.Write, a.test},
		{http.MethodGet, "/deliveries", access.Read, a.listDeliveries},
		{http.MethodGet, "/deliveries/{id}", access.Read, a.getDelivery},
		{http.MethodGet, "/deliveries/{id}/attempts", access.Read, a.listAttempts},
		{http.MethodGet, "/replays", access.Read, a.listReplays},
		{http.MethodPost, "/replays", access.Write, a.beginReplay},
		{http.MethodGet, "/replays/{id}", access.Read, a.getReplay},
		{http.MethodGet, "/stats", access.Read, a.stats},
	}
}

// NewHandler makes the handler of everything under Prefix. The error is one of
// the program's own document.
func NewHandler(s *Service, guard *access.Guard, log *slog.Logger) (http.Handler, error) {
	asJSON, err := documentJSON()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	a := &rest{s: s}
	for _, rt := range a.routes() {
		mux.Handle(rt.method+" "+Prefix+rt.path, rt.handler(log))
	}
	mux.HandleFunc("GET "+Prefix+"/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(asJSON) // an error here is a client that went away
	})
	mux.HandleFunc(Prefix+"/", notServed(a.routes()))
	safe := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		mux.ServeHTTP(w, r)
	})
	return guard.Check(safe, func(w http.ResponseWriter, _ *http.Request, why access.Refusal) {
		writeProblem(w, newProblem(why.Status, why.Why))
	}), nil
}

// documentJSON is the OpenAPI document in JSON.
func documentJSON() ([]byte, error) {
	var doc any
	if err := yaml.Unmarshal(document, &doc); err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	b, err := json.Marshal(doc, json.Deterministic(true))
	if err != nil {
		return nil, fmt.Errorf("reading the OpenAPI document: %w", err)
	}
	return b, nil
}

// notServed tells a wrong method from a wrong path, as problems.
func notServed(routes []route) http.HandlerFunc {
	methods := http.NewServeMux()
	allowed := map[string][]string{}
	for _, rt := range routes {
		if allowed[rt.path] == nil {
			methods.HandleFunc(Prefix+rt.path, func(http.ResponseWriter, *http.Request) {})
		}
		allowed[rt.path] = append(allowed[rt.path], rt.method)
	}
	return func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := methods.Handler(r); pattern != "" {
			list := allowed[strings.TrimPrefix(pattern, Prefix)]
			slices.Sort(list)
			w.Header().Set("Allow", strings.Join(list, ", "))
			writeProblem(w, newProblem(http.StatusMethodNotAllowed, r.Method+" is not served here"))
			return
		}
		writeProblem(w, newProblem(http.StatusNotFound, "there is no such path (see "+Prefix+"/openapi.json)"))
	}
}

// handler asks for the scope and writes what do gives.
func (rt *route) handler(log *slog.Logger) http.Handler {
	do := rt.do
	scope := rt.scope
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := access.Of(r.Context())
		switch {
		case g.Scope >= scope:
		case g.Scope == access.None:
			writeProblem(w, newProblem(http.StatusUnauthorized, "a token with the scope "+scope.String()+" is needed: Authorization: Bearer TOKEN"))
			return
		default:
			writeProblem(w, newProblem(http.StatusForbidden, "the scope "+scope.String()+" is needed, "+shown(r, g)+" "+g.Scope.String()))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		body, err := do(r)
		if err != nil {
			p := problemOf(err)
			if p.Status >= http.StatusInternalServerError {
				log.Warn("answering a request", "path", r.URL.Path, "status", p.Status, "error", err)
			}
			writeProblem(w, p)
			return
		}
		status := http.StatusOK
		if later, ok := body.(accepted); ok {
			status, body = http.StatusAccepted, later.body
		}
		writeBody(w, status, "application/json", body)
	})
}

// shown is by what a request showed its scope.
func shown(r *http.Request, g access.Granted) string {
	switch {
	case g.Session:
		return "this session has"
	case r.Header.Get("Authorization") != "":
		return "this token has"
	}
	return "without a token (Authorization: Bearer TOKEN) there is only"
}

// Actor names who asks, for the audit topic: by which way, from where, and, where
// a proxy or a program says so, who.
func Actor(r *http.Request, way string) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	who := way + "@" + host
	if name := r.Header.Get("X-Hookline-Actor"); name != "" && len(name) <= 100 {
		who = name + " by " + who
	}
	return who
}

// params reads the query of a request; the first thing that is wrong stays.
type params struct {
	values url.Values
	err    error
}

func query(r *http.Request, known ...string) *params {
	p := &params{}
	p.values, p.err = url.ParseQuery(r.URL.RawQuery)
	if p.err != nil {
		p.err = newProblem(http.StatusBadRequest, "the query cannot be read")
	}
	for name, list := range p.values {
		switch {
		case !slices.Contains(known, name):
			p.fail(name, "is not a parameter of this request")
		case len(list) > 1:
			p.fail(name, "is there twice")
		case len(list[0]) > 1024 || strings.ContainsRune(list[0], 0):
			p.fail(name, "is too long or has a NUL")
		}
	}
	return p
}

func (p *params) fail(name, why string) {
	if p.err == nil {
		p.err = newProblem(http.StatusBadRequest, fmt.Sprintf("query: %.60q %s", name, why))
	}
}

func (p *params) text(name string) string { return p.values.Get(name) }

func (p *params) number(name string, least, most, missing int) int {
	s := p.values.Get(name)
	if s == "" {
		return missing
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < least || n > most {
		p.fail(name, fmt.Sprintf("is not a number from %d to %d", least, most))
		return missing
	}
	return n
}

// word is one of those that are allowed, or empty.
func word[T ~string](p *params, name string, allowed ...T) T {
	s := T(p.values.Get(name))
	if s != "" && !slices.Contains(allowed, s) {
		p.fail(name, fmt.Sprintf("is not one of %v", allowed))
	}
	return s
}

func (p *params) flag(name string) bool {
	return word(p, name, "true", "false") == "true"
}

// The years between which a time can be asked for: ClickHouse's DateTime64 has
// more, and nothing here is older or will be.
const (
	firstYear = 1970
	lastYear  = 2199
)

func (p *params) time(name string, missing time.Time) time.Time {
	s := p.values.Get(name)
	if s == "" {
		return missing
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil || t.UTC().Year() < firstYear || t.UTC().Year() > lastYear {
		p.fail(name, "is not a time such as 2026-01-31T08:00:00Z")
		return missing
	}
	return t.UTC()
}

func (a *rest) listSubscriptions(r *http.Request) (any, error) {
	p := query(r, "q", "tenant", "health", "order", "limit", "after", "lanes")
	q := SubscriptionQuery{
		Text: p.text("q"), Tenant: p.text("tenant"), Health: word(p, "health", Healths[:]...), By: word(p, "order", ByWorst, ByBusiest, ByID),
		After: p.number("after", 0, 1_000_000_000, 0), Limit: p.number("limit", 1, MaxSubscriptions, 50), Lanes: p.flag("lanes"),
	}
	if p.err != nil {
		return nil, p.err
	}
	found, err := a.s.Subscriptions(r.Context(), Actor(r, "api"), q)
	if err != nil {
		return nil, err
	}
	out := struct {
		page[wireSubscription]
		Total int `json:"total"`
	}{Total: found.Total}
	out.Items = []wireSubscription{}
	for i := range found.Subscriptions {
		out.Items = append(out.Items, toWire(&found.Subscriptions[i]))
	}
	if end := q.After + len(out.Items); end < found.Total {
		next := strconv.Itoa(end)
		out.Next = &next
	}
	return out, nil
}

func (a *rest) getSubscription(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	sub, err := a.s.Subscription(r.Context(), Actor(r, "api"), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return toWire(sub), nil
}

func (a *rest) getDocument(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	return a.s.deps.Editor.Get(r.Context(), r.PathValue("id"))
}

func (a *rest) applySubscriptions(r *http.Request) (any, error) {
	p := query(r, "prune")
	prune := p.flag("prune")
	if p.err != nil {
		return nil, p.err
	}
	b, err := jsonBody(r)
	if err != nil {
		return nil, err
	}
	changes, err := a.s.deps.Editor.Apply(r.Context(), Actor(r, "api"), b, prune)
	if err != nil {
		return nil, err
	}
	return struct {
		Changes []registry.Change `json:"changes"`
	}{append([]registry.Change{}, changes...)}, nil
}

func (a *rest) putSubscription(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	b, err := jsonBody(r)
	if err != nil {
		return nil, err
	}
	var named struct {
		ID string `json:"id"`
	}
	if err := json.Unmarshal(b, &named); err != nil || named.ID != r.PathValue("id") {
		return nil, newProblem(http.StatusUnprocessableEntity, "the body is one subscription, and its id that of the path")
	}
	changes, err := a.s.deps.Editor.Apply(r.Context(), Actor(r, "api"), b, false)
	if err != nil {
		return nil, err
	}
	return changes[0], nil
}

func (a *rest) deleteSubscription(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	return a.s.deps.Editor.Delete(r.Context(), Actor(r, "api"), r.PathValue("id"))
}

// there makes sure that a subscription is known, since a command for one that is
// not would be waited for in vain.
func (a *rest) there(r *http.Request) (string, error) {
	id := r.PathValue("id")
	_, err := a.s.Known(id)
	return id, err
}

func (a *rest) pause(r *http.Request) (any, error) {
	var body struct {
		Reason string `json:"reason"`
	}
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	if len(body.Reason) > maxReason {
		return nil, newProblem(http.StatusUnprocessableEntity, fmt.Sprintf("reason: more than %d bytes", maxReason))
	}
	id, err := a.there(r)
	if err != nil {
		return nil, err
	}
	return a.s.deps.Operator.Pause(r.Context(), Actor(r, "api"), id, body.Reason)
}

// maxReason bounds why somebody paused a subscription, in bytes.
const maxReason = 200

func (a *rest) resume(r *http.Request) (any, error) {
	var body struct {
		Replay bool `json:"replay"`
	}
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	id, err := a.there(r)
	if err != nil {
		return nil, err
	}
	if !body.Replay {
		return a.s.deps.Operator.Resume(r.Context(), Actor(r, "api"), id, control.ResumeOptions{})
	}
	rs, err := a.replays()
	if err != nil {
		return nil, err
	}
	c, err := rs.CatchUp(r.Context(), Actor(r, "api"), id)
	switch {
	case err != nil:
		return nil, err
	case c.Result != nil:
		return c.Result, nil
	}
	return accepted{catchUpToWire(c)}, nil
}

func (a *rest) getCatchUp(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	id, err := a.there(r)
	if err != nil {
		return nil, err
	}
	rs, err := a.replays()
	if err != nil {
		return nil, err
	}
	c, err := rs.CatchUpOf(id)
	if err != nil {
		return nil, err
	}
	return catchUpToWire(c), nil
}

// target is the body of skip and retry.
func (a *rest) target(r *http.Request) (control.Target, error) {
	var body struct {
		Entity   string `json:"entity"`
		Delivery string `json:"delivery"`
	}
	if err := readJSON(r, &body); err != nil {
		return control.Target{}, err
	}
	if len(body.Entity) > 1024 || len(body.Delivery) > 128 {
		return control.Target{}, newProblem(http.StatusUnprocessableEntity, "entity or delivery is too long")
	}
	id, err := a.there(r)
	return control.Target{Subscription: id, Entity: body.Entity, Delivery: body.Delivery}, err
}

func (a *rest) skip(r *http.Request) (any, error) {
	at, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.s.deps.Operator.Skip(r.Context(), Actor(r, "api"), at)
}

func (a *rest) retry(r *http.Request) (any, error) {
	at, err := a.target(r)
	if err != nil {
		return nil, err
	}
	return a.s.deps.Operator.Retry(r.Context(), Actor(r, "api"), at)
}

func (a *rest) test(r *http.Request) (any, error) {
	var body struct {
		EventType string `json:"event_type"`
		Payload   string `json:"payload"`
	}
	if err := readJSON(r, &body); err != nil {
		return nil, err
	}
	if len(body.EventType) > 256 || len(body.Payload) > 64<<10 {
		return nil, newProblem(http.StatusUnprocessableEntity, "event_type has at most 256 bytes, payload 64 KiB")
	}
	id, err := a.there(r)
	if err != nil {
		return nil, err
	}
	return a.s.deps.Operator.Test(r.Context(), Actor(r, "api"), id, control.TestOptions{EventType: body.EventType, Payload: []byte(body.Payload)})
}

func (a *rest) listDeliveries(r *http.Request) (any, error) {
	p := query(r, "subscription", "tenant", "event", "correlation", "delivery", "state", "since", "until", "limit", "after")
	q := sink.DeliveryQuery{
		Subscription: p.text("subscription"), Tenant: p.text("tenant"), Event: p.text("event"), Correlation: p.text("correlation"),
		Delivery: p.text("delivery"), State: word(p, "state", sink.DeliveryStates[:]...),
		Since: p.time("since", time.Time{}), Until: p.time("until", time.Time{}), Limit: p.number("limit", 1, sink.MaxDeliveries, 50),
	}
	if p.err != nil {
		return nil, p.err
	}
	var err error
	if q.After, err = sink.ParseDeliveryCursor(p.text("after")); err != nil {
		return nil, err
	}
	found, err := a.s.Deliveries(r.Context(), q)
	if err != nil {
		return nil, err
	}
	out := page[wireDelivery]{Items: []wireDelivery{}}
	for i := range found.Deliveries {
		d := &found.Deliveries[i]
		out.Items = append(out.Items, deliveryToWire(&d.Attempt, d.State))
	}
	if next := found.Next.String(); next != "" {
		out.Next = &next
	}
	return out, nil
}

func (a *rest) getDelivery(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	d, err := a.s.Delivery(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return detailToWire(d), nil
}

func (a *rest) listAttempts(r *http.Request) (any, error) {
	if p := query(r); p.err != nil {
		return nil, p.err
	}
	d, err := a.s.Delivery(r.Context(), r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return page[wireAttempt]{Items: detailToWire(d).Attempts}, nil
}

func (a *rest) stats(r *http.Request) (any, error) {
	p := query(r, "subscription", "since", "until", "step")
	now := a.s.Now().UTC()
	q := sink.SeriesQuery{Subscription: p.text("subscription"), Until: p.time("until", now)}
	q.Since = p.time("since", q.Until.Add(-time.Hour))
	q.Step = time.Duration(p.number("step", 60, 7*24*3600, 60)) * time.Second
	if p.err != nil {
		return nil, p.err
	}
	if err := q.Validate(); err != nil {
		return nil, newProblem(http.StatusBadRequest, err.Error())
	}
	points, err := a.s.Series(r.Context(), q)
	if err != nil {
		return nil, err
	}
	out := page[wirePoint]{Items: []wirePoint{}}
	for i := range points {
		out.Items = append(out.Items, pointToWire(&points[i]))
	}
	return out, nil
}
