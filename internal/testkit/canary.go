package testkit

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html"
	"html/template"
	"maps"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/hookline/hookline/pipeline/attemptlog"
)

// SecretForms are the ways in which secrets could be written: as they are, in hex,
// escaped for URLs, JSON and HTML, and in base64, also as a part of something
// longer; of what is base64 itself, what it stands for, too.
func SecretForms(secrets ...string) []string {
	var out []string
	for _, s := range secrets {
		if decoded, err := base64.StdEncoding.DecodeString(s); err == nil {
			out = append(out, formsOf(string(decoded))...)
		}
		out = append(out, formsOf(s)...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func formsOf(s string) []string {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic("BUG: a text is not JSON: " + err.Error())
	}
	inHex := hex.EncodeToString([]byte(s))
	out := []string{s, inHex, strings.ToUpper(inHex), url.QueryEscape(s), url.PathEscape(s), html.EscapeString(s), template.HTMLEscapeString(s), string(quoted[1 : len(quoted)-1])}
	for before := range 3 { // bytes that stand before s in what is encoded
		raw := append(make([]byte, before), s...)
		// Without the characters that its neighbours have a part in.
		from, to := (8*before+5)/6, 8*len(raw)/6
		standard, forURLs := base64.StdEncoding.EncodeToString(raw)[from:to], base64.URLEncoding.EncodeToString(raw)[from:to]
		out = append(out, standard, forURLs, url.QueryEscape(standard), template.HTMLEscapeString(standard))
	}
	for _, form := range out { // as ClickHouse writes JSON
		out = append(out, strings.ReplaceAll(form, "/", `\/`))
	}
	return out
}

// Exposed says where one of the forms stands in what each place shows, with what
// is around it.
func Exposed(places map[string]string, forms []string) []string {
	var out []string
	for _, place := range slices.Sorted(maps.Keys(places)) {
		text := places[place]
		for _, form := range forms {
			if i := strings.Index(text, form); i >= 0 {
				out = append(out, fmt.Sprintf("%s: a secret is shown: ...%s...", place, text[max(0, i-300):min(len(text), i+60)]))
			}
		}
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
