package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// wrongUsage are calls of every command that cannot be meant: each is told before
// anything is reached, with what is wrong.
var wrongUsage = []struct{ call, want string }{
	{"run --roles cook", `"cook" is no role`},
	{"run --roles router,router", "router is there twice"},
	{"run extra", "want no arguments"},
	{"check --roles cook", `"cook" is no role`},
	{"dev --kafka-addr foo", `--kafka-addr: "foo" is not host:port`},
	{"dev --kafka-addr 127.0.0.1:http", `"http" is no port`},
	{"dev --clickhouse-addr 127.0.0.1:70000", `--clickhouse-addr: "127.0.0.1:70000": "70000" is no port`},
	{"dev --data=", "--data: it is empty"},
	{"demo --events 0", "--events: 0 is not within"},
	{"demo --events many", `invalid argument "many"`},
	{"demo --retry-delays 1s,1s,1s,1s", "--retry-delays: 4 waits"},
	{"demo --retry-delays -1s", "--retry-delays"},
	{"receiver --status 99", "status 99 is not a final status"},
	{"receiver --addr foo", `"foo" is not host:port`},
	{"receiver --delay -1s", "a delay of -1s is negative"},
	{"receiver --delay soon", "invalid argument"},
	{"receiver --fail-first -1", "is negative"},
	{"produce", "--topic is missing"},
	{"produce -t t -H novalue", `-H "novalue" is not name=value`},
	{"produce -t t NOFILE", "no such file"},
	{"produce -t t .", "it is a directory"},
	{"produce -t hookline.subscriptions", "hookline.subscriptions is a topic of hookline's own"},
	{"produce -t hookline.retry.2", "hookline.retry.2 is a topic of hookline's own"},
	{"sql --format a;b x", "is not a format"},
	{"sql --json --format CSV x", "exclude each other"},
	{"sql ' '", "the query is empty"},
	{"sql a b", "got 2, want QUERY"},
	{"logs --status maybe", `--status: "maybe"`},
	{"logs --as xml", `--as: "xml"`},
	{"logs --since yesterday", `--since: "yesterday"`},
	{"logs --since -1h", `--since: "-1h"`},
	{"logs --limit -1", "--limit: -1 is negative"},
	{"replay", "nothing is selected"},
	{"replay --subscription s", "since when? (give --since, or --missed"},
	{"replay --subscription s --failed", "since when? (give --since"},
	{"replay --subscription a/b --since 1h", "is not a subscription's id"},
	{"replay --event e --delivery d", "not both"},
	{"replay --event e --failed", "name it alone"},
	{"replay --subscription s --missed --failed", "not both"},
	{"replay --subscription s --since 1h --rate 5x/s", `--rate: "5x/s"`},
	{"replay --subscription s --since 1h --rate 0/s", `--rate: "0/s"`},
	{"replay --subscription s --since tomorrow", `--since: "tomorrow"`},
	{"dead", "which command?"},
	{"dead list --reason tired", `--reason: "tired" is not one of exhausted, skipped,`},
	{"dead list --topic deliveries", `--topic: "deliveries" is not one of dead,`},
	{"dead list --subscription a/b", "is not a subscription's id"},
	{"dead list --since tomorrow", `dead list: --since: "tomorrow"`},
	{"dead list --since 1h --until 2h", "--until 2h is not after --since 1h"},
	{"dead list --limit 0", "--limit: 0"},
	{"dead show", "want AT"},
	{"dead show dead/1", "is neither a place"},
	{"dead show lanes/1/2", "is neither a place"},
	{"dead show dead/-1/2", "is neither a place"},
	{"dead show dead/0/0 --json --payload", "exclude each other"},
	{"subs", "which command?"},
	{"subs aply", `no command "aply" (did you mean apply?)`},
	{"subs apply", "-f is missing"},
	{"subs apply -f NOFILE", "no such file"},
	{"subs apply -f .", "is a directory"},
	{"subs list x", "want no arguments"},
	{"subs get", "want ID"},
	{"subs get a/b", `"a/b" is not a subscription's id`},
	{"subs delete", "which ID?"},
	{"subs delete a a/b", `"a/b" is not a subscription's id`},
	{"subs pause a/b", "is not a subscription's id"},
	{"subs resume a/b", "is not a subscription's id"},
	{"subs resume a/b --replay", "is not a subscription's id"},
	{"subs skip a/b", "is not a subscription's id"},
	{"subs retry a/b", "is not a subscription's id"},
	{"subs test a/b", "is not a subscription's id"},
	{"subs test a --file NOFILE", "reading the payload"},
	{"subs rotate-secret a --ref env:X --ed25519", "none of the others can be"},
	{"subs rotate-secret a --from f --out g", "none of the others can be"},
	{"subs rotate-secret a --overlap 8d", "--overlap"},
	{"subs rotate-secret a --ref x", "--ref: not a reference"},
	{"subs rotate-secret a", "HOOKLINE_SECRET_KEYS is not set"},
	{"subs rotate-keys x", "want no arguments"},
	{"topics x", "want no arguments"},
	{"health x", "want no arguments"},
	{"version x", "want no arguments"},
	{"help nothing", `no command "nothing"`},
	{"help subs nothing", `no command "subs nothing"`},
	{"help config --format xml", "--format"},
	{"help commands --format xml", "--format"},
	{"completion nothing", "no command"},
	{"completion bash x", "want no arguments"},
}

