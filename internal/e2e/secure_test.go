package e2e

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	saslplain "github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/hookline/hookline/internal/testkit"
)

// refusedWithin is how soon a failed start must be told.
const refusedWithin = 15 * time.Second

// secureProperties have a broker that wants TLS with a client certificate, a
// login, and permissions.
func secureProperties(ca *testkit.Authority, server *testkit.Certificate, password string) string {
	const jaas = "listener.name.sasl_ssl.%s.sasl.jaas.config=org.apache.kafka.common.security.%s required%s;\n"
	users := fmt.Sprintf(` username="admin" password=%q user_admin=%[1]q user_hookline=%[1]q user_nobody=%[1]q`, password)
	return `listeners=SASL_SSL://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER@
advertised.listeners=SASL_SSL://127.0.0.1:@PORT@
listener.security.protocol.map=SASL_SSL:SASL_SSL,CONTROLLER:PLAINTEXT
inter.broker.listener.name=SASL_SSL
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
sasl.mechanism.inter.broker.protocol=PLAIN
listener.name.sasl_ssl.ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location=` + server.BothFile + `
ssl.truststore.type=PEM
ssl.truststore.location=` + ca.File + `
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:admin;User:ANONYMOUS
` + fmt.Sprintf(jaas, "plain", "plain.PlainLoginModule", users) +
		fmt.Sprintf(jaas, "scram-sha-256", "scram.ScramLoginModule", "") +
		fmt.Sprintf(jaas, "scram-sha-512", "scram.ScramLoginModule", "") +
		fmt.Sprintf(jaas, "oauthbearer", "oauthbearer.OAuthBearerLoginModule", ` unsecuredLoginStringClaim_sub="admin"`)
}

// unsignedToken is a JWT as Kafka takes it where nothing else is configured.
func unsignedToken(user string) string {
	enc := base64.RawURLEncoding.EncodeToString
	now := time.Now().Unix()
	return enc([]byte(`{"alg":"none"}`)) + "." + enc(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, user, now, now+3600)) + "."
}

// secured is a cluster that lets in whom it knows.
type secured struct {
	t      *testing.T
	ctx    context.Context
	adm    *kadm.Client
	cl     *kgo.Client
	vars   map[string]string
	prefix string
}

func secureKafka(t *testing.T, password string) *secured {
	t.Helper()
	ca := testkit.NewAuthority(t)
	server, client := ca.Issue(t, nil), ca.Issue(t, nil)
	kafka := testkit.KafkaWith(t, 1, secureProperties(ca, server, password))
	cl, err := kgo.NewClient(kgo.SeedBrokers(kafka.Addrs()...), kgo.SASL(saslplain.Auth{User: "admin", Pass: password}.AsMechanism()),
		kgo.DialTLSConfig(&tls.Config{RootCAs: ca.Pool, Certificates: []tls.Certificate{client.TLS}}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	ctx, cancel := context.WithTimeout(t.Context(), stageLimit)
	t.Cleanup(cancel)
	name := testkit.Unique(t, "sec")
	s := &secured{t: t, ctx: ctx, adm: kadm.NewClient(cl), cl: cl, prefix: name + "."}
	s.vars = map[string]string{
		"KAFKA_BROKERS": strings.Join(kafka.Addrs(), ","), "TOPIC_PREFIX": s.prefix, "GROUP": name, "PARTITIONS": "2", "START": "earliest",
		"EVENTS_TOPICS": name + "-events=json:type=/kind,tenant=/tenant", "ALLOW_HTTP": "true", "ALLOW_CIDRS": "127.0.0.0/8", "ALLOW_PORTS": "1-65535",
		"KAFKA_TLS_ENABLED": "true", "KAFKA_TLS_CA_FILE": ca.File, "KAFKA_TLS_CERT_FILE": client.CertFile, "KAFKA_TLS_KEY_FILE": client.KeyFile,
		"KAFKA_SASL_MECHANISM": "scram-sha-512", "KAFKA_SASL_USER": "hookline", "KAFKA_SASL_PASSWORD": password, "LOG_FORMAT": "text",
	}
	if _, err := s.adm.CreateTopic(ctx, 2, -1, nil, name+"-events"); err != nil {
		t.Fatal(err)
	}
	for _, m := range []kadm.ScramMechanism{kadm.ScramSha256, kadm.ScramSha512} {
		if res, err := s.adm.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "hookline", Mechanism: m, Iterations: 4096, Password: password}}); err != nil || res.Error() != nil {
			t.Fatal(err, res.Error())
		}
	}
	return s
}

