package sender

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hookline/hookline/pipeline"
	"github.com/hookline/hookline/pipeline/secret"
	"github.com/hookline/hookline/sender/sign"
)

const (
	newHMAC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	oldHMAC = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	ed25519 = "whsk_6Xb/dCcHpPea21PS1N9VY/NZW723CEc77N4rJCubMbfVKIDij2HKpMKkioLlX0dRqSKJp4AJ6p9lMicMFs6Kvg=="
)

// variables is a Resolver of nothing but variables.
func variables(env map[string]string) *secret.Resolver {
	return &secret.Resolver{Getenv: func(name string) (string, bool) { s, ok := env[name]; return s, ok }}
}

func signing(scheme pipeline.SigningScheme, refs ...string) *pipeline.Signing {
	s := &pipeline.Signing{Scheme: scheme}
	for _, r := range refs {
		s.Secrets = append(s.Secrets, pipeline.SigningSecret{Secret: r})
	}
	return s
}

// received is a request as an endpoint saw it.
type received struct {
	header http.Header
	body   []byte
}

func endpointServer(t testing.TB, answer func(n int, w http.ResponseWriter)) (url string, got *[]received) {
	t.Helper()
	got = &[]received{}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*got = append(*got, received{r.Header.Clone(), []byte(readAll(t, r.Body))})
		if answer != nil {
			answer(len(*got), w)
		}
	}))
	t.Cleanup(srv.Close)
	return srv.URL, got
}

// signedRequest is a request for verifiers in other languages.
type signedRequest struct {
	ID        string   `json:"id"`
	Timestamp string   `json:"timestamp"`
	Signature string   `json:"signature"`
	Body      []byte   `json:"body"`    // base64
	Secrets   []string `json:"secrets"` // of v1; each of them verifies
	Public    []byte   `json:"public"`  // of v1a; base64, 32 bytes
}