func TestWrongUsage(t *testing.T) {
	away := []string{"HOOKLINE_KAFKA_BROKERS=127.0.0.1:1", "HOOKLINE_CLICKHOUSE_ADDR=http://127.0.0.1:1"}
	missing := filepath.Join(t.TempDir(), "none")
	for _, tt := range wrongUsage {
		t.Run(tt.call, func(t *testing.T) {
			args, _ := invocation("hookline " + tt.call)
			for i := range args {
				if args[i] == "NOFILE" {
					args[i] = missing
				}
			}
			r := run(t, away, args...)
			if r.code != exitUsage || !strings.Contains(r.err, tt.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s%s", r.code, exitUsage, tt.want, r.out, r.err)
			}
			for line := range strings.Lines(r.err) {
				if !strings.HasPrefix(line, "hookline: ") || strings.Count(line, ": ") < 2 {
					t.Errorf("a line that is no error of ours: %q", line)
				}
			}
		})
	}
}

// Every command refuses an option that it does not have, and every option that is
// not a text refuses what is no value of it.
func TestWrongOptionsOfEveryCommand(t *testing.T) {
	root := newRoot()
	calls := 0
	try := func(args ...string) {
		calls++
		c := &cli{in: strings.NewReader(""), out: new(strings.Builder), err: new(strings.Builder)}
		if code := c.main(args); code != exitUsage {
			t.Errorf("%v: exit code %d, want %d\n%s", args, code, exitUsage, c.err)
		}
	}
	eachCommand(root, func(cmd *cobra.Command) {
		path := strings.Fields(cmd.CommandPath())[1:]
		try(append(path, "--no-such-option")...)
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "string" && f.Value.Type() != "stringArray" {
				try(append(path, "--"+f.Name+"=nonsense")...)
			}
		})
	})
	if calls < 60 {
		t.Errorf("%d calls only", calls)
	}
}

// TestDevTellsEveryTakenPort: at once, and nothing was started or made.
func TestDevTellsEveryTakenPort(t *testing.T) {
	var addrs []string
	for range 3 {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addrs = append(addrs, ln.Addr().String())
	}
	data := filepath.Join(t.TempDir(), "data")
	r := run(t, []string{"HOOKLINE_ADMIN_ADDR=" + addrs[2]}, "dev", "--kafka-addr", addrs[0], "--clickhouse-addr", addrs[1], "--data", data)
	if r.code != exitFailed {
		t.Errorf("exit code %d", r.code)
	}
	for i, remedy := range []string{"--kafka-addr", "--clickhouse-addr", "HOOKLINE_ADMIN_ADDR"} {
		want := addrs[i] + ": address already in use (is another hookline dev running? choose another " + remedy
		if !strings.Contains(r.err, want) {
			t.Errorf("%q is not told:\n%s", want, r.err)
		}
	}
	if r := run(t, nil, "receiver", "--addr", addrs[0]); r.code != exitFailed || r.err != "hookline: opening the port of the receiver: "+addrs[0]+": bind: address already in use (choose another --addr)\n" {
		t.Errorf("receiver: exit code %d, %s", r.code, r.err)
	}
	if _, err := os.Stat(data); err == nil {
		t.Error("the data directory was made")
	}
}
