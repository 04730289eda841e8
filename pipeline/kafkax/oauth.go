package kafkax

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/oauth"
	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"
)

// tokenTimeout bounds one request for a token, so that a token server that is
// silent is named well within 15 s of the start.
const tokenTimeout = 5 * time.Second

// TokenError says that no token for the login was to be had. Its text never
// quotes what the token server said.
type TokenError struct{ why string }

func (e *TokenError) Error() string { return e.why }

// oauth gives tokens out of a file, or of a token server. The former is read
// here too, so that a missing one is told at the start.
func (s *SASLConfig) oauth(secret string) (sasl.Mechanism, error) {
	if s.TokenURL == "" {
		if _, err := s.readToken(); err != nil {
			return nil, err
		}
		return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
			token, err := s.readToken()
			return oauth.Auth{Token: token}, err
		}), nil
	}
	cfg := clientcredentials.Config{ClientID: s.User, ClientSecret: secret, TokenURL: s.TokenURL, Scopes: s.Scopes}
	client := &http.Client{
		Timeout: tokenTimeout,
		// The client's secret goes nowhere but where it was said to go.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	source := cfg.TokenSource(context.WithValue(context.Background(), oauth2.HTTPClient, client)) // keeps a token until it expires
	return oauth.Oauth(func(context.Context) (oauth.Auth, error) {
		token, err := source.Token()
		if err != nil {
			return oauth.Auth{}, &TokenError{tokenCause(err)}
		}
		return oauth.Auth{Token: token.AccessToken}, nil
	}), nil
}

func tokenCause(err error) string {
	if refused, ok := errors.AsType[*oauth2.RetrieveError](err); ok && refused.Response != nil {
		return fmt.Sprintf("the token server answered %d", refused.Response.StatusCode)
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); ok && timeout.Timeout() {
		return fmt.Sprintf("the token server did not answer within %s", tokenTimeout)
	}
	return "the token server gave no token"
}

func (s *SASLConfig) readToken() (string, error) {
	b, err := os.ReadFile(s.TokenFile)
	if err != nil {
		return "", fmt.Errorf("reading HOOKLINE_KAFKA_SASL_TOKEN_FILE: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("reading HOOKLINE_KAFKA_SASL_TOKEN_FILE: %s is empty", s.TokenFile)
	}
	return token, nil
}
