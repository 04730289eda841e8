package api

import (
	"context"
	"errors"
	"net/http"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/hookline/hookline/pipeline/registry"
	"github.com/hookline/hookline/pipeline/replay"
	"github.com/hookline/hookline/sink"
)

// problem is an error as RFC 9457 has it.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
}

// Error is for errors.As.
func (p *problem) Error() string { return p.Detail }

func newProblem(status int, detail string) *problem {
	return &problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail}
}

// problemOf is the problem that an error is to whoever asked.
func problemOf(err error) *problem {
	if p, ok := errors.AsType[*problem](err); ok {
		return p
	}
	status := http.StatusBadGateway
	_, wrong := errors.AsType[*registry.FieldError](err)
	_, unselected := errors.AsType[SelectionError](err)
	_, long := errors.AsType[*http.MaxBytesError](err)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, registry.ErrNotFound):
		status = http.StatusNotFound
	case errors.Is(err, ErrNotReady), errors.Is(err, ErrStopping), errors.Is(err, ErrBusy):
		status = http.StatusServiceUnavailable
	case errors.Is(err, ErrNoReplays):
		status = http.StatusNotImplemented
	case errors.Is(err, registry.ErrConflict), errors.Is(err, ErrUnderWay), errors.Is(err, replay.ErrElsewhere), errors.Is(err, replay.ErrDisabled):
		status = http.StatusConflict
	case errors.Is(err, sink.ErrCursor):
		status = http.StatusBadRequest
	case wrong, unselected:
		status = http.StatusUnprocessableEntity
	case long:
		status = http.StatusRequestEntityTooLarge
	case errors.Is(err, context.DeadlineExceeded):
		status = http.StatusGatewayTimeout
	}
	return newProblem(status, err.Error())
}

func writeProblem(w http.ResponseWriter, p *problem) {
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="hookline"`)
	}
	writeBody(w, p.Status, "application/problem+json", p)
}

func writeBody(w http.ResponseWriter, status int, kind string, v any) {
	// Names and texts may be any bytes; those that are not UTF-8 are replaced.
	b, err := json.Marshal(v, jsontext.AllowInvalidUTF8(true), json.Deterministic(true))
	if err != nil {
		panic("BUG: encoding an answer: " + err.Error())
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	w.Write(append(b, '\n')) // an error here is a client that went away
}