// permissions are what docs/security.md lists under Kafka.
func (s *secured) permissions() []*kadm.ACLBuilder {
	user := func() *kadm.ACLBuilder { return kadm.NewACLs().Allow("User:hookline").AllowHosts() }
	group := s.vars["GROUP"]
	return []*kadm.ACLBuilder{
		user().Topics(s.prefix).ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpAll),
		user().Topics(group+"-events").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpDescribe, kadm.OpRead),
		user().Groups(group).ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpDescribe, kadm.OpRead),
		user().TransactionalIDs(group).ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpDescribe, kadm.OpWrite),
	}
}

func (s *secured) grant() {
	s.t.Helper()
	for _, b := range s.permissions() {
		res, err := s.adm.CreateACLs(s.ctx, b)
		if err != nil {
			s.t.Fatal(err)
		}
		for _, r := range res {
			if r.Err != nil {
				s.t.Fatal(r.Err)
			}
		}
	}
}

func (s *secured) revoke() {
	s.t.Helper()
	for _, b := range s.permissions() {
		if _, err := s.adm.DeleteACLs(s.ctx, b); err != nil {
			s.t.Fatal(err)
		}
	}
}

// topics is what `hookline topics` says with some variables changed; "": unset.
func (s *secured) topics(change map[string]string) result {
	s.t.Helper()
	vars := maps.Clone(s.vars)
	for name, v := range change {
		if vars[name] = v; v == "" {
			delete(vars, name)
		}
	}
	return command(s.t, vars, "", "topics")
}

// TestSecureKafka is real Kafka with TLS, client certificates, each login and
// permissions: who is let in, what is told to who is not, a delivery by a user who
// may do no more than the documentation lists, and what happens when he may that
// no more.
func TestSecureKafka(t *testing.T) {
	t.Parallel()
	const password = "correct-horse-battery"
	s := secureKafka(t, password)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(unsignedToken("hookline")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	strangers := testkit.NewAuthority(t)
	stranger := strangers.Issue(t, nil)
	if r := s.topics(nil); r.code != 3 || !strings.Contains(r.stderr, "AUTHORIZATION_FAILED") || !strings.Contains(r.stderr, "docs/security.md") {
		t.Errorf("a user who may nothing: code %d\n%s", r.code, r.stderr)
	}
	s.grant()
	for _, tt := range []struct {
		name   string
		change map[string]string
		code   int
		want   string
	}{
		{"scram 512", nil, 0, ""},
		{"scram 256", map[string]string{"KAFKA_SASL_MECHANISM": "scram-sha-256"}, 0, ""},
		{"plain", map[string]string{"KAFKA_SASL_MECHANISM": "plain"}, 0, ""},
		{"oauthbearer", map[string]string{"KAFKA_SASL_MECHANISM": "oauthbearer", "KAFKA_SASL_USER": "", "KAFKA_SASL_PASSWORD": "", "KAFKA_SASL_TOKEN_FILE": token}, 0, ""},
		{"wrong password", map[string]string{"KAFKA_SASL_PASSWORD": "staple"}, 3, "the brokers refused the login"},
		{"wrong password, plain", map[string]string{"KAFKA_SASL_MECHANISM": "plain", "KAFKA_SASL_PASSWORD": "staple"}, 3, "the brokers refused the login"},
		{"no such user", map[string]string{"KAFKA_SASL_USER": "stranger"}, 3, "the brokers refused the login"},
		{"no login", map[string]string{"KAFKA_SASL_MECHANISM": "", "KAFKA_SASL_USER": "", "KAFKA_SASL_PASSWORD": ""}, 3, "HOOKLINE_KAFKA_SASL_MECHANISM"},
		{"no certificate", map[string]string{"KAFKA_TLS_CERT_FILE": "", "KAFKA_TLS_KEY_FILE": ""}, 3, "HOOKLINE_KAFKA_TLS_CERT_FILE"},
		{"a stranger's certificate", map[string]string{"KAFKA_TLS_CERT_FILE": stranger.CertFile, "KAFKA_TLS_KEY_FILE": stranger.KeyFile}, 3, "HOOKLINE_KAFKA_TLS_CERT_FILE"},
		{"wrong authority", map[string]string{"KAFKA_TLS_CA_FILE": strangers.File}, 3, "HOOKLINE_KAFKA_TLS_CA_FILE"},
		{"wrong name", map[string]string{"KAFKA_TLS_SERVER_NAME": "kafka.example.com"}, 3, "_SERVER_NAME"},
		{"no TLS", map[string]string{"KAFKA_TLS_ENABLED": "", "KAFKA_TLS_CA_FILE": "", "KAFKA_TLS_CERT_FILE": "", "KAFKA_TLS_KEY_FILE": ""}, 3, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := s.topics(tt.change)
			if r.code != tt.code || !strings.Contains(r.stderr, tt.want) || strings.Contains(r.stdout+r.stderr, password) {
				t.Errorf("code %d, want %d with %q:\n%s%s", r.code, tt.code, tt.want, r.stdout, r.stderr)
			}
			if r.took > refusedWithin {
				t.Errorf("took %s", r.took)
			}
			t.Log(r.took.Round(time.Millisecond), strings.TrimSpace(r.stderr))
		})
	}
	s.deliverAndLosePermissions()
}

