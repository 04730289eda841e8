package kafkax

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func TestConfigReportsEverythingAtOnce(t *testing.T) {
	good := DefaultConfig()
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	bad := Config{
		Brokers: []string{"nohost", ":9092"}, ClientID: "a b", TopicPrefix: "ä", Group: "", InstanceID: "x/y",
		Partitions: 0, Replication: -1, EventMaxBytes: 1, DeliveriesRetention: 1,
		TLS: TLSConfig{CertFile: "c"}, SASL: SASLConfig{Mechanism: "kerberos", Password: "hunter2hunter2", PasswordFile: "f"},
	}
	err := bad.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`"nohost"`, `":9092"`, "KAFKA_CLIENT_ID", "TOPIC_PREFIX", "_GROUP", "INSTANCE_ID", "_PARTITIONS", "REPLICATION", "EVENT_MAX_BYTES",
		"DELIVERIES_RETENTION", "KAFKA_TLS_ENABLED", "KAFKA_TLS_CERT_FILE", "KAFKA_SASL_MECHANISM", "KAFKA_SASL_USER", "KAFKA_SASL_PASSWORD",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not named in:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Error("the error shows the password")
	}
}

func TestPasswordIsNeverShown(t *testing.T) {
	c := Config{SASL: SASLConfig{Mechanism: "plain", User: "u", Password: "hunter2"}}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "config", c, "password", c.SASL.Password)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", c, "password", c.SASL.Password)
	b, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out := log.String() + string(b)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out += fmt.Sprintf(verb, c) + fmt.Sprintf(verb, c.SASL.Password) + fmt.Sprintf(verb, &c.SASL)
	}
	for _, form := range []string{"hunter2", "68756e74657232", "104 117"} {
		if strings.Contains(out, form) {
			t.Errorf("%q is in %s", form, out)
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]Bytes{"1MiB": 1 << 20, "512 KiB": 512 << 10, "1MB": 1e6, "7": 7, "8B": 8, "2GiB": 2 << 30} {
		var b, again Bytes
		if err := b.UnmarshalText([]byte(text)); err != nil || b != want {
			t.Errorf("%s: %d, %v", text, b, err)
		}
		if err := again.UnmarshalText([]byte(b.String())); err != nil || again != b {
			t.Errorf("%s is written %s", text, b)
		}
	}
	for _, text := range []string{"", "-1", "1.5MiB", "MiB", "9999999999GiB", "1TiB"} {
		if err := new(Bytes).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("size %q was parsed", text)
		}
	}
	for text, want := range map[string]time.Duration{"7d": 7 * day, "1d12h": 36 * time.Hour, "90s": 90 * time.Second, "0d": 0} {
		var d, again Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || time.Duration(d) != want {
			t.Errorf("%s: %v, %v", text, d, err)
		}
		if err := again.UnmarshalText([]byte(d.String())); err != nil || again != d {
			t.Errorf("%s is written %s", text, d)
		}
	}
	for _, text := range []string{"", "d", "7", "1d-1h", "-1d", "300000d", "1d1", "1dd"} {
		if err := new(Duration).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("duration %q was parsed", text)
		}
	}
}

func TestLoggerThrottles(t *testing.T) {
	var out bytes.Buffer
	l := NewLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	now := time.Unix(1e9, 0)
	l.now = func() time.Time { return now }
	for range 100 {
		l.Log(kgo.LogLevelWarn, "broker is down", "broker", 1)
		l.Log(kgo.LogLevelInfo, "not for people")
	}
	now = now.Add(throttleWindow)
	l.Log(kgo.LogLevelWarn, "broker is down", "broker", 1)
	l.Log(kgo.LogLevelError, "something else")
	if n := strings.Count(out.String(), "\n"); n != 3 || !strings.Contains(out.String(), "suppressed=99") || strings.Contains(out.String(), "people") {
		t.Errorf("%d lines:\n%s", n, out.String())
	}
	lines := 0
	for range 3600 { // an hour of one message a second
		before := out.Len()
		now = now.Add(time.Second)
		l.Log(kgo.LogLevelWarn, "unable to dial")
		if out.Len() > before {
			lines++
		}
	}
	if lines < 55 || lines > 65 {
		t.Errorf("%d lines in an hour of the same trouble, want about 60", lines)
	}
	out.Reset()
	now = now.Add(time.Hour)
	l.Log(kgo.LogLevelWarn, "unable to dial")
	now = now.Add(throttleWindow)
	l.Log(kgo.LogLevelWarn, "unable to dial")
	if n := strings.Count(out.String(), "unable to dial"); n != 2 {
		t.Errorf("%d lines of new trouble, want 2", n)
	}
	for i := range 10 * throttleKeys {
		l.Log(kgo.LogLevelWarn, fmt.Sprint(i))
	}
	if len(l.seen) > throttleKeys {
		t.Errorf("%d messages are kept", len(l.seen))
	}
	if l.Level() != kgo.LogLevelWarn {
		t.Errorf("level %v", l.Level())
	}
}
