package chhttp

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strconv"
	"strings"

	"github.com/hookline/hookline/sink/embedded/chdb"
)

// exception is an error as ClickHouse reports it over HTTP.
type exception struct {
	code int
	text string // "Code: 60. DB::Exception: ..."
}

func (e *exception) Error() string { return e.text }

func newException(code int, message, name string) *exception {
	return &exception{code: code, text: fmt.Sprintf("Code: %d. DB::Exception: %s. (%s)", code, message, name)}
}

var (
	codePrefix = regexp.MustCompile(`^Code: (\d+)\. `)
	// The engine wraps an exception of an INFILE in one of its own.
	codeTwice = regexp.MustCompile(`^Code: \d+\. DB::Exception: (Code: \d+\. )`)
)

// asException gives err the form of an exception; one without a code is UNKNOWN_EXCEPTION.
func asException(err error) *exception {
	var own *exception
	if errors.As(err, &own) {
		return own
	}
	text := err.Error()
	var engine *chdb.Error
	if errors.As(err, &engine) {
		text = codeTwice.ReplaceAllString(strings.TrimSpace(engine.Text), "$1")
	}
	if m := codePrefix.FindStringSubmatch(text); m != nil {
		if code, err := strconv.Atoi(m[1]); err == nil {
			return &exception{code: code, text: text}
		}
	}
	return newException(1002, text, "UNKNOWN_EXCEPTION")
}

// status is the HTTP status a server gives an exception's code; source:
// ClickHouse, src/Server/HTTP/exceptionCodeToHTTPStatus.cpp.
func (e *exception) status() int {
	switch e.code {
	case 497: // ACCESS_DENIED
		return http.StatusForbidden
	case 6, 26, 27, 36, 38, 41, 43, 53, 62, 69, 72, 117, 130, 131, 271, 354, 456, 457: // what the text of the query says is wrong
		return http.StatusBadRequest
	case 60, 81, 46, 47, 16, 50, 73, 115, 5, 140, 218: // something named is unknown
		return http.StatusNotFound
	case 48: // NOT_IMPLEMENTED
		return http.StatusNotImplemented
	case 158, 396, 307: // TOO_MANY_ROWS, TOO_MANY_ROWS_OR_BYTES, TOO_MANY_BYTES
		return http.StatusRequestEntityTooLarge
	case 159: // TIMEOUT_EXCEEDED
		return http.StatusRequestTimeout
	case 202: // TOO_MANY_SIMULTANEOUS_QUERIES
		return http.StatusServiceUnavailable
	case 381: // HTTP_LENGTH_REQUIRED
		return http.StatusLengthRequired
	}
	return http.StatusInternalServerError
}
