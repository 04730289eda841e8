package main

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/hookline/hookline/internal/testkit"
)

// refusedWithin is how soon a failed contact with Kafka or ClickHouse must be told.
const refusedWithin = 15 * time.Second

// TestKafkaRefusals: each way of not getting in is told by its cause, in one
// line, with the exit code of its kind, and without the password.
func TestKafkaRefusals(t *testing.T) {
	const password, wrong = "correct-horse-battery", "staple-wrong-password"
	ca, strangers := testkit.NewAuthority(t), testkit.NewAuthority(t)
	cluster := func(change func(*x509.Certificate), opts ...kfake.Opt) string {
		conf := &tls.Config{Certificates: []tls.Certificate{ca.Issue(t, change).TLS}, MinVersion: tls.VersionTLS12}
		c := testkit.KFake(t, append(opts, kfake.SeedTopics(1, "orders"), kfake.TLS(conf), kfake.EnableSASL(), kfake.EnableACLs(),
			kfake.Superuser("PLAIN", "root", password), kfake.Superuser("SCRAM-SHA-256", "root", password), kfake.Superuser("SCRAM-SHA-512", "root", password),
			kfake.User("PLAIN", "nobody", password),
			kfake.User("PLAIN", "reader", password, kfake.ACL{Resource: kmsg.ACLResourceTypeTopic, Name: "hookline.", Pattern: kmsg.ACLResourcePatternTypePrefixed, Operation: kmsg.ACLOperationDescribe, Allow: true}),
		)...)
		return strings.Join(c.ListenAddrs(), ",")
	}
	good := cluster(nil)
	expired := cluster(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	elsewhere := cluster(func(c *x509.Certificate) { c.IPAddresses, c.DNSNames = nil, []string{"kafka.example.com"} })
	plain := strings.Join(testkit.KFake(t, kfake.SeedTopics(1, "orders")).ListenAddrs(), ",")
	silent, err := net.Listen("tcp", "127.0.0.1:0") // its backlog takes connections, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	login := func(brokers, mechanism, user, pass string, more ...string) []string {
		return append([]string{
			"HOOKLINE_KAFKA_BROKERS=" + brokers, "HOOKLINE_EVENTS_TOPICS=orders=json", "HOOKLINE_REPLICATION=1", "HOOKLINE_PARTITIONS=2", "HOOKLINE_LOG_LEVEL=debug",
			"HOOKLINE_KAFKA_TLS_ENABLED=true", "HOOKLINE_KAFKA_TLS_CA_FILE=" + ca.File,
			"HOOKLINE_KAFKA_SASL_MECHANISM=" + mechanism, "HOOKLINE_KAFKA_SASL_USER=" + user, "HOOKLINE_KAFKA_SASL_PASSWORD=" + pass,
		}, more...)
	}
	with := func(env []string, name, value string) []string {
		out := []string{name + "=" + value}
		for _, kv := range env {
			if !strings.HasPrefix(kv, name+"=") {
				out = append(out, kv)
			}
		}
		return out
	}
	root := login(good, "scram-sha-512", "root", password)
	for _, tt := range []refusal{
		{"plain", login(good, "plain", "root", password), exitDone, ""},
		{"scram 256", login(good, "scram-sha-256", "root", password), exitDone, ""},
		{"scram 512", root, exitDone, ""},
		{"password file", with(with(root, "HOOKLINE_KAFKA_SASL_PASSWORD", ""), "HOOKLINE_KAFKA_SASL_PASSWORD_FILE", file), exitDone, ""},
		{"its name elsewhere", with(login(elsewhere, "plain", "root", password), "HOOKLINE_KAFKA_TLS_SERVER_NAME", "kafka.example.com"), exitDone, ""},
		{"wrong authority", with(root, "HOOKLINE_KAFKA_TLS_CA_FILE", strangers.File), exitUnreachable, "certificate signed by unknown authority"},
		{"wrong name", login(elsewhere, "plain", "root", password), exitUnreachable, "(set HOOKLINE_KAFKA_TLS_CA_FILE or _SERVER_NAME)"},
		{"expired", login(expired, "plain", "root", password), exitUnreachable, "certificate has expired or is not yet valid"},
		{"wrong password", login(good, "scram-sha-512", "root", wrong), exitUnreachable, "refuse the login (set HOOKLINE_KAFKA_SASL_USER, _PASSWORD and _MECHANISM)"},
		{"wrong password, plain", login(good, "plain", "root", wrong), exitUnreachable, "refuse the login"},
		{"no such user", login(good, "scram-sha-256", "stranger", wrong), exitUnreachable, "refuse the login"},
		{"no such mechanism", login(good, "oauthbearer", "", "", "HOOKLINE_KAFKA_SASL_TOKEN_FILE="+file), exitUnreachable, "the brokers refused the login"},
		{"no login", []string{"HOOKLINE_KAFKA_BROKERS=" + good, "HOOKLINE_KAFKA_TLS_ENABLED=true", "HOOKLINE_KAFKA_TLS_CA_FILE=" + ca.File, "HOOKLINE_EVENTS_TOPICS=orders=json"}, exitUnreachable, "HOOKLINE_KAFKA_SASL_MECHANISM"},
		{"TLS to a plain port", login(plain, "plain", "root", password), exitUnreachable, "TLS"},
		{"no TLS to a TLS port", []string{"HOOKLINE_KAFKA_BROKERS=" + good, "HOOKLINE_EVENTS_TOPICS=orders=json"}, exitUnreachable, "HOOKLINE_KAFKA_TLS_ENABLED"},
		{"silent", login(silent.Addr().String(), "plain", "root", password), exitUnreachable, "no answer in time"},
		{"may nothing", login(good, "plain", "nobody", password), exitUnreachable, "TOPIC_AUTHORIZATION_FAILED"},
		{"may only look", login(good, "plain", "reader", password), exitUnreachable, "TOPIC_AUTHORIZATION_FAILED"},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, password, wrong) })
	}
}

// refusal is an environment, and what `hookline topics` says in it.
type refusal struct {
	name string
	env  []string
	code int
	want string // on standard error
}

func (tt *refusal) run(t *testing.T, secrets ...string) {
	began := time.Now()
	r := run(t, tt.env, "topics")
	if r.code != tt.code || !strings.Contains(r.err, tt.want) {
		t.Errorf("exit code %d, want %d and %q:\n%s%s", r.code, tt.code, tt.want, r.out, r.err)
	}
	if took := time.Since(began); took > refusedWithin {
		t.Errorf("took %s", took)
	}
	for _, s := range secrets {
		if all := r.out + r.err; strings.Contains(all, s) {
			t.Errorf("the password is shown:\n%s", all)
		}
	}
	if n := strings.Count(r.err, "\n"); tt.code == exitUnreachable && n != 1 {
		t.Errorf("%d lines:\n%s", n, r.err)
	}
}
