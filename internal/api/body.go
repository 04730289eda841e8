package api

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// jsonBody is a request's body, of the one content type: a form of another site
// cannot have it.
func jsonBody(r *http.Request) ([]byte, error) {
	if kind, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); !strings.EqualFold(strings.TrimSpace(kind), "application/json") {
		return nil, newProblem(http.StatusUnsupportedMediaType, "the body must be JSON, and Content-Type say so: application/json")
	}
	b, err := io.ReadAll(r.Body)
	if err != nil {
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			return nil, err
		}
		return nil, newProblem(http.StatusBadRequest, "the body could not be read")
	}
	return b, nil
}

// readJSON reads an object of known fields; an empty body is an empty one.
func readJSON(r *http.Request, into any) error {
	if p := query(r); p.err != nil {
		return p.err
	}
	if r.ContentLength == 0 {
		return nil
	}
	b, err := jsonBody(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into, json.RejectUnknownMembers(true)); err != nil {
		return newProblem(http.StatusUnprocessableEntity, "the body: "+wrongBody(err)+" (see "+Prefix+"/openapi.json)")
	}
	return nil
}

// maxShownPath bounds what is shown of the path of a field, which may be anything.
const maxShownPath = 100

// wrongBody says which field is wrong, and how; never its value.
func wrongBody(err error) string {
	if syntax, ok := errors.AsType[*jsontext.SyntacticError](err); ok {
		return fmt.Sprintf("not JSON at byte %d", syntax.ByteOffset)
	}
	wrong, ok := errors.AsType[*json.SemanticError](err)
	if !ok {
		return "it is not what this request takes"
	}
	path := strings.ReplaceAll(strings.TrimPrefix(string(wrong.JSONPointer), "/"), "/", ".")
	if path == "" {
		return "it is no object"
	}
	path = fmt.Sprintf("%.*q", maxShownPath, path)
	switch {
	case errors.Is(err, json.ErrUnknownName):
		return path + " is not a field of this request"
	case wrong.GoType == reflect.TypeFor[time.Time]():
		return path + " is not a time such as 2026-01-31T08:00:00Z"
	}
	return path + " has the wrong type"
}
