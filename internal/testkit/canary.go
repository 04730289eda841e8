package testkit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// SecretForms are the ways in which secrets could be written: as they are, in hex,
// in base64; of what is base64 itself, what it stands for, too.
func SecretForms(secrets ...string) []string {
	var out []string
	for _, s := range secrets {
		raw := []byte(s)
		if decoded, err := base64.StdEncoding.DecodeString(s); err == nil {
			out = append(out, string(decoded), hex.EncodeToString(decoded))
		}
		out = append(out, s, hex.EncodeToString(raw), strings.TrimRight(base64.StdEncoding.EncodeToString(raw), "="),
			strings.TrimRight(base64.URLEncoding.EncodeToString(raw), "="))
	}
	return out
}

// EveryRecord is all that stands in the topics of a cluster. Batches of attempts
// stand in it in clear, too: what is packed cannot be searched as it is. opts reach
// the cluster.
func EveryRecord(ctx context.Context, tb testing.TB, opts ...kgo.Opt) string {
	tb.Helper()
	client, err := kgo.NewClient(opts...)
	if err != nil {
		tb.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(ctx)
	if err != nil {
		tb.Fatal(err)
	}
	left := map[string]map[int32]kgo.Offset{}
	missing := 0
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 && !strings.HasPrefix(o.Topic, "__") {
			if left[o.Topic] == nil {
				left[o.Topic] = map[int32]kgo.Offset{}
			}
			left[o.Topic][o.Partition] = kgo.NewOffset().AtStart()
			missing++
		}
	})
	reader, err := kgo.NewClient(append(opts[:len(opts):len(opts)], kgo.ConsumePartitions(left), kgo.KeepControlRecords())...)
	if err != nil {
		tb.Fatal(err)
	}
	defer reader.Close()
	var b strings.Builder
	for missing > 0 {
		fetches := reader.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			tb.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			fmt.Fprintf(&b, "%s %s %s %q %s\n", r.Topic, r.Key, r.Value, r.Headers, attemptRows(tb, r))
			if end, _ := ends.Lookup(r.Topic, r.Partition); r.Offset == end.Offset-1 {
				missing--
			}
		})
	}
	return b.String()
}

// attemptRows are the rows of a record of attempts; of others there are none.
func attemptRows(tb testing.TB, r *kgo.Record) string {
	if r.Topic != "hookline.attempts" {
		return ""
	}
	var b strings.Builder
	if err := attemptlog.Decode(r.Value, func(row *attemptlog.Row) error {
		fmt.Fprintf(&b, "%+v %s %s %s\n", row, row.RequestHeaders, row.ResponseHeaders, row.ResponseBody)
		return nil
	}); err != nil {
		tb.Error(err)
	}
	return b.String()
}