// TestSignedRequests signs requests as endpoints get them. With
// HOOKLINE_TEST_SIGNED they are written to that file, for scripts/verify-signatures.sh.
func TestSignedRequests(t *testing.T) {
	url, got := endpointServer(t, nil)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"NEW": newHMAC, "ED": ed25519, "OLD": oldHMAC})})
	private, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(ed25519, "whsk_"))
	if err != nil {
		t.Fatal(err)
	}
	signer, err := sign.New(pipeline.SigningStandard, []sign.Key{
		{Secret: secret.New(newHMAC)}, {Secret: secret.New(ed25519)}, {Secret: secret.New(oldHMAC)},
	})
	if err != nil {
		t.Fatal(err)
	}
	var out []signedRequest
	for _, payload := range []string{
		`{"test": 2432232314}`, `{"text":"größer als „Zeichen“ ☃"}`, "{}", ` { "spaces" : [ 1, 2 ] } `, `{"long":"` + strings.Repeat("x", 200_000) + `"}`,
	} {
		for _, mode := range []pipeline.ContentMode{pipeline.ContentRaw, pipeline.ContentStructured, pipeline.ContentBinary} {
			req := request(url)
			req.Payload = []byte(payload)
			req.Envelope.ContentType = "application/json"
			req.Subscription.ContentMode = mode
			req.Subscription.Signing = signing(pipeline.SigningStandard, "env:NEW", "env:ED", "env:OLD")
			*got = nil
			res := send(c, req)
			if res.Outcome != pipeline.OutcomeSuccess || len(*got) != 1 {
				t.Fatalf("%s: %s %q, %d requests", mode, res.Outcome, res.Error, len(*got))
			}
			h, body := (*got)[0].header, (*got)[0].body
			r := signedRequest{
				ID: h.Get("webhook-id"), Timestamp: h.Get("webhook-timestamp"), Signature: h.Get("webhook-signature"),
				Body: body, Secrets: []string{newHMAC, oldHMAC}, Public: private[32:],
			}
			seconds, err := strconv.ParseInt(r.Timestamp, 10, 64)
			if err != nil || time.Since(time.Unix(seconds, 0)).Abs() > time.Minute {
				t.Errorf("webhook-timestamp %q", r.Timestamp)
			}
			want, err := signer.Append(nil, r.ID, time.Unix(seconds, 0), body)
			if err != nil || string(want) != r.Signature || strings.Count(r.Signature, " ") != 2 || r.ID != req.DeliveryID {
				t.Errorf("%s %s: webhook-signature %q, want %q", mode, r.ID, r.Signature, want)
			}
			if logged := string(res.RequestHeaders); !strings.Contains(logged, "webhook-signature: [redacted]\r\n") || strings.Contains(logged, "v1,") ||
				!strings.Contains(logged, "webhook-timestamp: "+r.Timestamp) {
				t.Errorf("logged %q", logged)
			}
			out = append(out, r)
		}
	}
	if path := os.Getenv("HOOKLINE_TEST_SIGNED"); path != "" {
		b, err := json.Marshal(out)
		if err == nil {
			err = os.WriteFile(path, b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestTimestampIsOfTheAttempt: the id stays, the time does not.
func TestTimestampIsOfTheAttempt(t *testing.T) {
	url, got := endpointServer(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(http.StatusInternalServerError) })
	var ahead atomic.Int64 // read by the sender's own goroutines too
	c := newClient(t, localConfig(), Deps{
		Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, Secrets: variables(map[string]string{"NEW": newHMAC}),
	})
	req := request(url)
	req.Subscription.Signing = signing(pipeline.SigningStandard, "env:NEW")
	send(c, req)
	ahead.Store(int64(30 * time.Second))
	req.Attempt = 2
	send(c, req)
	if len(*got) != 2 {
		t.Fatalf("%d requests", len(*got))
	}
	a, b := (*got)[0].header, (*got)[1].header
	if a.Get("webhook-id") != b.Get("webhook-id") || a.Get("webhook-timestamp") == b.Get("webhook-timestamp") || a.Get("webhook-signature") == b.Get("webhook-signature") {
		t.Errorf("attempt 1 %v\nattempt 2 %v", a, b)
	}
}

func TestHubSignature(t *testing.T) {
	url, got := endpointServer(t, nil)
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"HUB": "It's a Secret to Everybody"})})
	for _, header := range []string{pipeline.DefaultHubHeader, "X-My-Sum"} {
		req := request(url)
		req.Payload = []byte("Hello, World!")
		req.Subscription = &pipeline.Subscription{ID: "s" + header, Tenant: "acme", URL: url, Signing: signing(pipeline.SigningHub, "env:HUB")}
		req.Subscription.Signing.Header = header
		*got = nil
		res := send(c, req)
		h := (*got)[0].header
		if want := "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"; h.Get(header) != want || h.Get("webhook-signature") != "" {
			t.Errorf("%s: got %v", header, h)
		}
		if strings.Contains(string(res.RequestHeaders), "757107") {
			t.Errorf("the signature is logged: %q", res.RequestHeaders)
		}
	}
}

// TestSigningAllocates: a signed request costs no more garbage than another.
func TestSigningAllocates(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector drops pooled items at random")
	}
	srv := serveRaw(t, func(p *peer) {
		for p.request() {
			p.say("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	c := newClient(t, localConfig(), Deps{Secrets: variables(map[string]string{"NEW": newHMAC})})
	x := newExchange()
	allocs := func(s *pipeline.Signing) float64 {
		req := request(srv.url())
		req.Subscription.Signing = s
		to := c.prepare(req.Subscription)
		cr := c.credentials(to)
		var res pipeline.Result
		return testing.AllocsPerRun(100, func() {
			res.RequestHeaders = res.RequestHeaders[:0]
			if err := x.render(req, &res); err != nil {
				t.Fatal(err)
			}
			if err := x.build(c, to, cr, req, &res); err != nil {
				t.Fatal(err)
			}
		})
	}
	plain, signed := allocs(nil), allocs(signing(pipeline.SigningStandard, "env:NEW"))
	if signed > plain {
		t.Errorf("building a signed request allocates %v times, another %v", signed, plain)
	}
}