func (s *secured) deliverAndLosePermissions() {
	t := s.t
	var got atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { got.Add(1) }))
	t.Cleanup(srv.Close)
	if r := command(t, s.vars, fmt.Sprintf(`{"subscriptions":[{"id":"s","tenant":"*","url":%q}]}`, srv.URL+"/"), "subs", "apply", "-f", "-"); r.code != 0 {
		t.Fatalf("subs apply: code %d: %s", r.code, r.stderr)
	}
	p := launch(t, hookline, "process", s.vars, "--roles", "router,dispatcher")
	p.ready()
	s.event()
	s.until("the delivery", time.Minute, func() bool { return got.Load() == 1 })
	s.revoke()
	s.until("not to be ready", time.Minute, func() bool {
		code, _, err := get(s.ctx, "http://"+p.admin+"/readyz")
		return err == nil && code == http.StatusServiceUnavailable
	})
	const watched = 6 * time.Second
	began, gauge := time.Now(), watchUse(t, p)
	time.Sleep(watched) // that nothing happens is what is looked for
	gauge.stop()
	lines, byMessage := p.logged(began, time.Now())
	busy := cores(gauge.between(0, watched))
	t.Logf("without permissions, in %s: %.2f cores busy, %d log lines:%s", watched, busy, lines, most(byMessage))
	if busy > 0.2 {
		t.Errorf("a busy loop: %.2f cores", busy)
	}
	// Each part tells of what it is refused, once a second: the log has as many
	// lines, and no more, however often it is tried.
	for message, n := range byMessage {
		if n > int(watched.Seconds())+1 {
			t.Errorf("%d lines in %s: %s", n, watched, message)
		}
	}
	s.grant()
	s.event()
	s.until("the second delivery", 2*time.Minute, func() bool { return got.Load() >= 2 })
	p.ready()
	if took, code := p.terminate(30 * time.Second); code != 0 {
		t.Errorf("ended with code %d after %s", code, took)
	}
	log, err := os.ReadFile(p.log)
	if err != nil || strings.Contains(string(log), s.vars["KAFKA_SASL_PASSWORD"]) {
		t.Errorf("the log has the password, or cannot be read: %v", err)
	}
}

func (s *secured) event() {
	s.t.Helper()
	rec := &kgo.Record{Topic: s.vars["GROUP"] + "-events", Value: []byte(`{"kind":"k","tenant":"acme"}`)}
	if err := s.cl.ProduceSync(s.ctx, rec).FirstErr(); err != nil {
		s.t.Fatal(err)
	}
}

// until polls, since what is waited for is another process's.
func (s *secured) until(what string, limit time.Duration, ok func() bool) {
	s.t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			s.t.Fatalf("waited %s for the process: %s", limit, what)
		}
		time.Sleep(50 * time.Millisecond)
	}
	s.t.Logf("%s after %s", what, time.Since(began).Round(10*time.Millisecond))
}
